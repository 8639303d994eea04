/**
 * Exports what a restore of D1 would lose, and a replay needs: what ended, and where phone numbers went, since the
 * restore point.
 */
import { and, asc, eq, getTableColumns, gt, gte, isNotNull, lt, sql } from 'drizzle-orm';
import { RESTORABLE_SECONDS, SECONDS_A_DAY } from '../../worker/core/time.ts';
import { batch } from '../../worker/d1/batch.ts';
import { query } from '../../worker/d1/query.ts';
import type { Placeholders } from '../../worker/d1/query.ts';
import {
  audit_events,
  credential_purges,
  key_encryption_keys,
  organizations,
  phone_numbers,
} from '../../worker/d1/schema.ts';
import { databaseNow } from '../clock.ts';

const ROWS_PER_PAGE = 100;
/** The export begins this much earlier than asked, so that nobody has to know the restore point to the second. */
const MARGIN_SECONDS = SECONDS_A_DAY;

export type AuditEventRow = typeof audit_events.$inferSelect;
export type PurgeRow = typeof credential_purges.$inferSelect;
/** Which integration a phone number was assigned to at the export. */
export type AssignmentRow = Pick<
  typeof phone_numbers.$inferSelect,
  'organization_id' | 'phone_number_id' | 'integration_id'
>;
export type RetiredKekRow = typeof key_encryption_keys.$inferSelect;
export type ExportedRow = AuditEventRow | PurgeRow | AssignmentRow | RetiredKekRow;

/** Where the previous page ended. */
interface Place {
  organization_id: string;
  created_at: number;
  sequence: number;
}

interface PageParameters extends Place {
  since: number;
}

/**
 * Selects the events after the previous page: the rest of the organization in which it ended, and then those of each
 * organization since the time. The query is a cross join because SQLite keeps the order of one: in the other order it
 * would read every event.
 */
const isNext = ({ organization_id, created_at, sequence, since }: Placeholders<PageParameters>) => {
  const isSame = sql`${organizations.organization_id} = ${organization_id}`;
  return and(
    gte(organizations.organization_id, organization_id),
    eq(audit_events.organization_id, organizations.organization_id),
    sql`(${audit_events.created_at}, ${audit_events.sequence}) > (iif(${isSame}, ${created_at}, ${since}), iif(${isSame}, ${sequence}, -1))`,
  );
};

const listEvents = query((db, parameters: Placeholders<PageParameters>) =>
  db
    .select(getTableColumns(audit_events))
    .from(organizations)
    .crossJoin(audit_events)
    .where(isNext(parameters))
    .orderBy(asc(organizations.organization_id), asc(audit_events.created_at), asc(audit_events.sequence))
    .limit(ROWS_PER_PAGE),
);

/**
 * Leaves out rows that are due in more than a day. Those wait until Time Travel ends (reconcile.ts), because an undo of
 * the restore would make their ciphertext live again. All others are due within hours.
 */
const listPurges = query((db, { kv_key }: Placeholders<{ kv_key: string }>) =>
  db
    .select(getTableColumns(credential_purges))
    .from(credential_purges)
    .where(
      and(
        gt(credential_purges.kv_key, kv_key),
        eq(credential_purges.state, 'owed'),
        lt(credential_purges.due_at, sql`unixepoch() + ${sql.raw(String(MARGIN_SECONDS))}`),
      ),
    )
    .orderBy(asc(credential_purges.kv_key))
    .limit(ROWS_PER_PAGE),
);

/** The integrations of the numbers that were updated since a time. It has no index, so it reads all numbers. */
const listAssignments = query(
  (db, { phone_number_id, since }: Placeholders<{ phone_number_id: string; since: number }>) =>
    db
      .select({
        organization_id: phone_numbers.organization_id,
        phone_number_id: phone_numbers.phone_number_id,
        integration_id: phone_numbers.integration_id,
      })
      .from(phone_numbers)
      .where(and(gt(phone_numbers.phone_number_id, phone_number_id), gte(phone_numbers.updated_at, since)))
      .orderBy(asc(phone_numbers.phone_number_id))
      .limit(ROWS_PER_PAGE),
);

const listRetiredKeks = query((db) =>
  db
    .select(getTableColumns(key_encryption_keys))
    .from(key_encryption_keys)
    .where(isNotNull(key_encryption_keys.retired_at)),
);

/**
 * Why an export since a time would not be complete, by D1's clock; undefined if it would be.
 *
 * @param since unix seconds
 *
 * @throws DomainError `temporarily_unavailable`
 */
export async function whyNotCovered(database: D1Database, since: number): Promise<string | undefined> {
  const now = await databaseNow(database);
  if (since > now) return 'is in the future';
  return since - MARGIN_SECONDS < now - RESTORABLE_SECONDS
    ? 'is more than 30 days ago. Time Travel goes back no further, and older audit events may have been deleted'
    : undefined;
}

/**
 * The audit events of all organizations since a day before a time, in pages of at most 100: one organization after the
 * other, and the events of each in the order of their commits.
 *
 * @param since unix seconds
 * @throws DomainError `temporarily_unavailable`
 */
export async function* exportEvents(database: D1Database, since: number): AsyncGenerator<AuditEventRow[], void> {
  const from = since - MARGIN_SECONDS;
  const beforeAll = { organization_id: '', created_at: from, sequence: -1 };
  yield* pagesOf<AuditEventRow>(async (last) => {
    const [events] = await batch(database, [listEvents.bind({ ...(last ?? beforeAll), since: from })]);
    return events;
  });
}

/** Pages of at most 100 rows, each after the last row of the previous page. */
async function* pagesOf<Row>(list: (last: Row | undefined) => Promise<Row[]>): AsyncGenerator<Row[], void> {
  let last: Row | undefined;
  do {
    const page = await list(last);
    if (page.length > 0) yield page;
    last = page.length === ROWS_PER_PAGE ? page.at(-1) : undefined;
  } while (last !== undefined);
}

/**
 * All that a replay needs, in pages of at most 100:
 * - the events ({@link exportEvents})
 * - of each phone number that was updated since, the integration that it has now
 * - the ciphertexts whose removal is owed
 * - the KEKs that are retired
 *
 * @param since unix seconds
 * @throws DomainError `temporarily_unavailable`
 */
export async function* exportAll(database: D1Database, since: number): AsyncGenerator<ExportedRow[], void> {
  yield* exportEvents(database, since);
  yield* pagesOf<AssignmentRow>(async (last) => {
    const from = { phone_number_id: last?.phone_number_id ?? '', since: since - MARGIN_SECONDS };
    const [assignments] = await batch(database, [listAssignments.bind(from)]);
    return assignments;
  });
  yield* pagesOf<PurgeRow>(async (last) => {
    const [purges] = await batch(database, [listPurges.bind({ kv_key: last?.kv_key ?? '' })]);
    return purges;
  });
  const [keks] = await batch(database, [listRetiredKeks.bind({})]);
  if (keks.length > 0) yield keks;
}
