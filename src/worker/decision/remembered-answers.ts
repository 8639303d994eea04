/**
 * Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07): a mutation that is repeated under its key acts once, and
 * every repeat gets the answer that tells so. A refusal changed nothing: it is not remembered, and its repeat is judged anew.
 *
 * The row that remembers is written by the batch that decides (mutation.ts), and its absence is a condition of every
 * acting statement (auth/authorize.ts). So of requests that come at the same time D1 lets one act, and the others find its
 * row. A key belongs to one API key, method and path.
 */
import { and, eq, inArray, lte, not, sql } from 'drizzle-orm';
import canonicalize from 'canonicalize';
import { createMiddleware } from 'hono/factory';
import { encodeBase64 } from 'hono/utils/encode';
import type { AppEnv, Bindings } from '../env.ts';
import { forgetInTurns, ROWS_PER_STATEMENT } from '../d1/delete-old.ts';
import { DomainError, invalid } from '../core/errors.ts';
import { existsIn, query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { idempotency_keys } from '../d1/schema.ts';
import { unixNow } from '../core/time.ts';

const KEPT_SECONDS = 86_400;

/** Printable ASCII, as a header can carry it; the draft's quotes, if there are any, belong to the key. */
const keyFormat = /^[\x20-\x7e]{1,255}$/;

/** Where a key counts, beside organization and API key; nulls name no key. */
interface KeyScope {
  idempotency_key: string | null;
  method: string | null;
  path: string | null;
}

export interface ScopeParameters extends KeyScope {
  organization_id: string;
  actor_key_id: string;
}

export const withoutIdempotencyKey: KeyScope = { idempotency_key: null, method: null, path: null };

export interface Idempotency {
  scope: KeyScope;
  /** Tells this body and query string from others, and nothing else to anybody. */
  fingerprint: string;
}

/**
 * Middleware of every route that mutates, behind what validates its query string and its body: the app does not start with
 * one that lacks it (app.ts).
 *
 * @throws DomainError `validation_failed`
 */
export const acceptIdempotencyKey = Object.assign(
  createMiddleware<AppEnv, string, Validated>(async (c, next) => {
    const { method, path } = c.req;
    const idempotency_key = c.req.header('Idempotency-Key');
    if (idempotency_key !== undefined) {
      if (!keyFormat.test(idempotency_key)) {
        throw invalid('Idempotency-Key', 'must have 1 to 255 printable ASCII characters');
      }
      const request = { query: c.req.valid('query'), body: c.req.valid('json') };
      const fingerprint = await fingerprintOf(request, c.req.header('X-API-Key') ?? '');
      c.set('operation', {
        ...c.get('operation'),
        idempotency: { scope: { idempotency_key, method, path }, fingerprint },
      });
    }
    await next();
  }),
  { acceptsIdempotencyKey: true },
);

/** What the validators before have left. */
interface Validated {
  out: { query: unknown; json: unknown };
}

/**
 * Base64 HMAC-SHA-256 of a request's canonical JSON (RFC 8785), by the caller's raw key: a body may hold a short PIN, which
 * a plain hash would let anybody guess who reads the database. The raw key is stored nowhere, and whoever repeats the
 * request sends it again.
 */
async function fingerprintOf(request: object, rawKey: string): Promise<string> {
  const algorithm = { name: 'HMAC', hash: 'SHA-256' };
  const key = await crypto.subtle.importKey('raw', utf8.encode(rawKey), algorithm, false, ['sign']);
  return encodeBase64(await crypto.subtle.sign('HMAC', key, utf8.encode(canonicalize(request))));
}

const utf8 = new TextEncoder();

/** Selects what is remembered under a request's key; nothing without one. */
export const isScope = (parameters: Placeholders<ScopeParameters>) =>
  and(
    eq(idempotency_keys.organization_id, parameters.organization_id),
    eq(idempotency_keys.actor_key_id, parameters.actor_key_id),
    eq(idempotency_keys.idempotency_key, parameters.idempotency_key),
    eq(idempotency_keys.method, parameters.method),
    eq(idempotency_keys.path, parameters.path),
  );

/** Predicate: no request has acted under the key; so it is without one. */
export const isUnanswered = (db: Builder, parameters: Placeholders<ScopeParameters>) =>
  not(existsIn(db, idempotency_keys, isScope(parameters)));

/** @throws DomainError `idempotency_key_reused` where another request acted under the key */
export function assertSameRequest({ idempotency }: { idempotency?: Idempotency }, fingerprint: string | null): void {
  if (fingerprint !== idempotency?.fingerprint) throw new DomainError('idempotency_key_reused', {});
}

/** Of every organization: what is older than its time, by the clock alone. */
const forgetAnswered = query((db, { until }: Placeholders<{ until: number }>) => {
  const { organization_id, actor_key_id, idempotency_key, method, path, created_at } = idempotency_keys;
  const primaryKey = sql`(${sql.join([organization_id, actor_key_id, idempotency_key, method, path], sql`, `)})`;
  return db
    .delete(idempotency_keys)
    .where(
      inArray(
        primaryKey,
        db
          .select({ organization_id, actor_key_id, idempotency_key, method, path })
          .from(idempotency_keys)
          .where(lte(created_at, until))
          .limit(ROWS_PER_STATEMENT),
      ),
    )
    .returning({ created_at });
});

/** The cron's turn: forgets the keys whose 24 hours are over. */
export async function forgetIdempotencyKeys({ DB }: Bindings): Promise<void> {
  await forgetInTurns(DB, forgetAnswered.bind({ until: unixNow() - KEPT_SECONDS }));
}
