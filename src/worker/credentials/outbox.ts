/**
 * The outbox: the KV keys of ciphertext that no row names, or does not name yet. This module owns its rows.
 *
 * | state     | the row                                            | when                                                         |
 * | --------- | -------------------------------------------------- | ------------------------------------------------------------ |
 * | intent    | `intended`, `attempts` 0, due in an hour           | a create, an import or an update begins: before its put      |
 * | withdrawn | deleted                                            | its batch decided: a row names the ciphertext now            |
 * | cancelled | deleted                                            | the call was refused before its put                          |
 * | spent     | `owed`, `attempts` 1 or more, due in an hour       | its batch did not decide, or its put failed                  |
 * | owed      | `owed`, `attempts` 0, due now                      | a batch deleted a row, or gave it a new version              |
 * | claimed   | `owed`, one attempt more, due again after a lease  | the drain is about to remove the ciphertext                  |
 * | gone      | deleted                                            | the ciphertext has been removed                              |
 *
 * A late try of a batch cannot undo any of these steps: only an intent without an attempt can be withdrawn, no row
 * becomes an intent again, and an owed row is deleted only after its ciphertext has been removed.
 */
import { and, eq, inArray, isNotNull, lte, not, sql } from 'drizzle-orm';
import type { Placeholder, SQL } from 'drizzle-orm';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
import type { AuditAction, PurgeState } from '../core/vocabulary.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { audit_events, credential_purges, organizations } from '../d1/schema.ts';
import type { EventParameters } from '../decision/call.ts';
import { hasDecided, isOfBatch } from '../decision/event.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { credentialsKeyOf } from './kv-key.ts';

/** Longer than a request lives: the drain must not overtake a create that is merely slow. */
export const INTENT_DUE_SECONDS = 3600;

export interface IntentParameters {
  organization_id: string;
  /** Null if there are no credentials, and so no intent. */
  kv_key: string | null;
}

interface Row {
  kv_key: SQL<string>;
  organization_id: SQL<string>;
  due_at: SQL<number>;
  state: PurgeState;
  attempts: 0 | 1;
  /** For an intent: the KEK that wraps its data key. An owed row needs none, because its data key is gone. */
  kek_id?: SQL<string>;
}

/** The select list of a row, in the table's order. */
function rowOf({ kv_key, organization_id, due_at, state, attempts, kek_id }: Row) {
  return {
    kv_key: kv_key.as('kv_key'),
    organization_id: organization_id.as('organization_id'),
    due_at: due_at.as('due_at'),
    attempts: sql<number>`${sql.raw(String(attempts))}`.as('attempts'),
    first_due_at: due_at.as('first_due_at'),
    state: sql<PurgeState>`${sql.raw(`'${state}'`)}`.as('state'),
    kek_id: (kek_id ?? sql<string | null>`NULL`).as('kek_id'),
  };
}

/** The select list of an owed row. */
export const owedRow = (row: Pick<Row, 'kv_key' | 'organization_id' | 'due_at'>) =>
  rowOf({ ...row, state: 'owed', attempts: 0 });

/** Selects the row of a KV key, in any state. */
export const isOutboxRow = ({ organization_id, kv_key }: Placeholders<IntentParameters>) =>
  and(eq(credential_purges.kv_key, kv_key), eq(credential_purges.organization_id, organization_id));

const inAnHour = (now: Placeholder) => sql<number>`${now} + ${sql.raw(String(INTENT_DUE_SECONDS))}`;

/** The select list of an intent. */
export const intentRow = ({
  kv_key,
  organization_id,
  kek_id,
  now,
}: Placeholders<IntentParameters & { kek_id: string; now: number }>) =>
  rowOf({
    kv_key: sql`${kv_key}`,
    organization_id: sql`${organization_id}`,
    due_at: inAnHour(now),
    state: 'intended',
    attempts: 0,
    kek_id: sql`${kek_id}`,
  });

const isIntended = (parameters: Placeholders<IntentParameters>) =>
  and(isOutboxRow(parameters), eq(credential_purges.state, 'intended'));

/** Predicate of the statement that makes a version live: its intent exists, and the drain has not claimed it. */
export const intentStands = (db: Builder, parameters: Placeholders<IntentParameters>) =>
  existsIn(db, credential_purges, and(isIntended(parameters), eq(credential_purges.attempts, 0)));

