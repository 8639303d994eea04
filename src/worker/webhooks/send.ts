/**
 * The only way out to webhook endpoints.
 *
 * Messages are those of Standard Webhooks. The platform signs: the published library would take 5 of the bundle's 100 KiB. In
 * the tests it verifies.
 *
 * @see https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 */
import { encodeBase64 } from 'hono/utils/encode';
import { toIso, unixNow } from '../core/time.ts';
import type { Bindings } from '../env.ts';
import { VERSION } from '../version.ts';
import { faultOfUrl } from './url.ts';

/** From the connection to the end of the answer. */
const ATTEMPT_MILLISECONDS = 10_000;
const MAX_ANSWER_BYTES = 64 * 1024;
const KEPT_ANSWER_BYTES = 1024;

/** What is sent: a message of an endpoint's organization. */
export interface Message {
  /** The same for every attempt. */
  id: string;
  type: string;
  organization_id: string;
  /** Unix seconds. */
  created_at: number;
  data: object;
}

/** What came of an attempt. */
export interface Attempt {
  /** Null: there was no answer. */
  response_status: number | null;
  /** The first 1 KiB of the answer. */
  response_body: string | null;
  duration_ms: number;
  /** Null: it was answered with 2xx. */
  error: string | null;
}

/** The message that shows whether an endpoint can be reached, and whether its receiver knows the secret. */
export const testMessage = (organization_id: string, endpoint_id: string): Message => ({
  id: crypto.randomUUID(),
  type: 'webhook_endpoint.test',
  organization_id,
  created_at: unixNow(),
  data: { target_id: endpoint_id },
});

/**
 * Sends a message by POST, signed with each of the secrets. It follows no redirect.
 *
 * @returns what came of it, whatever that is: a failure is not thrown
 */
export async function send(env: Bindings, url: string, secrets: CryptoKey[], message: Message): Promise<Attempt> {
  const fault = faultOfUrl(env, url);
  if (fault !== undefined) return failed(0, `The URL ${fault}.`);
  const { id, type, organization_id, created_at, data } = message;
  const body = JSON.stringify({ id, type, created_at: toIso(created_at), organization_id, data });
  const start = Date.now();
  const timestamp = String(Math.floor(start / 1000));
  const signature = await signaturesOf(secrets, `${id}.${timestamp}.${body}`);
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(), ATTEMPT_MILLISECONDS);
  try {
    const response = await fetch(url, {
      method: 'POST',
      redirect: 'manual',
      cache: 'no-store',
      signal: ending.signal,
      headers: {
        'Content-Type': 'application/json',
        'User-Agent': `patchbay/${VERSION}`,
        'webhook-id': id,
        'webhook-timestamp': timestamp,
        'webhook-signature': signature,
      },
      body,
    });
    const response_body = await readStart(response);
    const { status: response_status } = response;
    return { response_status, response_body, duration_ms: Date.now() - start, error: errorOf(response_status) };
  } catch {
    const duration_ms = Date.now() - start;
    return failed(duration_ms, ending.signal.aborted ? 'There was no answer in 10 seconds.' : 'The connection failed.');
  } finally {
    clearTimeout(timer);
  }
}

async function signaturesOf(secrets: CryptoKey[], text: string): Promise<string> {
  const bytes = new TextEncoder().encode(text);
  const signatures = secrets.map(async (key) => `v1,${encodeBase64(await crypto.subtle.sign('HMAC', key, bytes))}`);
  return (await Promise.all(signatures)).join(' ');
}

const failed = (duration_ms: number, error: string): Attempt => ({
  response_status: null,
  response_body: null,
  duration_ms,
  error,
});

function errorOf(status: number): string | null {
  if (status >= 200 && status < 300) return null;
  return status >= 300 && status < 400
    ? `The answer had status ${status}. Redirects are not followed.`
    : `The answer had status ${status}.`;
}

/** What comes after the status does not count: an answer that breaks off, or does not end, is kept as far as it came. */
async function readStart({ body }: Response): Promise<string> {
  const kept = new Uint8Array(KEPT_ANSWER_BYTES);
  let bytes = 0;
  try {
    for await (const chunk of body ?? []) {
      kept.set(chunk.subarray(0, Math.max(KEPT_ANSWER_BYTES - bytes, 0)), Math.min(bytes, KEPT_ANSWER_BYTES));
      bytes += chunk.byteLength;
      // Leaving the loop cancels the stream.
      if (bytes > MAX_ANSWER_BYTES) break;
    }
  } catch {}
  return new TextDecoder().decode(kept.subarray(0, bytes));
}
