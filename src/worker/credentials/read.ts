import { logError } from '../core/log.ts';
import type { Call } from '../decision/call.ts';
import type { Bindings } from '../env.ts';
import type { StoredDataKey } from './data-keys.ts';
import { open } from './envelope.ts';
import type { Credentials } from './envelope.ts';
import { kekRing } from './kek-ring.ts';
import { credentialsKey } from './kv-key.ts';

/**
 * Reads one version of a subject's credentials, in plain text.
 *
 * @returns undefined if its ciphertext cannot be read: KV fails, has not got it yet or not any more, or it cannot be
 *   decrypted. This is logged as `credentials_unread`
 */
export async function readCredentials(
  { env, request_id }: Pick<Call, 'request_id'> & { env: Bindings },
  { organization_id, subject_id, credentials_version, ...dataKey }: Omit<StoredDataKey, 'table'>,
): Promise<Credentials | undefined> {
  const kv_key = credentialsKey(organization_id, subject_id, credentials_version);
  try {
    const ciphertext = await env.CREDENTIALS.get(kv_key, 'arrayBuffer');
    if (!ciphertext) throw new Error('KV has no ciphertext');
    return await open(await kekRing(env.CREDENTIALS_KEKS), kv_key, dataKey, new Uint8Array(ciphertext));
  } catch (error) {
    logError('credentials_unread', error, { request_id });
    return undefined;
  }
}
