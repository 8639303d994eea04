/** Sends requests over a connection that may be lost for a while. */
import { store } from './store.ts';

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 8_000;

/** Whether the last request had an answer. */
export const connected = store(true);

/**
 * As `fetch`, but without an answer it sends the request again, until its signal aborts. The request may have arrived before:
 * the client sends every mutation with an Idempotency-Key, so it acts once.
 */
export const fetchWhenConnected: typeof fetch = async (input, init) => {
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    try {
      const response = await fetch(input, init);
      connected.set(true);
      return response;
    } catch {
      init?.signal?.throwIfAborted();
      connected.set(false);
      await connectionOrPause(pause, init?.signal ?? undefined);
      init?.signal?.throwIfAborted();
    }
  }
};

/** Ends when the browser says that it is online, the time is over, or the signal aborts. */
const connectionOrPause = (milliseconds: number, signal: AbortSignal | undefined) =>
  new Promise<void>((resolve) => {
    const over = new AbortController();
    const end = () => {
      over.abort();
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    window.addEventListener('online', end, { signal: over.signal });
    signal?.addEventListener('abort', end, { signal: over.signal });
  });
