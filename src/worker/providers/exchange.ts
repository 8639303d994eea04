/** The only way out to the providers' hosts. */
import * as z from 'zod/mini';
import { parseJson } from '../core/json.ts';
import { logAlert, logError } from '../core/log.ts';
import { providerNames } from '../core/vocabulary.ts';
import type { Provider } from '../core/vocabulary.ts';
import type { Bindings } from '../env.ts';
import { VERSION } from '../version.ts';
import { fitsHeader } from './authorization.ts';
import type { ProviderRequest } from './providers.ts';

/** For the whole exchange, its retry included. */
const EXCHANGE_MILLISECONDS = 5_000;
const MAX_BODY_BYTES = 1024 * 1024;
const MAX_CONNECTIONS_TRIED = 2;

/** What a provider answered. */
export interface ProviderAnswer {
  status: number;
  /** Null: longer than 1 MiB. */
  body: string | null;
}

/**
 * Sends a GET and reads the answer. It follows no redirect, and sends neither cookies nor credentials in the URL. A
 * connection that fails is tried once more.
 *
 * Logs the alert `provider_origins_refused` if `PROVIDER_ORIGINS` cannot be used.
 *
 * @returns undefined if there was no answer within 5 seconds, or if the header cannot have the authorization
 */
export async function exchange(
  env: Bindings,
  provider: Provider,
  { origin, path, authorization }: ProviderRequest,
): Promise<ProviderAnswer | undefined> {
  const base = originOf(env, provider, origin);
  if (base === undefined || !fitsHeader(authorization)) return undefined;
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(), EXCHANGE_MILLISECONDS);
  try {
    const response = await connect(base + path, {
      redirect: 'manual',
      cache: 'no-store',
      signal: ending.signal,
      headers: { Accept: 'application/json', Authorization: authorization, 'User-Agent': `patchbay/${VERSION}` },
    });
    return { status: response.status, body: await readBody(response) };
  } catch (error) {
    logError('provider_unreachable', error);
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

async function connect(url: string, request: RequestInit & { signal: AbortSignal }): Promise<Response> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await fetch(url, request);
    } catch (error) {
      if (request.signal.aborted || tries === MAX_CONNECTIONS_TRIED) throw error;
    }
  }
}

async function readBody({ body }: Response): Promise<string | null> {
  if (!body) return '';
  const decoder = new TextDecoder();
  let bytes = 0;
  let text = '';
  for await (const chunk of body) {
    bytes += chunk.byteLength;
    // Leaving the loop cancels the stream.
    if (bytes > MAX_BODY_BYTES) return null;
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

const originsSchema = z.lazy(() =>
  z.partialRecord(z.enum(providerNames), z.string().check(z.refine(isLoopbackOrigin))),
);

/** The provider's own origin, or the one that `PROVIDER_ORIGINS` puts in its place. */
function originOf({ PROVIDER_ORIGINS }: Bindings, provider: Provider, origin: string): string | undefined {
  if (PROVIDER_ORIGINS === '') return origin;
  const { data } = originsSchema.safeParse(parseJson(PROVIDER_ORIGINS));
  if (data) return data[provider] ?? origin;
  logAlert('provider_origins_refused', {
    reason: 'PROVIDER_ORIGINS must be JSON of providers and loopback origins, like {"twilio":"http://127.0.0.1:8788"}',
  });
  return undefined;
}

function isLoopbackOrigin(text: string): boolean {
  const url = URL.parse(text);
  return url?.origin === text && /^(?:(?:.+\.)?localhost|127(?:\.\d+){3}|\[::1\])$/.test(url.hostname);
}
