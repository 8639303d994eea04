import { Page } from '../parts/page.tsx';
import type { ViewProps } from '../view.ts';

export function Keys({ query }: ViewProps & { id?: string }) {
  return <Page title="Keys">{query.toString()}</Page>;
}
