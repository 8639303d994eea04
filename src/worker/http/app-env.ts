/** What Hono's context holds of a request. */
import type { ApiCall } from '../decision/call.ts';
import type { AfterAnswer, Bindings } from '../env.ts';

/** Names and values. A plain object: the platform takes it over at once, where `c.header()` costs a call for each. */
export type AnswerHeaders = Record<string, string>;

export interface AppEnv {
  Bindings: Bindings;
  Variables: {
    request_id: string;
    afterAnswer: AfterAnswer;
    /** Of the answer, whatever it will be. */
    headers: AnswerHeaders;
    /** Set once the caller is known. */
    call: ApiCall;
    /** What the log line calls the outcome: a problem's code, or `ok`. */
    outcome: string;
  };
}
