import { Page } from '../parts/page.tsx';
import type { ViewProps } from '../view.ts';

export function DeleteIntegration({ query }: ViewProps & { id?: string }) {
  return <Page title="DeleteIntegration">{query.toString()}</Page>;
}
