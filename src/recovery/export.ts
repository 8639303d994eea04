/** What a restore of D1 would take away and must not: the audit events since the restore point. */
import { and, asc, eq, getTableColumns, gt, gte, sql } from 'drizzle-orm';
import { eventIdsFrom } from '../ids.ts';
import { batch, query } from '../query.ts';
import type { Placeholders } from '../query.ts';
import { audit_events, organizations } from '../schema.ts';

const ROWS_PER_PAGE = 100;

export type AuditEventRow = typeof audit_events.$inferSelect;

interface PageParameters {
  /** Where the page before ended. */
  organization_id: string;
  event_id: string;
  /** What stands before the ids of the events that are exported. */
  since: string;
}

/**
 * By the primary key alone: the events of each organization behind the time, of the one where the page before ended behind
 * its last. SQLite's planner, which has no statistics, keeps the order of a cross join: the other way round it would read
 * every event.
 */
const listEvents = query((db, { organization_id, event_id, since }: Placeholders<PageParameters>) =>
  db
    .select(getTableColumns(audit_events))
    .from(organizations)
    .crossJoin(audit_events)
    .where(
      and(
        gte(organizations.organization_id, organization_id),
        eq(audit_events.organization_id, organizations.organization_id),
        gt(
          audit_events.event_id,
          sql`iif(${organizations.organization_id} = ${organization_id}, ${event_id}, ${since})`,
        ),
      ),
    )
    .orderBy(asc(organizations.organization_id), asc(audit_events.event_id))
    .limit(ROWS_PER_PAGE),
);

/**
 * The audit events of every organization since a time, in pages of at most 100: one organization after the other, the events
 * of each in their order.
 *
 * @param from unix seconds
 * @throws DomainError `temporarily_unavailable`
 */
export async function* exportEvents(database: D1Database, from: number): AsyncGenerator<AuditEventRow[], void> {
  const since = eventIdsFrom(from);
  let last: Pick<AuditEventRow, 'organization_id' | 'event_id'> | undefined = { organization_id: '', event_id: since };
  while (last) {
    const [events]: readonly [AuditEventRow[]] = await batch(database, [listEvents.bind({ ...last, since })]);
    if (events.length > 0) yield events;
    last = events.length === ROWS_PER_PAGE ? events.at(-1) : undefined;
  }
}
