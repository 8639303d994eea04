/** The rotation of key-encryption keys (KEKs): re-wraps data keys with the current one. It changes no ciphertext. */
import * as z from 'zod/mini';
import { logAlert, logEvent } from '../core/log.ts';
import type { Bindings } from '../env.ts';
import { countDataKeys, dataKeysUnder, dataKeyTables, readKeks, replaceDataKeys } from './data-keys.ts';
import type { StoredDataKey } from './data-keys.ts';
import { rewrap } from './envelope.ts';
import type { WrappedDataKey } from './envelope.ts';
import { currentKek } from './kek-check.ts';
import type { KekRing } from './kek-ring.ts';
import { kekRing } from './kek-ring.ts';
import { credentialsKey } from './kv-key.ts';

/** Each takes one D1 statement, and D1 allows 1,000 in one invocation of a Worker. */
const REWRAPPED_PER_RUN = 100;
/** A run skips at most this many data keys that cannot be decrypted; the next run begins after them. */
const UNOPENED_PER_RUN = 1000;

/**
 * A task of the cron: re-wraps at most 100 data keys that an old KEK of the ring wraps. It begins where the previous
 * run ended, and starts over at the end, so that data keys which cannot be decrypted do not hold up the others.
 *
 * Each row is changed by a compare-and-swap, so a client's change or delete wins. If a run is killed, every data key is
 * still wrapped by the old KEK or by the current one, and the next run continues with those that are left.
 *
 * Logs `data_keys_rewrapped`: how many were `rewrapped`, and how many are `left`. Logs these alerts:
 * - `data_keys_unopened`: some data keys cannot be decrypted with the KEK that their rows name
 * - `kek_missing`: the ring lacks a KEK that wraps data keys, so their credentials cannot be read
 * - `kek_mismatch`, `kek_retired`: the current KEK is not the one recorded under its id, or is retired; nothing is
 *   re-wrapped
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
  table: z.enum(dataKeyTables),
  organization_id: z.string(),
  subject_id: z.string(),
});

/** The data keys after a place, and then all from the beginning. */
async function* dataKeysFrom(database: D1Database, kek_ids: string[], place: string | null) {
  if (place !== null) yield* dataKeysUnder(database, kek_ids, dataKeyPlace.parse(JSON.parse(place)));
  yield* dataKeysUnder(database, kek_ids);
}

/**
 * Re-wraps as many data keys as a run may, each once, without storing them. Returns the place where the next run must
 * begin; null is the beginning. While all data keys can be decrypted, that is the beginning, because re-wrapped ones
 * are not found again.
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
