import type { Session } from '../session.ts';

/** What happened to one thing, newest first. */
export const EventsOf = ({ target_id }: { session: Session; target_id: string }) => <p>{target_id}</p>;