/** Runs in the batch that made a version live, after its event: now a row names the ciphertext. */
export const withdrawIntent = query((db, parameters: Placeholders<MutationParameters & IntentParameters>) =>
  db.delete(credential_purges).where(and(isIntended(parameters), hasDecided(db, parameters))),
);

/** For a call that is refused before its put: there is no ciphertext. */
export const cancelIntent = query((db, parameters: Placeholders<IntentParameters>) =>
  db.delete(credential_purges).where(and(isIntended(parameters), eq(credential_purges.attempts, 0))),
);

/** The greater of a column's two values: in the existing row, and in the row to be inserted. */
const laterOf = (column: SQLiteColumn) => sql<number>`max(${column}, excluded.${sql.identifier(column.name)})`;

/**
 * Turns an intent into an owed row, due in an hour, unless the batch decided. Runs after {@link withdrawIntent}, or after
 * a put that failed. A version that has not become live by now never will, not even by a late try. The row stays for an
 * hour from `now`, because a put may arrive late by less than that. If the drain has already deleted the row, this
 * inserts it again. Nobody can read the ciphertext, because its data key was not stored.
 */
export const spendIntent = query((db, parameters: Placeholders<MutationParameters & IntentParameters>) =>
  db
    .insert(credential_purges)
    .select(
      db
        .select(
          rowOf({
            kv_key: sql`${parameters.kv_key}`,
            organization_id: sql`${organizations.organization_id}`,
            due_at: inAnHour(parameters.now),
            state: 'owed',
            attempts: 1,
          }),
        )
        .from(organizations)
        .where(
          and(
            eq(organizations.organization_id, parameters.organization_id),
            sql`${parameters.kv_key} IS NOT NULL`,
            not(hasDecided(db, parameters)),
          ),
        ),
    )
    .onConflictDoUpdate({
      target: credential_purges.kv_key,
      set: {
        due_at: laterOf(credential_purges.due_at),
        attempts: sql`${credential_purges.attempts} + 1`,
        first_due_at: laterOf(credential_purges.first_due_at),
        state: 'owed',
      },
    }),
);

/** The actions that make a version of credentials garbage. (An update that keeps the version enqueues nothing.) */
const purgingActions = [
  'integration.updated',
  'integration.deleted',
  'phone_number.updated',
  'phone_number.deleted',
  'phone_number.released',
] as const satisfies AuditAction[];

/**
 * Runs in the batch of the events that made versions garbage, after them. It enqueues the version that each event saw,
 * because the row itself may be gone or have another version by now.
 */
export const enqueuePurges = query((db, parameters: Placeholders<EventParameters>) => {
  const version = sql<string>`json_extract(${audit_events.state}, '$.credentials_version')`;
  return (
    db
      .insert(credential_purges)
      .select(
        db
          .select(
            owedRow({
              kv_key: credentialsKeyOf(audit_events.organization_id, audit_events.target_id, version),
              organization_id: sql`${audit_events.organization_id}`,
              due_at: sql`${parameters.now}`,
            }),
          )
          .from(audit_events)
          .where(and(isOfBatch(parameters), isNotNull(version), inArray(audit_events.action, [...purgingActions]))),
      )
      // The row may exist already. An intent becomes owed, and an owed row stays owed.
      .onConflictDoUpdate({ target: credential_purges.kv_key, set: { state: 'owed' } })
  );
});

/** How long a claim lasts, doubled with each attempt. It is the lease and the back-off in one. */
const LEASE_SECONDS = 60;
const MAX_LEASE_DOUBLINGS = 6;
/**
 * How many rows the backlog's query reads, in the order in which they are due. It is bounded, because the outbox grows
 * while KV fails. The row that has waited longest is among them, unless 10,000 others are due before it.
 */
const MAX_LOOKED_AT = 10_000;

/**
 * SQL that merges the rows of all organizations. The rows of each organization come in the order of `due_at`. It seeks
 * in the index once for each organization that has rows, and twice for each row that it returns; it reads no other
 * rows.
 *
 * @param due predicate of the rows to return; at the first row that does not meet it, an organization's rows end
 * @param order which organization's next row comes first, by `rank` (a row's position within its organization) and
 *   `due_at`
 */
