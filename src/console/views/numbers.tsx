import { Page } from '../parts/page.tsx';
import type { ViewProps } from '../view.ts';

export function Numbers({ query }: ViewProps & { id?: string }) {
  return <Page title="Numbers">{query.toString()}</Page>;
}
