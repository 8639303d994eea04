import type { AnswerHeaders } from './http/answer.ts';
import type { Caller } from './callers/key-cache.ts';
import type { Idempotency } from './decision/remembered-answers.ts';

/** What `wrangler.toml` binds; generated from it by `wrangler types`, and `npm run check` holds the two together. */
export type Bindings = Cloudflare.Env;

/** Runs a task once the answer is on its way; a task that fails is logged. */
export type AfterAnswer = (task: () => Promise<unknown>) => void;

/** What a verb knows of the call that it serves. */
export interface Operation {
  readonly env: Bindings;
  readonly caller: Caller;
  readonly request_id: string;
  readonly afterAnswer: AfterAnswer;
  /** Of a request with an Idempotency-Key. */
  readonly idempotency?: Idempotency;
  /** Tells the client that its request was answered before, and this is that answer. */
  readonly markReplayed: () => void;
  /** Of a read whose client has written or read before: the state that it must see at least. */
  readonly bookmark?: string;
  /** Tells the client which state of the database its answer is from. */
  readonly tellBookmark: (bookmark: string | null) => void;
}

export interface AppEnv {
  Bindings: Bindings;
  Variables: {
    request_id: string;
    afterAnswer: AfterAnswer;
    /** Of the answer, whatever it will be. */
    headers: AnswerHeaders;
    /** Set once the caller is known. */
    operation: Operation;
    /** What the log line calls the outcome: a problem's code, or `ok`. */
    outcome: string;
  };
}
