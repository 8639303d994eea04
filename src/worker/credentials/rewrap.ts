/** The rotation of key-encryption keys (KEKs): wraps data keys anew under the current one. No ciphertext is touched. */
import * as z from 'zod';
import type { Bindings } from '../env.ts';
import { logAlert, logEvent } from '../core/log.ts';
import { countDataKeys, dataKeysUnder, readKeks, replaceDataKeys } from './data-keys.ts';
import type { StoredDataKey } from './data-keys.ts';
import { rewrap } from './envelope.ts';
import type { WrappedDataKey } from './envelope.ts';
import type { KekRing } from './kek-ring.ts';
import { currentKek } from './kek-check.ts';
import { credentialsKey } from './kv-key.ts';
import { kekRing } from './kek-ring.ts';

/** One D1 statement each, far within the 1,000 that D1 carries out for one invocation of a Worker. */
const REWRAPPED_PER_RUN = 100;
/** A run looks past so many data keys that do not open for others that do; the next one goes on behind them. */
const UNOPENED_PER_RUN = 1000;

/**
 * The cron's turn: wraps data keys anew that another KEK of the ring than its current one wraps, at most 100. It goes on where
 * the turn before ended, and begins again at the end, so that those that do not open hold up no other.
 *
 * By compare-and-swap on the row, so whoever changes or deletes it meanwhile is first, and a run that is killed has left
 * every row readable: by the old KEK or by the current one. The next run goes on, for what is done is not found any more.
 *
 * Logs `data_keys_rewrapped` (`rewrapped`, and how many are `left`); alerts by `data_keys_unopened` where some do not open
 * under the KEK that their rows name, by `kek_mismatch` where the current KEK is another than the one that was known by its
 * name and by `kek_retired` where it is retired (nothing is wrapped under it), and by `kek_missing` where the ring has no such
 * KEK: their credentials cannot be read.
 *
 * @throws DomainError `temporarily_unavailable`; Error for a malformed ring
 */
export async function rewrapDataKeys(env: Bindings): Promise<void> {
  const ring = await kekRing(env.CREDENTIALS_KEKS);
  const kek = currentKek(ring);
  const { inUse, known } = await readKeks(env.DB, kek.kek_id);
  const missing = inUse.filter((kek_id) => !ring.keys.has(kek_id));
  if (missing.length > 0) logAlert('kek_missing', { count: (await countDataKeys(env.DB, missing)).count });

  const old = inUse.filter((kek_id) => kek_id !== ring.current && ring.keys.has(kek_id));
  if (old.length === 0) return;
  const kept = known?.rewrap_place ?? null;
  const { opened, unopened, place } = await openNext(env.DB, ring, old, kept);
  const isToDo = opened.length > 0 || place !== kept;
  const rewrapped = isToDo ? await replaceDataKeys(env.DB, kek, place, opened) : 0;
  if (unopened > 0) logAlert('data_keys_unopened', { count: unopened });
  logEvent('data_keys_rewrapped', { rewrapped, left: (await countDataKeys(env.DB, old)).count });
}

const dataKeyPlace = z.object({
  kek_id: z.string(),
  table: z.enum(['integrations', 'phone_numbers']),
  organization_id: z.string(),
  subject_id: z.string(),
});

/** Data keys behind a place, and then from the beginning. */
async function* dataKeysFrom(database: D1Database, kek_ids: string[], place: string | null) {
  if (place !== null) yield* dataKeysUnder(database, kek_ids, dataKeyPlace.parse(JSON.parse(place)));
  yield* dataKeysUnder(database, kek_ids);
}

/**
 * Opens as many data keys as a run may, each once. Returns the place where the next run must go on, or null for the beginning: as
 * long as all data keys open, the beginning will do, because what is wrapped anew is not found again.
 */
async function openNext(database: D1Database, ring: KekRing, kek_ids: string[], kept: string | null) {
  const opened: (StoredDataKey & { rewrapped: WrappedDataKey })[] = [];
  const met = new Set<string>();
  let unopened = 0;
  let place: string | null = null;
  for await (const dataKeys of dataKeysFrom(database, kek_ids, kept)) {
    for (const { kek_id, table, organization_id, subject_id, ...dataKey } of dataKeys) {
      const here = JSON.stringify({ kek_id, table, organization_id, subject_id });
      const isEnough = opened.length === REWRAPPED_PER_RUN || unopened === UNOPENED_PER_RUN || met.has(here);
      if (isEnough) return { opened, unopened, place: kept === null && unopened === 0 ? null : place };
      met.add(here);
      place = here;
      const kv_key = credentialsKey(organization_id, subject_id, dataKey.credentials_version);
      try {
        const rewrapped = await rewrap(ring, kv_key, { ...dataKey, kek_id });
        opened.push({ kek_id, table, organization_id, subject_id, ...dataKey, rewrapped });
      } catch {
        unopened += 1;
      }
    }
  }
  return { opened, unopened, place: unopened > 0 ? place : null };
}
