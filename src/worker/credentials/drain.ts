/** The outbox's drain: removes from KV the ciphertext that no live row names. */
import { and, inArray, lte, sql } from 'drizzle-orm';
import type { Placeholder, SQL } from 'drizzle-orm';
import pMap, { pMapSkip } from 'p-map';
import { MAX_CONNECTIONS } from '../core/connections.ts';
import { originalOf } from '../core/deadlines.ts';
import type { Bindings } from '../env.ts';
import { logAlert, logError, logEvent } from '../core/log.ts';
import { batch, query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { credential_purges } from '../d1/schema.ts';
import { unixNow } from '../core/time.ts';

/** How long a purge that is done waits for others. */
const GATHERED_MILLISECONDS = 10;
const MAX_GATHERED_MILLISECONDS = 1000;
/** Of the platform's 1,000 KV operations for each invocation of a Worker. */
const KV_OPERATIONS_PER_RUN = 900;
/** The platform allows for 15 minutes, but the next run comes after one. */
const MILLISECONDS_PER_RUN = 25_000;
/** Few enough that a turn ends within its lease where KV is slow: six at a time, at two seconds each. */
const PURGES_PER_TURN = 150;
/** A claimed purge is left alone for this long, doubled with each attempt: lease and back-off in one. */
const LEASE_SECONDS = 60;
const MAX_LEASE_DOUBLINGS = 6;
/** Back-off has tried KV four times by then. */
const OVERDUE_SECONDS = 15 * 60;
/**
 * How many rows a look at the backlog reads, those that are due next first: the outbox has no end while KV refuses. What
 * waits longest is beyond them only where 10,000 others are to be tried before it.
 */
const MAX_LOOKED_AT = 10_000;

/**
 * SQL that selects rows of the outbox, merged from those of each organization, which come by their `due_at`. It seeks by the
 * index once for each organization that has rows and twice for each row, so that it reads none of the others, be they many.
 *
 * @param due predicate of the rows that may come: with them it is over for their organization
 * @param order of what each organization has next, by `rank` (a row's place within its organization) and `due_at`
 */
function mergedRows(due: SQL | undefined, order: SQL, limit: Placeholder | number): SQL {
  const { organization_id, due_at, kv_key, first_due_at } = credential_purges;
  const isNext = (place: SQL) =>
    sql`${kv_key} = (SELECT ${kv_key} FROM ${credential_purges} WHERE ${and(place, due)} ORDER BY ${due_at}, ${kv_key} LIMIT 1)`;
  const first = sql`${organization_id} = holders.organization_id`;
  // The + takes the key its affinity, for which SQLite would seek by due_at alone, of which many rows may have the same.
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

/**
 * Claims a turn's worth of what is due: of each organization the first, then of each the second, and so on, so that none waits
 * for another's many. A claim is also the word to a create under way that its ciphertext is going (it is `owed`), so that it
 * cannot become live between the claim and the removal.
 */
const claimDue = query((db, { now, limit }: Placeholders<{ now: number; limit: number }>) =>
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

/** No attempt puts a row off for longer. */
const isDueWithinLease = (now: Placeholder) =>
  lte(credential_purges.due_at, sql`${now} + ${sql.raw(String(LEASE_SECONDS << MAX_LEASE_DOUBLINGS))}`);

/**
 * What is due and still there, also where an attempt has put it off; an intent of a create under way is not due.
 */
const findBacklog = query((db, { now }: Placeholders<{ now: number }>) =>
  db
    .select({
      left: sql<number>`count(*)`.as('left'),
      first_due_at: sql<number | null>`min(first_due_at)`.as('first_due_at'),
    })
    .from(sql`(${mergedRows(isDueWithinLease(now), sql`due_at`, MAX_LOOKED_AT)} SELECT first_due_at FROM merged)`)
    .where(lte(sql`first_due_at`, now)),
);

/** Forgets purges of versions that were live, which no put can bring back. (The KV key names the organization.) */
const forgetPurged = query((db, { kv_keys }: Placeholders<{ kv_keys: string }>) =>
  db.delete(credential_purges).where(inArray(credential_purges.kv_key, sql`(SELECT value FROM json_each(${kv_keys}))`)),
);

/**
 * Forgets claims that are done, as they were claimed: where an attempt has been counted since, or the row has come back, as
 * for a put that was late, another removal is owed.
 */
const forgetClaimed = query((db, { claims }: Placeholders<{ claims: string }>) => {
  const { kv_key, attempts, due_at } = credential_purges;
  const columns = Object.values({ kv_key, attempts, due_at });
  const members = columns.map(({ name }) => sql`json_extract(value, ${sql.raw(`'$.${name}'`)})`);
  return db
    .delete(credential_purges)
    .where(sql`(${sql.join(columns, sql`, `)}) IN (SELECT ${sql.join(members, sql`, `)} FROM json_each(${claims}))`);
});

/**
 * KV keys of purges that are done, by the database whose outbox still names them, and until when (in milliseconds) more may
 * join: the call that gathers them could end before its time.
 */
const gathered = new WeakMap<object, { kv_keys: string[]; until: number }>();

/**
 * Removes the ciphertext behind one KV key, then its outbox row: one KV call, and one D1 call for all that an isolate has
 * purged within some milliseconds, because D1 does one thing at a time and answers are waiting. For a version that was live
 * and is not any more; one that never was stays in the outbox until it is due, because its put may be late.
 * Whatever fails leaves the row for the cron's {@link drainPurges}.
 */
export async function purge({ CREDENTIALS, DB }: Bindings, kv_key: string): Promise<void> {
  await CREDENTIALS.delete(kv_key);
  const others = gathered.get(originalOf(DB));
  if (others && Date.now() < others.until) {
    others.kv_keys.push(kv_key);
    return;
  }
  const kv_keys = [kv_key];
  gathered.set(originalOf(DB), { kv_keys, until: Date.now() + MAX_GATHERED_MILLISECONDS });
  await new Promise((resolve) => setTimeout(resolve, GATHERED_MILLISECONDS));
  gathered.delete(originalOf(DB));
  await batch(DB, [forgetPurged.bind({ kv_keys: JSON.stringify(kv_keys) })]);
}

/**
 * The cron's run: removes what is due, in turns that are fair among organizations, until nothing is, or as much as one
 * invocation may. What fails stays in the outbox and is due again after its lease.
 *
 * Logs `purges_drained`, where there was or is something to do: how many were `purged` and how many `failed`, and how many
 * are `left` that are due (of the 10,000 that are due next). Alerts by `purges_overdue` while one of those has been due for
 * more than 15 minutes.
 */
export async function drainPurges(env: Bindings): Promise<void> {
  const end = Date.now() + MILLISECONDS_PER_RUN;
  let operationsLeft = KV_OPERATIONS_PER_RUN;
  const done = { purged: 0, failed: 0 };
  let purged: Claim[] = [];
  for (;;) {
    const now = unixNow();
    const limit = Date.now() < end ? Math.min(PURGES_PER_TURN, operationsLeft) : 0;
    const [, claimed, backlog] = await batch(env.DB, [
      forgetClaimed.bind({ claims: JSON.stringify(purged) }),
      claimDue.bind({ now, limit }),
      findBacklog.bind({ now }),
    ]);
    if (claimed.length === 0) return report(backlog, done, now);
    operationsLeft -= claimed.length;
    purged = await removeAll(env, claimed);
    done.purged += purged.length;
    done.failed += claimed.length - purged.length;
  }
}

type Claim = Pick<typeof credential_purges.$inferSelect, 'kv_key' | 'attempts' | 'due_at'>;

/** @returns those that are removed */
function removeAll({ CREDENTIALS }: Bindings, claimed: Claim[]): Promise<Claim[]> {
  return pMap(
    claimed,
    async (claim) => {
      try {
        await CREDENTIALS.delete(claim.kv_key);
        return claim;
      } catch (error) {
        logError('purge_failed', error);
        return pMapSkip;
      }
    },
    { concurrency: MAX_CONNECTIONS },
  );
}

function report(
  [backlog]: { left: number; first_due_at: number | null }[],
  done: { purged: number; failed: number },
  now: number,
): void {
  const { left, first_due_at } = backlog ?? { left: 0, first_due_at: null };
  if (left + done.purged + done.failed > 0) logEvent('purges_drained', { ...done, left });
  const oldest_seconds = now - (first_due_at ?? now);
  if (oldest_seconds > OVERDUE_SECONDS) logAlert('purges_overdue', { oldest_seconds });
}
