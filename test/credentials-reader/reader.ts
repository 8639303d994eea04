/** Reads as another Worker does. */
import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { readByIntegration } from '../../src/worker/credentials-reader/read.ts';
import type { Bindings } from '../../src/worker/env.ts';
import { CredentialsReader } from '../../src/worker/index.ts';

/** Only for a wait that would never end. */
export const LAST_NET = { timeout: 240_000, interval: 10 };

export type Method = 'read' | 'readByPhoneNumber';

interface Options {
  /** Instead of the pool's own: counted, or made to fail. */
  bindings?: Bindings;
  consumer?: unknown;
}

/** Calls the entrypoint with whatever is given. */
export async function callReader(
  method: Method,
  given: unknown,
  { bindings = env, consumer = 'call-router' }: Options = {},
) {
  const context = createExecutionContext();
  const reader = new CredentialsReader(Object.assign(context, { props: { consumer } }), bindings);
  const result: unknown = await Reflect.apply(Reflect.get(reader, method), reader, [given]);
  return { result, settle: () => waitOnExecutionContext(context) };
}

/** Reads with a purpose. The answer is there before what runs after it: `settle` waits for that. */
export const startRead = (method: Method, request: object, options?: Options) =>
  callReader(method, { purpose: 'test of a call', ...request }, options);

/** Calls the entrypoint, and waits for what runs after its answer. */
export async function read(...parameters: Parameters<typeof startRead>): Promise<unknown> {
  const { result, settle } = await startRead(...parameters);
  await settle();
  return result;
}

/** Reads an integration from the primary, and leaves nothing on record. */
export function readFresh(organization_id: string, integration_id: string) {
  // Each time another consumer: one would reach its rate limit.
  const consumer = `test-${crypto.randomUUID()}`;
  const grants = { [consumer]: { providers: ['twilio'], organizations: [organization_id] } };
  return readByIntegration(
    {
      env: { ...env, CREDENTIALS_READERS: JSON.stringify(grants) },
      consumer,
      request_id: crypto.randomUUID(),
      afterAnswer: () => {},
    },
    { organization_id, integration_id, purpose: 'test', fresh: true },
  );
}
