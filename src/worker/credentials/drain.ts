/** Removes from KV the ciphertext that the outbox names (outbox.ts), right after an answer and by the cron. */
import { atOnce } from '../core/at-once.ts';
import { CONNECTIONS_AFTER_DECISION, MAX_CONNECTIONS } from '../core/connections.ts';
import { logAlert, logError, logEvent } from '../core/log.ts';
import { unixNow } from '../core/time.ts';
import { batch } from '../d1/batch.ts';
import type { Bindings } from '../env.ts';
import { claimDue, deleteClaimed, deletePurged, findBacklog } from './outbox.ts';
import type { Claim } from './outbox.ts';

/** The platform allows 1,000 operations in one invocation of a Worker, and the other tasks of the cron make some 150. */
const KV_OPERATIONS_PER_RUN = 800;
/** The platform allows 15 minutes, but the next run begins after one. */
const MILLISECONDS_PER_RUN = 25_000;
/** Few enough that a turn ends within its lease even if KV is slow: six at a time, two seconds each. */
const PURGES_PER_TURN = 150;
/** After this time KV has been tried four times. */
const OVERDUE_SECONDS = 15 * 60;

/**
 * Removes one ciphertext, then its outbox row. Only for a version that was live before. A version that never was must
 * wait in the outbox until it is due, because its put may still arrive. If this fails, {@link drainPurges} does it
 * later.
 */
export async function purge({ CREDENTIALS, DB }: Bindings, kv_key: string): Promise<void> {
  await CREDENTIALS.delete(kv_key);
  await batch(DB, [deletePurged.bind({ kv_key })]);
}

/** Few enough to be done well before an invocation ends, which may be 30 seconds after its answer. */
const PURGES_AFTER_AN_ANSWER = 100;

/** {@link purge} for several ciphertexts, as many as fit after an answer. The cron removes the others. */
export async function purgeSome(env: Bindings, kv_keys: readonly string[]): Promise<void> {
  await atOnce(CONNECTIONS_AFTER_DECISION, kv_keys.slice(0, PURGES_AFTER_AN_ANSWER), (kv_key) => purge(env, kv_key));
}

/**
 * A task of the cron: removes what is due, in turns that are fair among organizations, until nothing is due or the run
 * has used up its limits. A purge that fails stays in the outbox and is due again after its lease.
 *
 * If there was anything to do, it logs `purges_drained`: how many were `purged`, how many `failed`, and how many that
 * are due are `left` (of the 10,000 rows that are due next). It logs the alert `purges_overdue` while one of those has
 * been due for more than 15 minutes.
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
      deleteClaimed.bind({ claims: JSON.stringify(purged) }),
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

/** @returns the claims whose ciphertext has been removed */
async function removeAll({ CREDENTIALS }: Bindings, claimed: Claim[]): Promise<Claim[]> {
  const removed: Claim[] = [];
  await atOnce(MAX_CONNECTIONS, claimed, async (claim) => {
    try {
      await CREDENTIALS.delete(claim.kv_key);
      removed.push(claim);
    } catch (error) {
      logError('purge_failed', error);
    }
  });
  return removed;
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
