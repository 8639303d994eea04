const FIRST_BACKOFF_MILLISECONDS = 100;

/** Tries of one operation on a binding that is out of reach, the first included. */
export const MAX_TRIES = 3;

/**
 * Tries again what is safe to repeat, with exponential back-off under full jitter, so that clients that failed together
 * do not come back together.
 *
 * @param maxTries how many tries an error of this kind is worth, the first included
 * @throws the last try's error
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
