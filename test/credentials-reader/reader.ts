/** Reads as another Worker does. */
import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import type { Bindings } from '../../src/worker/env.ts';
import { CredentialsReader } from '../../src/worker/index.ts';

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
