import { Page } from '../parts/page.tsx';
import type { ViewProps } from '../view.ts';

export function CreateIntegration({ query }: ViewProps & { id?: string }) {
  return <Page title="CreateIntegration">{query.toString()}</Page>;
}
