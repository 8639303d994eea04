/** The outbox's drain: removes from KV the ciphertext that no live row names. */
import { asc, inArray, lte, sql } from 'drizzle-orm';
import type { Bindings } from '../env.ts';
import { logError, logEvent } from '../log.ts';
import { batch, query } from '../query.ts';
import type { Placeholders } from '../query.ts';
import { credential_purges } from '../schema.ts';
import { unixNow } from '../time.ts';

/** Within the platform's 1,000 KV operations for each invocation of a Worker. */
const PURGES_PER_RUN = 500;
/** A claimed purge is left alone for this long, doubled with each attempt: lease and back-off in one. */
const LEASE_SECONDS = 60;
const MAX_LEASE_DOUBLINGS = 6;

/**
 * Claims what is due, of every organization. A claim is also the word to a create under way that its ciphertext is going
 * (`attempts` is no longer 0), so that it cannot become live between the claim and the removal.
 */
const claimDue = query((db, { now, limit }: Placeholders<{ now: number; limit: number }>) =>
  db
    .update(credential_purges)
    .set({
      due_at: sql`${now} + ${LEASE_SECONDS} * (1 << min(${credential_purges.attempts}, ${MAX_LEASE_DOUBLINGS}))`,
      attempts: sql`${credential_purges.attempts} + 1`,
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
    .returning({ kv_key: credential_purges.kv_key }),
);

/** The KV key names the organization, and the ciphertext behind it is gone. */
const forgetPurged = query((db, { kv_keys }: Placeholders<{ kv_keys: string }>) =>
  db.delete(credential_purges).where(inArray(credential_purges.kv_key, sql`(SELECT value FROM json_each(${kv_keys}))`)),
);

/**
 * Removes the ciphertext behind one KV key, then its outbox row: one KV call and one D1 call. For a version that was live
 * and is not any more; one that never was stays in the outbox until it is due, because its put may be late.
 * Whatever fails leaves the row for the cron's {@link drainPurges}.
 */
export async function purge(env: Bindings, kv_key: string): Promise<void> {
  await env.CREDENTIALS.delete(kv_key);
  await batch(env.DB, [forgetPurged.bind({ kv_keys: JSON.stringify([kv_key]) })]);
}

/** The cron's turn: removes what is due. What fails stays in the outbox and is due again after its lease. */
export async function drainPurges(env: Bindings): Promise<void> {
  const [claimed] = await batch(env.DB, [claimDue.bind({ now: unixNow(), limit: PURGES_PER_RUN })]);
  if (claimed.length === 0) return;
  const removals = await Promise.allSettled(claimed.map(({ kv_key }) => env.CREDENTIALS.delete(kv_key)));
  for (const removal of removals) if (removal.status === 'rejected') logError('purge_failed', removal.reason);
  const purged = claimed.filter((_, index) => removals[index]?.status === 'fulfilled').map(({ kv_key }) => kv_key);
  await batch(env.DB, [forgetPurged.bind({ kv_keys: JSON.stringify(purged) })]);
  logEvent('purges_drained', { purged: purged.length, failed: claimed.length - purged.length });
}
