import { Page } from '../parts/page.tsx';
import type { ViewProps } from '../view.ts';

export function AddNumber({ query }: ViewProps & { id?: string }) {
  return <Page title="AddNumber">{query.toString()}</Page>;
}
