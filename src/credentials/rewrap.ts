/** The rotation of key-encryption keys (KEKs): wraps data keys anew under the current one. No ciphertext is touched. */
import type { Bindings } from '../env.ts';
import { logAlert, logEvent } from '../log.ts';
import { countDataKeys, dataKeysUnder, kekIdsInUse, replaceDataKeys } from './data-keys.ts';
import type { StoredDataKey } from './data-keys.ts';
import { rewrap } from './envelope.ts';
import type { WrappedDataKey } from './envelope.ts';
import { currentKek } from './kek-check.ts';
import { credentialsKey, kekRing } from './vault.ts';

/** One D1 statement each, far within the 1,000 that D1 carries out for one invocation of a Worker. */
const REWRAPPED_PER_RUN = 100;
/** Data keys that do not open stay first in line: a run looks past so many of them for others that do. */
const UNOPENED_PER_RUN = 1000;

/**
 * The cron's turn: wraps data keys anew that another KEK of the ring than its current one wraps, at most 100.
 *
 * By compare-and-swap on the row, so whoever changes or deletes it meanwhile is first, and a run that is killed has left
 * every row readable: by the old KEK or by the current one. The next run goes on, for what is done is not found any more.
 *
 * Logs `data_keys_rewrapped` (`rewrapped`, and how many are `left`); alerts by `data_keys_unopened` where some do not open
 * under the KEK that their rows name, by `kek_mismatch` where the current KEK is another than the one that was known by its
 * name (nothing is wrapped under it), and by `kek_missing` where the ring has no such KEK: their credentials cannot be read.
 *
 * @throws DomainError `temporarily_unavailable`; Error for a malformed ring
 */
export async function rewrapDataKeys(env: Bindings): Promise<void> {
  const ring = await kekRing(env.CREDENTIALS_KEKS);
  const inUse = await kekIdsInUse(env.DB);
  const missing = inUse.filter((kek_id) => !ring.keys.has(kek_id));
  if (missing.length > 0) logAlert('kek_missing', { count: (await countDataKeys(env.DB, missing)).count });

  const old = inUse.filter((kek_id) => kek_id !== ring.current && ring.keys.has(kek_id));
  if (old.length === 0) return;
  const opened: (StoredDataKey & { rewrapped: WrappedDataKey })[] = [];
  let unopened = 0;
  for await (const dataKeys of dataKeysUnder(env.DB, old)) {
    for (const dataKey of dataKeys.slice(0, REWRAPPED_PER_RUN - opened.length)) {
      const { organization_id, subject_id, credentials_version } = dataKey;
      const place = credentialsKey(organization_id, subject_id, credentials_version);
      try {
        opened.push({ ...dataKey, rewrapped: await rewrap(ring, place, dataKey) });
      } catch {
        unopened += 1;
      }
    }
    if (opened.length === REWRAPPED_PER_RUN || unopened >= UNOPENED_PER_RUN) break;
  }
  const rewrapped = opened.length > 0 ? await replaceDataKeys(env.DB, currentKek(ring), opened) : 0;
  if (unopened > 0) logAlert('data_keys_unopened', { count: unopened });
  logEvent('data_keys_rewrapped', { rewrapped, left: (await countDataKeys(env.DB, old)).count });
}
