import { and, eq, lt, sql } from 'drizzle-orm';
import type { Bindings } from '../env.ts';
import { eventIdsFrom } from '../ids.ts';
import { logEvent } from '../log.ts';
import { batch, query } from '../query.ts';
import type { Placeholders } from '../query.ts';
import { audit_events, organizations } from '../schema.ts';
import { unixNow } from '../time.ts';

const EVENTS_PER_RUN = 1000;
const DAY_SECONDS = 24 * 60 * 60;

/**
 * Each organization's oldest events, by the prefix of the primary key: an event's id tells its time. SQLite's planner, which
 * has no statistics, keeps the order of a cross join: the other way round it would read every event.
 */
const deleteEventsBefore = query((db, { event_id }: Placeholders<{ event_id: string }>) =>
  db
    .delete(audit_events)
    .where(
      sql`(${audit_events.organization_id}, ${audit_events.event_id}) IN ${db
        .select({ organization_id: audit_events.organization_id, event_id: audit_events.event_id })
        .from(organizations)
        .crossJoin(audit_events)
        .where(
          and(eq(audit_events.organization_id, organizations.organization_id), lt(audit_events.event_id, event_id)),
        )
        .limit(EVENTS_PER_RUN)}`,
    )
    .returning({ event_id: audit_events.event_id }),
);

/**
 * The cron's turn: deletes audit events that are older than `AUDIT_RETENTION_DAYS`, at most 1,000.
 *
 * @throws Error for a setting that is no number of days: nothing is deleted
 */
export async function forgetOldEvents(env: Bindings): Promise<void> {
  const setting = env.AUDIT_RETENTION_DAYS;
  if (!/^[1-9]\d{0,3}$/.test(setting)) throw new Error('AUDIT_RETENTION_DAYS must be a whole number from 1 to 9999');
  const event_id = eventIdsFrom(unixNow() - Number(setting) * DAY_SECONDS);
  const [forgotten] = await batch(env.DB, [deleteEventsBefore.bind({ event_id })]);
  if (forgotten.length > 0) logEvent('audit_events_forgotten', { count: forgotten.length });
}
