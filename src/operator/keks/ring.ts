/** The steps of a rotation of key-encryption keys (KEKs), as pure functions that edit the secret `CREDENTIALS_KEKS`. */
import { encodeBase64 } from 'hono/utils/encode';
import * as z from 'zod';
import { toIso, unixNow } from '../../worker/core/time.ts';
import { parseKekRing } from '../../worker/credentials/kek-ring.ts';

const KEY_BYTES = 32;

const ringText = z.object({ current: z.string(), keys: z.record(z.string(), z.string()) });

/** The ring as it is in the secret. No part of `keys` may be shown. */
export type Ring = z.output<typeof ringText>;

/** @throws Error if the form is wrong. The message quotes no part of the secret */
export async function readRing(secret: string): Promise<Ring> {
  await parseKekRing(secret);
  return ringText.parse(JSON.parse(secret));
}

const addedId = /^k\d{8}T\d{6}Z$/;

/** The id of a KEK that is added now. */
export function newKekId(): string {
  return `k${toIso(unixNow()).replaceAll(/\W/g, '')}`;
}

/**
 * The KEK that was added last, by its id. Ids of {@link newKekId} sort by time, and any other id is older. The order of
 * `keys` means nothing, because people edit the file too.
 */
export function newestKek({ current, keys }: Ring): string {
  return Object.keys(keys)
    .filter((id) => addedId.test(id))
    .reduce((newest, id) => (addedId.test(newest) && newest >= id ? newest : id), current);
}

/**
 * Adds a random KEK that is not current: it must not wrap anything until it is deployed everywhere.
 *
 * @param kek_id must never be used for another key, because a restored row must find the KEK that wraps its data key
 */
export function addKek({ current, keys }: Ring, kek_id: string): Ring {
  const bytes = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  const text = encodeBase64(bytes.buffer);
  bytes.fill(0);
  return { current, keys: { ...keys, [kek_id]: text } };
}

/** Makes the newest KEK the one that wraps data keys. */
export function promoteNewest(ring: Ring): Ring {
  return { ...ring, current: newestKek(ring) };
}

/** Removes a KEK. What it wraps cannot be read any more. */
export function retireKek({ current, keys }: Ring, kek_id: string): Ring {
  return { current, keys: Object.fromEntries(Object.entries(keys).filter(([id]) => id !== kek_id)) };
}