function mergedRows(due: SQL | undefined, order: SQL, limit: Placeholder | number): SQL {
  const { organization_id, due_at, kv_key, first_due_at } = credential_purges;
  const isNext = (place: SQL) =>
    sql`${kv_key} = (SELECT ${kv_key} FROM ${credential_purges} WHERE ${and(place, due)} ORDER BY ${due_at}, ${kv_key} LIMIT 1)`;
  const first = sql`${organization_id} = holders.organization_id`;
  // Without the +, SQLite would seek by due_at alone, which many rows may share.
  const next = sql`${organization_id} = merged.organization_id AND (${due_at}, ${kv_key}) > (merged.due_at, +merged.kv_key)`;
  return sql`WITH RECURSIVE holders(organization_id) AS (
      SELECT min(${organization_id}) FROM ${credential_purges} UNION ALL
      SELECT (SELECT min(${organization_id}) FROM ${credential_purges} WHERE ${organization_id} > holders.organization_id)
      FROM holders WHERE holders.organization_id IS NOT NULL
    ), merged(organization_id, due_at, kv_key, first_due_at, rank) AS (
      SELECT ${organization_id}, ${due_at} AS due_at, ${kv_key}, ${first_due_at}, 1 AS rank
      FROM holders CROSS JOIN ${credential_purges}
      WHERE ${isNext(first)}
      UNION ALL
      SELECT ${organization_id}, ${due_at}, ${kv_key}, ${first_due_at}, merged.rank + 1
      FROM merged CROSS JOIN ${credential_purges}
      WHERE ${isNext(next)}
      ORDER BY ${order} LIMIT ${limit}
    )`;
}

export type Claim = Pick<typeof credential_purges.$inferSelect, 'kv_key' | 'attempts' | 'due_at'>;

/**
 * Claims rows that are due: the first of each organization, then the second of each, and so on, so that an organization
 * with many rows does not hold up the others. A claimed intent becomes owed, so that its ciphertext cannot become live
 * any more.
 */
export const claimDue = query((db, { now, limit }: Placeholders<{ now: number; limit: number }>) =>
  db
    .update(credential_purges)
    .set({
      due_at: sql`${now} + ${LEASE_SECONDS} * (1 << min(${credential_purges.attempts}, ${MAX_LEASE_DOUBLINGS}))`,
      attempts: sql`${credential_purges.attempts} + 1`,
      state: 'owed',
    })
    .where(
      inArray(
        credential_purges.kv_key,
        sql`(${mergedRows(lte(credential_purges.due_at, now), sql`rank, due_at`, limit)} SELECT kv_key FROM merged)`,
      ),
    )
    .returning({
      kv_key: credential_purges.kv_key,
      attempts: credential_purges.attempts,
      due_at: credential_purges.due_at,
    }),
);

/** Predicate: the row is due within the longest lease, so it may be due already but claimed. */
const isDueWithinLease = (now: Placeholder) =>
  lte(credential_purges.due_at, sql`${now} + ${sql.raw(String(LEASE_SECONDS << MAX_LEASE_DOUBLINGS))}`);

/** How many rows are due, those with a claim included, and since when the oldest of them has been due. */
export const findBacklog = query((db, { now }: Placeholders<{ now: number }>) =>
  db
    .select({
      left: sql<number>`count(*)`.as('left'),
      first_due_at: sql<number | null>`min(first_due_at)`.as('first_due_at'),
    })
    .from(sql`(${mergedRows(isDueWithinLease(now), sql`due_at`, MAX_LOOKED_AT)} SELECT first_due_at FROM merged)`)
    .where(lte(sql`first_due_at`, now)),
);

/**
 * Deletes the row of a version that was live: no put of it can still arrive. (The KV key contains the organization.)
 */
export const deletePurged = query((db, { kv_key }: Placeholders<{ kv_key: string }>) =>
  db.delete(credential_purges).where(eq(credential_purges.kv_key, kv_key)),
);

/**
 * Deletes rows that are unchanged since they were claimed. A row that has been claimed again, or spent again after a
 * late put, must be purged again.
 *
 * The parameter `claims` is a JSON array of {@link Claim}.
 */
export const deleteClaimed = query((db, { claims }: Placeholders<{ claims: string }>) => {
  const { kv_key, attempts, due_at } = credential_purges;
  const columns = Object.values({ kv_key, attempts, due_at });
  const members = columns.map(({ name }) => sql`json_extract(value, ${sql.raw(`'$.${name}'`)})`);
  return db
    .delete(credential_purges)
    .where(sql`(${sql.join(columns, sql`, `)}) IN (SELECT ${sql.join(members, sql`, `)} FROM json_each(${claims}))`);
});
