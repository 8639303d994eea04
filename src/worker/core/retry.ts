const FIRST_BACKOFF_MILLISECONDS = 100;

/** How often an operation is tried while a binding cannot be reached, the first try included. */
export const MAX_TRIES = 3;

/**
 * Retries an operation that is safe to repeat. Back-off is exponential with full jitter, so that operations which
 * failed together do not all come back together.
 *
 * @param maxTries how often to try in all after an error of this kind
 * @throws the error of the last try
 */
export async function retry<Result>(
  attempt: () => Promise<Result>,
  maxTries: (error: unknown) => number,
): Promise<Result> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (tries >= maxTries(error)) throw error;
    }
    const milliseconds = Math.random() * FIRST_BACKOFF_MILLISECONDS * 2 ** (tries - 1);
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}
