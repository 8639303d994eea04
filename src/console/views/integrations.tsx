import { Page } from '../parts/page.tsx';
import type { ViewProps } from '../view.ts';

export function Integrations({ query }: ViewProps & { id?: string }) {
  return <Page title="Integrations">{query.toString()}</Page>;
}
