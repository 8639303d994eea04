import { Page } from '../parts/page.tsx';
import type { ViewProps } from '../view.ts';

export function Overview({ query }: ViewProps & { id?: string }) {
  return <Page title="Overview">{query.toString()}</Page>;
}
