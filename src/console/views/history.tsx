import { Page } from '../parts/page.tsx';
import type { ViewProps } from '../view.ts';

export function HistoryView({ query }: ViewProps & { id?: string }) {
  return <Page title="HistoryView">{query.toString()}</Page>;
}
