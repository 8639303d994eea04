/** The ring of key-encryption keys (KEKs): the secret `CREDENTIALS_KEKS`, parsed. */
import { decodeBase64, encodeBase64 } from 'hono/utils/encode';
import * as z from 'zod/mini';
import { parseJson } from '../core/json.ts';

/** The length of every key, KEKs and data keys, for AES-256. */
export const KEY_BYTES = 32;

/** Key-encryption keys by id. `current` is the one that wraps new data keys. */
export interface KekRing {
  current: string;
  keys: ReadonlyMap<string, CryptoKey>;
  /** By id: base64 of a hash of the key's bytes. It identifies the key and reveals nothing else. */
  checkValues: ReadonlyMap<string, string>;
}

const ringSecret = z.lazy(() =>
  z
    .strictObject({
      current: z.string(),
      keys: z.record(
        z.string().check(z.minLength(1)),
        z.pipe(z.base64(), z.transform(decodeBase64)).check(z.refine((bytes) => bytes.length === KEY_BYTES)),
      ),
    })
    .check(z.refine(({ current, keys }) => Object.hasOwn(keys, current))),
);

/**
 * Parses the secret `CREDENTIALS_KEKS`: `{"current": "k2", "keys": {"k1": base64 of 32 bytes, "k2": …}}`.
 *
 * @throws Error if the form is wrong, a key is all zeros, or two keys are the same. The message quotes no part of a key
 */
export async function parseKekRing(secret: string): Promise<KekRing> {
  const { success, data } = ringSecret.safeParse(parseJson(secret));
  if (!success) {
    throw new Error('CREDENTIALS_KEKS is not {"current": "<id>", "keys": {"<id>": "<base64 of 32 bytes>", …}}');
  }
  const keys = new Map<string, CryptoKey>();
  const checkValues = new Map<string, string>();
  const ids = new Map<string, string>();
  for (const [id, bytes] of Object.entries(data.keys)) {
    if (bytes.every((byte) => byte === 0)) throw new Error(`CREDENTIALS_KEKS: the key ${id} is all zeros`);
    const checkValue = await checkValueOf(bytes);
    const same = ids.get(checkValue);
    if (same !== undefined) throw new Error(`CREDENTIALS_KEKS: ${same} and ${id} are the same key`);
    ids.set(checkValue, id);
    checkValues.set(id, checkValue);
    keys.set(id, await importAesKey(bytes));
    bytes.fill(0);
  }
  return { current: data.current, keys, checkValues };
}

/** The prefix makes it differ from any other hash of these bytes that somebody might know. */
async function checkValueOf(bytes: Uint8Array): Promise<string> {
  const prefix = new TextEncoder().encode('patchbay key-encryption key: ');
  const checked = new Uint8Array(prefix.length + bytes.length);
  checked.set(prefix);
  checked.set(bytes, prefix.length);
  const digest = await crypto.subtle.digest('SHA-256', checked);
  checked.fill(0);
  return encodeBase64(digest);
}

/** @throws Error if the ring lacks the KEK */
export function kekOf({ keys }: KekRing, id: string): CryptoKey {
  const kek = keys.get(id);
  if (!kek) throw new Error(`CREDENTIALS_KEKS has no key ${id}`);
  return kek;
}

export function importAesKey(bytes: BufferSource): Promise<CryptoKey> {
  return crypto.subtle.importKey('raw', bytes, 'AES-GCM', false, ['encrypt', 'decrypt']);
}

let parsedRing: { secret: string; ring: KekRing } | undefined;

/**
 * The ring, parsed once per isolate and secret. The result is kept, not the promise, because a request must not await
 * the promise of another request.
 */
export async function kekRing(secret: string): Promise<KekRing> {
  if (parsedRing?.secret !== secret) parsedRing = { secret, ring: await parseKekRing(secret) };
  return parsedRing.ring;
}
