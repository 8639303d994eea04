/** The outbox's drain: removes from KV the ciphertext that no live row names. */
import { asc, inArray, lte, sql } from 'drizzle-orm';
import type { Bindings } from '../env.ts';
import { logAlert, logError, logEvent } from '../log.ts';
import { batch, query } from '../query.ts';
import type { Placeholders } from '../query.ts';
import { credential_purges } from '../schema.ts';
import { unixNow } from '../time.ts';

/** How long a purge that is done waits for others. */
const GATHERED_MILLISECONDS = 10;
const MAX_GATHERED_MILLISECONDS = 1000;
/** Within the platform's 1,000 KV operations for each invocation of a Worker. */
const PURGES_PER_RUN = 500;
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
 * Claims what is due, of every organization. A claim is also the word to a create under way that its ciphertext is going
 * (it is `owed`), so that it cannot become live between the claim and the removal.
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
        db
          .select({ kv_key: credential_purges.kv_key })
          .from(credential_purges)
          .where(lte(credential_purges.due_at, now))
          .orderBy(asc(credential_purges.due_at))
          .limit(limit),
      ),
    )
    .returning({
      kv_key: credential_purges.kv_key,
      attempts: credential_purges.attempts,
      due_at: credential_purges.due_at,
    }),
);

/**
 * What is due and still there, also where an attempt has put it off; an intent of a create under way is not due.
 */
const findBacklog = query((db, { now }: Placeholders<{ now: number }>) => {
  const next = db
    .select({ first_due_at: credential_purges.first_due_at })
    .from(credential_purges)
    .orderBy(asc(credential_purges.due_at))
    .limit(MAX_LOOKED_AT)
    .as('next');
  return db
    .select({
      left: sql<number>`count(*)`.as('left'),
      first_due_at: sql<number | null>`min(${next.first_due_at})`.as('first_due_at'),
    })
    .from(next)
    .where(lte(next.first_due_at, now));
});

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
const gathered = new WeakMap<D1Database, { kv_keys: string[]; until: number }>();

/**
 * Removes the ciphertext behind one KV key, then its outbox row: one KV call, and one D1 call for all that an isolate has
 * purged within some milliseconds, because D1 does one thing at a time and answers are waiting. For a version that was live
 * and is not any more; one that never was stays in the outbox until it is due, because its put may be late.
 * Whatever fails leaves the row for the cron's {@link drainPurges}.
 */
export async function purge({ CREDENTIALS, DB }: Bindings, kv_key: string): Promise<void> {
  await CREDENTIALS.delete(kv_key);
  const others = gathered.get(DB);
  if (others && Date.now() < others.until) {
    others.kv_keys.push(kv_key);
    return;
  }
  const kv_keys = [kv_key];
  gathered.set(DB, { kv_keys, until: Date.now() + MAX_GATHERED_MILLISECONDS });
  await new Promise((resolve) => setTimeout(resolve, GATHERED_MILLISECONDS));
  gathered.delete(DB);
  await batch(DB, [forgetPurged.bind({ kv_keys: JSON.stringify(kv_keys) })]);
}

/**
 * The cron's turn: removes what is due. What fails stays in the outbox and is due again after its lease.
 *
 * Logs `purges_drained`, where there was or is something to do: how many were `purged` and how many `failed`, and how many
 * are `left` that are due (of the 10,000 that are tried next). Alerts by `purges_overdue` while one of those has been due for
 * more than 15 minutes.
 */
export async function drainPurges(env: Bindings): Promise<void> {
  const now = unixNow();
  const [claimed, before] = await batch(env.DB, [
    claimDue.bind({ now, limit: PURGES_PER_RUN }),
    findBacklog.bind({ now }),
  ]);
  if (claimed.length === 0) return report(before, { purged: 0, failed: 0 }, now);
  const removals = await Promise.allSettled(claimed.map(({ kv_key }) => env.CREDENTIALS.delete(kv_key)));
  for (const removal of removals) if (removal.status === 'rejected') logError('purge_failed', removal.reason);
  const purged = claimed.filter((_, index) => removals[index]?.status === 'fulfilled');
  const [, after] = await batch(env.DB, [
    forgetClaimed.bind({ claims: JSON.stringify(purged) }),
    findBacklog.bind({ now }),
  ]);
  report(after, { purged: purged.length, failed: claimed.length - purged.length }, now);
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
