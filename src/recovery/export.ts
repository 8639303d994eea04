/** What a restore of D1 would take away and must not: the audit events since the restore point. */
import { and, asc, eq, gt } from 'drizzle-orm';
import { eventIdsFrom } from '../ids.ts';
import { batch, query } from '../query.ts';
import type { Placeholders } from '../query.ts';
import { audit_events, organizations } from '../schema.ts';

const ROWS_PER_PAGE = 100;

export type AuditEventRow = typeof audit_events.$inferSelect;

const listOrganizations = query((db, { after }: Placeholders<{ after: string }>) =>
  db
    .select({ organization_id: organizations.organization_id })
    .from(organizations)
    .where(gt(organizations.organization_id, after))
    .orderBy(asc(organizations.organization_id))
    .limit(ROWS_PER_PAGE),
);

const listEvents = query((db, { organization_id, after }: Placeholders<{ organization_id: string; after: string }>) =>
  db
    .select()
    .from(audit_events)
    .where(and(eq(audit_events.organization_id, organization_id), gt(audit_events.event_id, after)))
    .orderBy(asc(audit_events.event_id))
    .limit(ROWS_PER_PAGE),
);

/**
 * The audit events of every organization since a time, in pages of at most 100: one organization after the other, the events
 * of each in their order.
 *
 * @param since unix seconds
 * @throws DomainError `temporarily_unavailable`
 */
export async function* exportEvents(database: D1Database, since: number): AsyncGenerator<AuditEventRow[], void> {
  const listed = pages(
    (after) => batch(database, [listOrganizations.bind({ after })]),
    ({ organization_id }) => organization_id,
    '',
  );
  for await (const page of listed) {
    for (const { organization_id } of page) {
      yield* pages(
        (after) => batch(database, [listEvents.bind({ organization_id, after })]),
        ({ event_id }) => event_id,
        eventIdsFrom(since),
      );
    }
  }
}

/** Keyset pages, each behind the last row of the one before. */
async function* pages<Row>(
  read: (after: string) => Promise<readonly [Row[]]>,
  keyOf: (row: Row) => string,
  start: string,
): AsyncGenerator<Row[], void> {
  let after: string | undefined = start;
  while (after !== undefined) {
    const [rows]: readonly [Row[]] = await read(after);
    if (rows.length > 0) yield rows;
    const last = rows.at(-1);
    after = last && rows.length === ROWS_PER_PAGE ? keyOf(last) : undefined;
  }
}
