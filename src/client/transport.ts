/** How a request is sent: with the key, within a time limit, and again if that may help. */

/** In all, with the first one. */
const MAX_TRIES = 4;
const LONGEST_WAIT_MS = 30_000;
const FIRST_PAUSE_MS = 500;
const MAX_JITTER_MS = 1_000;

const BOOKMARK = 'X-D1-Bookmark';

export interface TransportOptions {
  /** Sends a request; the global `fetch` by default. */
  fetch?: typeof fetch;
  /** How long one try may take, in milliseconds, until its whole answer is there. 30 seconds by default. */
  timeout?: number;
}

type Tried = { response: Response } | { error: unknown };

/**
 * Checks what goes into headers. Else `fetch` would refuse each call, with a message that shows the key.
 *
 * @throws TypeError
 */
export function assertVisible(credentials: Record<string, string>): void {
  for (const [name, value] of Object.entries(credentials)) {
    if (typeof value !== 'string' || !/^[\x21-\x7E]+$/.test(value)) {
      throw new TypeError(`${name} must be a string of visible ASCII characters`);
    }
  }
}

/**
 * A `fetch` for the calls of one key.
 *
 * @param credentials headers that say who calls
 */
export function transport(
  credentials: Record<string, string>,
  { fetch: send = (input, init) => fetch(input, init), timeout = 30_000 }: TransportOptions,
): typeof fetch {
  let newest = '';

  async function tryOnce(input: RequestInfo | URL, init: RequestInit, headers: Headers): Promise<Tried> {
    const limit = new AbortController();
    // The timer of AbortSignal.timeout would not keep Node alive.
    const timer = setTimeout(() => limit.abort(new DOMException('The time limit has passed', 'TimeoutError')), timeout);
    try {
      const response = await send(input, {
        ...init,
        headers,
        signal: init.signal ? AbortSignal.any([init.signal, limit.signal]) : limit.signal,
        // The API never redirects, and the key must not follow to another host.
        redirect: 'manual',
      });
      // The answer can also be lost while its body comes.
      await response.clone().arrayBuffer();
      return { response };
    } catch (error) {
      return { error };
    } finally {
      clearTimeout(timer);
    }
  }

  return async (input, init = {}) => {
    const headers = new Headers(init.headers);
    for (const [name, value] of Object.entries(credentials)) headers.set(name, value);
    const reads = init.method === 'GET';
    if (!reads && !headers.has('Idempotency-Key')) headers.set('Idempotency-Key', newIdempotencyKey());
    const ownBookmark = headers.has(BOOKMARK);
    let uncertain: Tried | undefined;

    for (let tries = 1; ; tries += 1) {
      init.signal?.throwIfAborted();
      if (reads && !ownBookmark && newest !== '') headers.set(BOOKMARK, newest);
      const tried = await tryOnce(input, init, headers);
      init.signal?.throwIfAborted();
      const pause = pauseAfter(tried, tries);
      if (pause === undefined) return settle(tried);
      if (!reads && (await mayHaveActed(tried))) uncertain ??= tried;
      // A later try that did nothing says nothing of the first, which may have acted.
      if (tries === MAX_TRIES || pause === Infinity) return settle(uncertain ?? tried);
      await sleep(pause, init.signal);
    }
  };

  function settle(tried: Tried): Response {
    if ('error' in tried) throw tried.error;
    // Answers may come in another order than that of their states.
    const bookmark = tried.response.headers.get(BOOKMARK) ?? '';
    if (bookmark > newest) newest = bookmark;
    return tried.response;
  }
}

/** Without an answer, or with one whose `outcome` is not `not_done`. */
async function mayHaveActed(tried: Tried): Promise<boolean> {
  if ('error' in tried) return true;
  if (tried.response.status !== 503) return false;
  return !/"outcome":"not_done"/.test(await tried.response.clone().text());
}

/** How long to wait before another try, in milliseconds; undefined if no other try can help, Infinity if it would be too long. */
function pauseAfter(tried: Tried, tries: number): number | undefined {
  const jitter = Math.random();
  if ('response' in tried) {
    const { status, headers } = tried.response;
    if (status !== 429 && status !== 503) return undefined;
    const asked = retryAfter(headers.get('Retry-After'));
    if (asked !== undefined) return asked > LONGEST_WAIT_MS ? Infinity : asked + jitter * MAX_JITTER_MS;
  }
  return jitter * FIRST_PAUSE_MS * 2 ** tries;
}

/** RFC 9110 §10.2.3: seconds or a date. */
function retryAfter(value: string | null): number | undefined {
  if (value === null) return undefined;
  const wait = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(wait) ? undefined : Math.max(wait, 0);
}

/** `crypto.randomUUID` is missing in browsers on pages without TLS. */
const newIdempotencyKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

/** Ends early, without an error, if the signal aborts. */
const sleep = (milliseconds: number, signal?: AbortSignal | null) =>
  new Promise<void>((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener('abort', done);
  });
