/** The steps of a rotation of key-encryption keys (KEKs), as edits of the secret `CREDENTIALS_KEKS`. Pure. */
import { encodeBase64 } from 'hono/utils/encode';
import * as z from 'zod';
import { toIso, unixNow } from '../../worker/core/time.ts';
import { parseKekRing } from '../../worker/credentials/kek-ring.ts';

const KEY_BYTES = 32;

const ringText = z.object({ current: z.string(), keys: z.record(z.string(), z.string()) });

/** The ring as the secret has it. No part of `keys` may be shown. */
export type Ring = z.output<typeof ringText>;

/** @throws Error, without a word of the secret, when it is of another form */
export async function readRing(secret: string): Promise<Ring> {
  await parseKekRing(secret);
  return ringText.parse(JSON.parse(secret));
}

const addedId = /^k\d{8}T\d{6}Z$/;

/** An id of a KEK that is added now. */
export function newKekId(): string {
  return `k${toIso(unixNow()).replaceAll(/\W/g, '')}`;
}

/**
 * The KEK that was added last, which its id tells: those of {@link newKekId} sort by their time, any other id is older. The
 * order of `keys` tells nothing, because people write it too.
 */
export function newestKek({ current, keys }: Ring): string {
  return Object.keys(keys)
    .filter((id) => addedId.test(id))
    .reduce((newest, id) => (addedId.test(newest) && newest >= id ? newest : id), current);
}

/**
 * Adds a random KEK that is not current: as long as it is not known everywhere, it must not wrap anything.
 *
 * @param kek_id never used before, nor after: a restored row must not find another key under the name of its own
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

/** Takes a KEK out. What it wraps cannot be read any more. */
export function retireKek({ current, keys }: Ring, kek_id: string): Ring {
  return { current, keys: Object.fromEntries(Object.entries(keys).filter(([id]) => id !== kek_id)) };
}
