import { Page } from '../parts/page.tsx';
import type { ViewProps } from '../view.ts';

export function IntegrationView({ query }: ViewProps & { id?: string }) {
  return <Page title="IntegrationView">{query.toString()}</Page>;
}
