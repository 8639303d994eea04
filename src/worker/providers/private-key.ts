/** Private keys in PEM (RFC 7468). */
import { decodeBase64 } from 'hono/utils/encode';
import * as z from 'zod/mini';
import { secretFormat } from '../core/text.ts';

const MAX_LENGTH = 4096;

const pem = /^-----BEGIN PRIVATE KEY-----\n((?:[A-Za-z0-9+/]+={0,2}\n)+)-----END PRIVATE KEY-----\n?$/;

/**
 * A private key in PKCS#8 PEM of at most 4,096 characters. Its line breaks may be given as `\n`, in two characters, as in
 * environment variables; the value has real ones.
 */
export const privateKey = () =>
  z
    .string()
    .check(
      z.overwrite((text) => text.replaceAll(/\\r\\n|\\n|\r\n/g, '\n')),
      z.superRefine((text, context) => {
        const message = faultOf(text);
        if (message !== undefined) context.addIssue({ code: 'custom', message });
      }),
    )
    .register(z.globalRegistry, { minLength: 1, maxLength: MAX_LENGTH, ...secretFormat });

function faultOf(text: string): string | undefined {
  if (text.length <= MAX_LENGTH && pem.test(text)) return undefined;
  const [, label] = /^-----BEGIN ([A-Z ]{1,30})-----/.exec(text) ?? [];
  if (label === 'RSA PRIVATE KEY') return 'must be in PKCS#8; openssl pkcs8 -topk8 -nocrypt makes that of this PKCS#1';
  if (label === 'ENCRYPTED PRIVATE KEY') return 'must not be encrypted with a passphrase';
  if (label?.endsWith('PUBLIC KEY')) return 'must be the private key, and this is the public key';
  return `must be a PKCS#8 PEM of at most ${MAX_LENGTH} characters, from -----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY-----`;
}

/** Whether a {@link privateKey} is an RSA key. */
export async function isRsaKey(text: string): Promise<boolean> {
  const [, base64 = ''] = pem.exec(text) ?? [];
  try {
    const der = decodeBase64(base64.replaceAll('\n', ''));
    await crypto.subtle.importKey('pkcs8', der, { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }, false, ['sign']);
    return true;
  } catch {
    return false;
  }
}
