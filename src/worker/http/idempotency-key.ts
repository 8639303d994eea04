/** The header `Idempotency-Key` (decision/remembered-answers.ts says what it does). */
import canonicalize from 'canonicalize';
import type { Context } from 'hono';
import { encodeBase64 } from 'hono/utils/encode';
import { invalid } from '../core/errors.ts';
import type { Idempotency } from '../decision/call.ts';
import type { AppEnv } from './app-env.ts';

/** Printable ASCII, as a header can carry it. The draft's quotes, if there are any, belong to the key. */
const keyFormat = /^[\x20-\x7e]{1,255}$/;

/**
 * What a request says by its Idempotency-Key; nothing without one.
 *
 * @param request its validated query string and body
 * @throws DomainError `validation_failed`
 */
export async function readIdempotencyKey(c: Context<AppEnv>, request: object): Promise<Idempotency | undefined> {
  const { method, path } = c.req;
  const idempotency_key = c.req.header('Idempotency-Key');
  if (idempotency_key === undefined) return undefined;
  if (!keyFormat.test(idempotency_key)) {
    throw invalid('Idempotency-Key', 'must have 1 to 255 printable ASCII characters');
  }
  const fingerprint = await fingerprintOf(request, c.req.header('X-API-Key') ?? '');
  return { idempotency_key, method, path, fingerprint };
}

/**
 * Base64 HMAC-SHA-256 of a request's canonical JSON (RFC 8785), by the caller's raw key. A body may hold a short PIN: whoever
 * reads the database could guess it from a plain hash. The raw key is stored nowhere, and whoever repeats the request sends
 * it again.
 */
async function fingerprintOf(request: object, rawKey: string): Promise<string> {
  const algorithm = { name: 'HMAC', hash: 'SHA-256' };
  const key = await crypto.subtle.importKey('raw', utf8.encode(rawKey), algorithm, false, ['sign']);
  return encodeBase64(await crypto.subtle.sign('HMAC', key, utf8.encode(canonicalize(request))));
}

const utf8 = new TextEncoder();
