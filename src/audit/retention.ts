import { and, eq, lt, sql } from 'drizzle-orm';
import type { Bindings } from '../env.ts';
import { forgetInTurns, ROWS_PER_STATEMENT } from '../forget.ts';
import { eventIdsFrom } from '../ids.ts';
import { logEvent } from '../log.ts';
import { query } from '../query.ts';
import type { Placeholders } from '../query.ts';
import { audit_events, organizations } from '../schema.ts';
import { unixNow } from '../time.ts';

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
        .limit(ROWS_PER_STATEMENT)}`,
    )
    .returning({ event_id: audit_events.event_id }),
);

/**
 * The cron's turn: deletes audit events that are older than `AUDIT_RETENTION_DAYS`.
 *
 * @throws Error for a setting that is no number of days: nothing is deleted
 */
export async function forgetOldEvents(env: Bindings): Promise<void> {
  const setting = env.AUDIT_RETENTION_DAYS;
  if (!/^[1-9]\d{0,3}$/.test(setting)) throw new Error('AUDIT_RETENTION_DAYS must be a whole number from 1 to 9999');
  const event_id = eventIdsFrom(unixNow() - Number(setting) * DAY_SECONDS);
  const count = await forgetInTurns(env.DB, deleteEventsBefore.bind({ event_id }));
  if (count > 0) logEvent('audit_events_forgotten', { count });
}
