const FIRST_BACKOFF_MILLISECONDS = 100;

/** How often an operation is tried while a binding cannot be reached, the first try included. */
export const MAX_TRIES = 3;

/** Enough for 100 retries: what is under way when a binding is reset may be tried again. */
const MOST_TOKENS = 1000;
const TOKENS_OF_RETRY = 10;
const TOKENS_OF_SUCCESS = 1;

let tokens = MOST_TOKENS;

/** A binding as it is called for a client. */
export interface OfClient {
  /** The signal of the client's request, if there is one (core/deadlines.ts). */
  readonly client?: AbortSignal;
}

/**
 * Retries an operation that is safe to repeat. Back-off is exponential with full jitter, so that operations which
 * failed together do not all come back together.
 *
 * What calls a binding is retried only as long as there is a client to answer, and within the isolate's budget. That is a
 * token bucket: a retry takes ten tokens, and an operation that succeeds brings one. So while a binding is down or
 * overloaded, the retries of all calls together add at most a tenth to what it must do.
 *
 * @param maxTries how often to try in all after an error of this kind
 * @param binding what is called; absent if nothing is wrong with what is called
 * @throws the error of the last try
 */
export async function retry<Result>(
  attempt: () => Promise<Result>,
  maxTries: (error: unknown) => number,
  binding?: OfClient,
): Promise<Result> {
  for (let tries = 1; ; tries += 1) {
    try {
      const result = await attempt();
      if (binding) tokens = Math.min(tokens + TOKENS_OF_SUCCESS, MOST_TOKENS);
      return result;
    } catch (error) {
      if (tries >= maxTries(error)) throw error;
      if (binding) {
        if (binding.client?.aborted || tokens < TOKENS_OF_RETRY) throw error;
        tokens -= TOKENS_OF_RETRY;
      }
    }
    const milliseconds = Math.random() * FIRST_BACKOFF_MILLISECONDS * 2 ** (tries - 1);
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}

/** As in a new isolate. For tests. */
export function refillRetryBudget(): void {
  tokens = MOST_TOKENS;
}

const SPREAD_SECONDS = 6;

/** A whole number of seconds from this one on, at random, so that clients told to wait do not all come back at once. */
export const spread = (seconds: number) => seconds + Math.floor(Math.random() * SPREAD_SECONDS);
