/** Makes every answer of the Worker, with the headers that all answers have. */
import type { Context, TypedResponse } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import type { JSONParsed } from 'hono/utils/types';
import type { Told } from '../decision/call.ts';
import type { AnswerHeaders, AppEnv } from './app-env.ts';
import { BOOKMARK_HEADER } from './bookmark.ts';

/** How many phone numbers a delete of an integration has moved to another, or removed. */
export const REASSIGNED_HEADER = 'X-Reassigned-Count';
export const REMOVED_HEADER = 'X-Removed-Count';

/**
 * The headers of every answer. They follow OWASP's advice for APIs, whose answers no browser renders.
 *
 * @see https://cheatsheetseries.owasp.org/cheatsheets/REST_Security_Cheat_Sheet.html#security-headers
 */
export function standardHeaders(request_id: string): AnswerHeaders {
  return {
    'X-Request-Id': request_id,
    'Cache-Control': 'no-store',
    'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
    'Referrer-Policy': 'no-referrer',
    'Strict-Transport-Security': 'max-age=15552000; includeSubDomains',
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
  };
}

/** Adds the headers that the call has led to. */
function tell({ replayed, bookmark, exhausted }: Told, headers: AnswerHeaders): AnswerHeaders {
  if (replayed) headers['Idempotency-Replayed'] = 'true';
  if (bookmark !== null) headers[BOOKMARK_HEADER] = bookmark;
  if (exhausted) {
    const { name, calls, period_seconds } = exhausted;
    headers['RateLimit'] = `"${name}";r=0`;
    headers['RateLimit-Policy'] = `${headers['RateLimit-Policy'] ?? ''}, "${name}";q=${calls};w=${period_seconds}`;
  }
  return headers;
}

/** An answer with this JSON, like that of `c.json()`, and with the headers of the call. */
export function answer<Body extends object, Status extends ContentfulStatusCode>(
  c: Context<AppEnv>,
  status: Status,
  body: Body,
  headers?: AnswerHeaders,
) {
  const response = new Response(JSON.stringify(body), {
    status,
    headers: tell(c.get('told'), { ...c.get('headers'), 'Content-Type': 'application/json', ...headers }),
  });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a TypedResponse differs from a Response only in its type
  return response as Response & TypedResponse<JSONParsed<Body>, Status, 'json'>;
}

/** The answer to a `GET` of what has this ETag: 304 without a body if the client has that (RFC 9110 §15.4.5). */
export function answerUnlessKnown<Body extends object>(
  c: Context<AppEnv>,
  ETag: string,
  body: Body,
): Response & (TypedResponse<JSONParsed<Body>, 200, 'json'> | TypedResponse<null, 304, 'body'>) {
  const known = c.get('known') ?? [];
  if (known !== '*' && !known.includes(ETag)) return answer(c, 200, body, { ETag });
  const response = new Response(null, { status: 304, headers: tell(c.get('told'), { ...c.get('headers'), ETag }) });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as above
  return response as Response & TypedResponse<null, 304, 'body'>;
}
