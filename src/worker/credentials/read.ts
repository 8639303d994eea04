/** Reads stored credentials, in plain text. Whether the caller may read them is not asked here. */
import { logError } from '../core/log.ts';
import type { Call } from '../decision/call.ts';
import type { Bindings } from '../env.ts';
import type { StoredDataKey } from './data-keys.ts';
import { open } from './envelope.ts';
import type { OpenedCredentials } from './envelope.ts';
import { kekRing } from './kek-ring.ts';
import { credentialsKey } from './kv-key.ts';

/** Ciphertext by its KV key. What is kept is never out of date, because a version never changes. */
export interface KeptCiphertext {
  get(kv_key: string): Uint8Array<ArrayBuffer> | undefined;
  set(kv_key: string, ciphertext: Uint8Array<ArrayBuffer>): unknown;
}

/** `isMissing`: KV has no ciphertext. If it is false, KV failed, or the ciphertext does not open. */
export type ReadCredentials = { credentials: OpenedCredentials } | { credentials?: never; isMissing: boolean };

/** The version that a row names. A SIP number may have no credentials, and then all columns of them are null. */
type Named = Pick<StoredDataKey, 'organization_id' | 'subject_id'> & {
  [Column in 'credentials_version' | 'data_key' | 'kek_id']: StoredDataKey[Column] | null;
};

/**
 * Reads one version of a subject's credentials; none for a subject that has none.
 *
 * If it cannot, it logs `credentials_unread`, or the alert `credentials_unopened` if the ciphertext is there: the ring
 * lacks its key-encryption key, or ciphertext, data key and place do not belong together.
 *
 * @param kept looked at before KV, and filled with ciphertext that opens
 */
export async function readCredentials(
  { env, request_id }: Pick<Call, 'request_id'> & { env: Bindings },
  { organization_id, subject_id, credentials_version, data_key, kek_id }: Named,
  kept?: KeptCiphertext,
): Promise<ReadCredentials> {
  if (credentials_version === null || data_key === null || kek_id === null) return { credentials: {} };
  const kv_key = credentialsKey(organization_id, subject_id, credentials_version);
  let ciphertext = kept?.get(kv_key);
  try {
    ciphertext ??= await getCiphertext(env, kv_key);
    const credentials = await open(await kekRing(env.CREDENTIALS_KEKS), kv_key, { data_key, kek_id }, ciphertext);
    kept?.set(kv_key, ciphertext);
    return { credentials };
  } catch (error) {
    if (ciphertext) logError('credentials_unopened', error, { request_id });
    else logError('credentials_unread', error, { request_id });
    return { isMissing: error instanceof NoCiphertextError };
  }
}

class NoCiphertextError extends Error {
  constructor() {
    super('KV has no ciphertext');
    this.name = 'NoCiphertextError';
  }
}

async function getCiphertext({ CREDENTIALS }: Bindings, kv_key: string): Promise<Uint8Array<ArrayBuffer>> {
  const ciphertext = await CREDENTIALS.get(kv_key, 'arrayBuffer');
  if (!ciphertext) throw new NoCiphertextError();
  return new Uint8Array(ciphertext);
}
