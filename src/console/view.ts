import type { Session } from './session.ts';

/** What every view gets. */
export interface ViewProps {
  session: Session;
  /** The parameters of its address. */
  query: URLSearchParams;
}
