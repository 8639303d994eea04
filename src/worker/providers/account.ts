/** Recognizes the provider's account that credentials are of, without storing its identifier. */
import { encodeBase64 } from 'hono/utils/encode';
import type { Provider } from '../core/vocabulary.ts';
import type { Credentials } from '../credentials/envelope.ts';
import { rowOf } from './providers.ts';

/** What a row stores of the account. Both are null if the credentials do not name one. */
export interface Account {
  /** `AC…89ef`: for people, to recognize it. */
  account_hint: string | null;
  /** Base64. Two accounts of one organization have different fingerprints. */
  account_fingerprint: string | null;
}

/** @param salt of the organization */
export async function accountOf(provider: Provider, credentials: Credentials, salt: string): Promise<Account> {
  const identifier = rowOf(provider).accountOf(credentials);
  if (identifier === undefined) return { account_hint: null, account_fingerprint: null };
  return {
    account_hint: hintOf(identifier),
    account_fingerprint: await fingerprintOf(salt, `${provider} ${identifier}`),
  };
}

/** A short identifier shows less, because its first characters would leave little to guess. */
function hintOf(identifier: string): string {
  const characters = Array.from(identifier);
  const [first, last] = characters.length < 16 ? [0, 2] : [2, 4];
  return `${characters.slice(0, first).join('')}…${characters.slice(-last).join('')}`;
}

const utf8 = new TextEncoder();

async function fingerprintOf(salt: string, identifier: string): Promise<string> {
  const key = await crypto.subtle.importKey('raw', utf8.encode(salt), { name: 'HMAC', hash: 'SHA-256' }, false, [
    'sign',
  ]);
  return encodeBase64(await crypto.subtle.sign('HMAC', key, utf8.encode(identifier)));
}
