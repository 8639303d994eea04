import { Page } from '../parts/page.tsx';
import type { ViewProps } from '../view.ts';

export function NumberView({ query }: ViewProps & { id?: string }) {
  return <Page title="NumberView">{query.toString()}</Page>;
}
