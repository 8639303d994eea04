/** Reads the header `Idempotency-Key`. decision/remembered-answers.ts says what it does. */
import type { Context } from 'hono';
import { encodeBase64 } from 'hono/utils/encode';
import { invalid } from '../core/errors.ts';
import type { Idempotency } from '../decision/call.ts';
import type { AppEnv } from './app-env.ts';

/** Printable ASCII. The draft puts the key in quotes; here, if there are quotes, they are part of the key. */
const keyFormat = /^[\x20-\x7e]{1,255}$/;

/**
 * The request's Idempotency-Key and what it counts for, if the request has one.
 *
 * @param request the validated query string and body
 * @param readRawKey reads the caller's
 * @throws DomainError `validation_failed`
 */
export async function readIdempotencyKey(
  c: Context<AppEnv>,
  { query, json: body }: { query?: object; json?: object },
  readRawKey: () => string | undefined,
): Promise<Idempotency | undefined> {
  const idempotency_key = c.req.header('Idempotency-Key');
  if (idempotency_key === undefined) return undefined;
  if (!keyFormat.test(idempotency_key)) {
    throw invalid('Idempotency-Key', 'must have 1 to 255 printable ASCII characters');
  }
  const fingerprint = await fingerprintOf({ query, body }, readRawKey() ?? '');
  const { method, path } = c.req;
  return { idempotency_key, method, path, fingerprint };
}

/**
 * Base64 HMAC-SHA-256 of the request's JSON, its members in order, with the caller's raw key. A plain hash would not be
 * enough: a body may contain a short PIN, which somebody who reads the database could find by trying. The raw key is
 * not stored, and every repeat of the request brings it again.
 */
async function fingerprintOf(request: object, rawKey: string): Promise<string> {
  const algorithm = { name: 'HMAC', hash: 'SHA-256' };
  const key = await crypto.subtle.importKey('raw', utf8.encode(rawKey), algorithm, false, ['sign']);
  return encodeBase64(await crypto.subtle.sign('HMAC', key, utf8.encode(JSON.stringify(request, inOrder))));
}

/** A replacer that gives every object its members in one order, whatever the client's was. */
const inOrder = (_: string, value: unknown): unknown =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).toSorted(([one], [other]) => (one < other ? -1 : 1)))
    : value;

const utf8 = new TextEncoder();
