/** How every answer of the Worker is made, with the headers that all of them have. */
import type { Context, TypedResponse } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import type { JSONParsed } from 'hono/utils/types';
import type { ApiCall } from '../decision/call.ts';
import type { AnswerHeaders, AppEnv } from './app-env.ts';
import { BOOKMARK_HEADER } from './bookmark.ts';

/**
 * The headers of an answer to the request of this id: what OWASP's REST Security Cheat Sheet asks of an API, whose answers
 * no page renders. https://cheatsheetseries.owasp.org/cheatsheets/REST_Security_Cheat_Sheet.html#security-headers
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

function toldBy(call: ApiCall | undefined): AnswerHeaders {
  const headers: AnswerHeaders = {};
  if (call?.told.replayed) headers['Idempotency-Replayed'] = 'true';
  if (call && call.told.bookmark !== null) headers[BOOKMARK_HEADER] = call.told.bookmark;
  return headers;
}

/** The answer with this JSON, as `c.json()` makes it, and with the headers that the call has gathered. */
export function answer<Body extends object, Status extends ContentfulStatusCode>(
  c: Context<AppEnv>,
  status: Status,
  body: Body,
  headers?: AnswerHeaders,
) {
  const response = new Response(JSON.stringify(body), {
    status,
    headers: { 'Content-Type': 'application/json', ...c.get('headers'), ...toldBy(c.get('call')), ...headers },
  });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what a TypedResponse has more is a type alone
  return response as Response & TypedResponse<JSONParsed<Body>, Status, 'json'>;
}
