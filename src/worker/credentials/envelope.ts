/**
 * Envelope encryption, as pure functions. Each version of a subject's credentials is encrypted by AES-256-GCM with a
 * new data key. The data key is wrapped by AES-256-GCM with the ring's current key-encryption key (KEK).
 *
 * Both layers have the same additional authenticated data, the KV key `v1/{organization_id}/{subject_id}/{version}`. So
 * neither a ciphertext nor a data key can be decrypted in another place.
 *
 * | bytes      | nonce (96 bits, random) | AES-GCM output        |
 * | ---------- | ----------------------- | --------------------- |
 * | ciphertext | 12                      | length of text + 16   |
 * | data key   | 12                      | 32 + 16, in base64    |
 */
import { decodeBase64, encodeBase64 } from 'hono/utils/encode';
import * as z from 'zod/mini';
import { parseJson } from '../core/json.ts';
import { importAesKey, kekOf, KEY_BYTES } from './kek-ring.ts';
import type { KekRing } from './kek-ring.ts';

const NONCE_BYTES = 12;

/** The credentials of one integration or SIP number: names and secret values. Undefined values are not stored. */
export type Credentials = Readonly<Record<string, string | undefined>>;

/** {@link Credentials} as they were stored. */
export type OpenedCredentials = Readonly<z.output<typeof openedCredentials>>;
const openedCredentials = z.record(z.string(), z.string());

/** A data key as a row stores it. */
export interface WrappedDataKey {
  data_key: string;
  kek_id: string;
}

/**
 * Encrypts credentials with a new data key. `kv_key` binds both to their place. Here and below, the data key's bytes
 * are erased.
 */
export async function seal(
  ring: KekRing,
  kv_key: string,
  credentials: Credentials,
): Promise<WrappedDataKey & { ciphertext: Uint8Array<ArrayBuffer> }> {
  const dataKey = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  const text = new TextEncoder().encode(JSON.stringify(credentials));
  try {
    const [ciphertext, wrapped] = await Promise.all([
      encrypt(await importAesKey(dataKey), kv_key, text),
      wrap(ring, kv_key, dataKey),
    ]);
    return { ciphertext, ...wrapped };
  } finally {
    dataKey.fill(0);
  }
}

/** Wraps a key with the ring's current KEK, bound to its place. */
export async function wrap(ring: KekRing, place: string, key: Uint8Array<ArrayBuffer>): Promise<WrappedDataKey> {
  const wrapped = await encrypt(kekOf(ring, ring.current), place, key);
  return { data_key: encodeBase64(wrapped.buffer), kek_id: ring.current };
}

/**
 * The key that {@link wrap} wrapped. Whoever calls this erases its bytes.
 *
 * @throws Error if the ring lacks the KEK, or key and place do not belong together
 */
export function unwrap(ring: KekRing, place: string, { data_key, kek_id }: WrappedDataKey) {
  return decrypt(kekOf(ring, kek_id), place, decodeBase64(data_key));
}

/**
 * Wraps a data key with the ring's current KEK. The ciphertext stays as it is.
 *
 * @throws Error if the ring lacks the old KEK, or data key and place do not belong together
 */
export async function rewrap(ring: KekRing, kv_key: string, wrapped: WrappedDataKey): Promise<WrappedDataKey> {
  const dataKey = await unwrap(ring, kv_key, wrapped);
  try {
    return await wrap(ring, kv_key, dataKey);
  } finally {
    dataKey.fill(0);
  }
}

/**
 * Decrypts what {@link seal} made.
 *
 * @throws Error if the ring lacks the KEK, or ciphertext, data key and place do not belong together
 */
export async function open(
  ring: KekRing,
  kv_key: string,
  wrapped: WrappedDataKey,
  ciphertext: Uint8Array<ArrayBuffer>,
): Promise<OpenedCredentials> {
  const dataKey = await unwrap(ring, kv_key, wrapped);
  const key = await importAesKey(dataKey).finally(() => dataKey.fill(0));
  const text = await decrypt(key, kv_key, ciphertext);
  const { success, data } = openedCredentials.safeParse(parseJson(new TextDecoder().decode(text)));
  if (!success) throw new Error('What was encrypted is not an object of strings');
  return data;
}

/** Whether {@link open} succeeds. */
export async function opens(...sealed: Parameters<typeof open>): Promise<boolean> {
  try {
    await open(...sealed);
    return true;
  } catch {
    return false;
  }
}

async function encrypt(key: CryptoKey, kv_key: string, text: BufferSource): Promise<Uint8Array<ArrayBuffer>> {
  const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  const encrypted = await crypto.subtle.encrypt(parameters(nonce, kv_key), key, text);
  const sealed = new Uint8Array(NONCE_BYTES + encrypted.byteLength);
  sealed.set(nonce);
  sealed.set(new Uint8Array(encrypted), NONCE_BYTES);
  return sealed;
}

async function decrypt(
  key: CryptoKey,
  kv_key: string,
  sealed: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  const nonce = sealed.subarray(0, NONCE_BYTES);
  return new Uint8Array(await crypto.subtle.decrypt(parameters(nonce, kv_key), key, sealed.subarray(NONCE_BYTES)));
}

function parameters(iv: BufferSource, kv_key: string) {
  return { name: 'AES-GCM', iv, additionalData: new TextEncoder().encode(kv_key) };
}
