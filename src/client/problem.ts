/** The API's errors (docs/contract.md, Errors), as types and as one class. */
import type { ClientResponse } from 'hono/client';
import type { ProblemCode, ProblemMembers } from '../worker/core/errors.ts';

interface CommonMembers<Code> {
  type: string;
  title: string;
  status: number;
  /** Stable, for programs. */
  code: Code;
  /** A sentence for people. */
  detail: string;
  request_id: string;
}

/** A problem (RFC 9457), as a union on `code`: each code has its own members. */
export type Problem = { [Code in ProblemCode]: CommonMembers<Code> & ProblemMembers[Code] }[ProblemCode];

/** An answer that is no success. */
export class PatchbayError extends Error {
  readonly status: number;
  /**
   * `not_modified`: a 304, so you have the state already that your `If-None-Match` names. `unexpected_answer`: it does not
   * come from the API, but from a proxy, for example.
   */
  readonly code: Problem['code'] | 'not_modified' | 'unexpected_answer';
  readonly detail: string;
  readonly request_id: string | undefined;
  /** The whole problem, with the members of its code; undefined for the two codes that no problem has. */
  readonly problem: Problem | undefined;

  constructor(response: Pick<Response, 'status' | 'headers'>, problem: Problem | undefined, options?: ErrorOptions) {
    const { status, headers } = response;
    const { code, detail } =
      problem ?? (status === 304 ? notModified : unexpected(status, headers.get('Content-Type')));
    const request_id = problem?.request_id ?? headers.get('X-Request-Id') ?? undefined;
    super(request_id === undefined ? detail : `${detail} (${code}, request ${request_id})`, options);
    this.name = 'PatchbayError';
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.request_id = request_id;
    this.problem = problem;
  }
}

const notModified = { code: 'not_modified', detail: 'The state is still the one that If-None-Match names.' } as const;

const unexpected = (status: number, type: string | null) =>
  ({
    code: 'unexpected_answer',
    detail: `The answer is not one of the API: status ${status}, ${type ?? 'without a content type'}.`,
  }) as const;

export type Answer = ClientResponse<unknown>;
export type BodyOf<Given extends Answer> = Given extends { ok: true; json: () => Promise<infer Body> } ? Body : never;

/**
 * The body of a call's answer, if the call succeeded.
 *
 * @throws PatchbayError if it did not, also for a 304, which has no body; and what `fetch` throws if there is no answer
 */
export async function unwrap<Given extends Answer>(call: Given | Promise<Given>): Promise<BodyOf<Given>>;
export async function unwrap(call: Answer | Promise<Answer>): Promise<unknown> {
  const response = await call;
  if (response.status === 304) throw new PatchbayError(response, undefined);
  const text = await response.text();
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (cause) {
    throw new PatchbayError(response, undefined, { cause });
  }
  if (!response.ok) throw new PatchbayError(response, isProblem(body) ? body : undefined);
  return body;
}

function isProblem(body: unknown): body is Problem {
  return (
    typeof body === 'object' &&
    body !== null &&
    ['code', 'detail', 'request_id'].every((name) => typeof Reflect.get(body, name) === 'string')
  );
}
