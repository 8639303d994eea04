/** Webhook endpoints and their receivers, for tests. */
import {
  createExecutionContext,
  createMessageBatch,
  createScheduledController,
  waitOnExecutionContext,
} from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { Webhook } from 'standardwebhooks';
import { vi } from 'vitest';
import * as z from 'zod';
import type { Bindings } from '../../src/worker/env.ts';
import worker from '../../src/worker/index.ts';
import { call } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import type { Behaviour, Received } from './receiver-server.ts';

let receivers = 0;

/** The URL of a receiver that no other test has. */
export const newReceiver = () => `${env.RECEIVERS}/receiver-${crypto.randomUUID()}-${(receivers += 1)}`;

/** From now on it does this with each message, one after the other; the last behaviour stays. */
export async function behave(url: string, ...behaviours: Behaviour[]): Promise<void> {
  await fetch(url, { method: 'PUT', body: JSON.stringify(behaviours) });
}

const log = z.object({
  received: z.array(z.object({ headers: z.record(z.string(), z.string()), body: z.string() })),
  most: z.number(),
});

export const logOf = async (url: string) => log.parse(await (await fetch(url)).json());

const message = z.object({
  id: z.string(),
  type: z.string(),
  created_at: z.string(),
  organization_id: z.string(),
  data: z.record(z.string(), z.unknown()),
});

export type Message = z.output<typeof message>;

/** What a receiver got, each verified with its secret. Throws if one is not signed with it. */
export async function messagesAt(url: string, secret: string): Promise<Message[]> {
  const { received } = await logOf(url);
  return received.map((one) => verified(one, secret));
}

export function verified({ body, headers }: Received, secret: string): Message {
  // The library refuses what is five minutes old, and the tests pass days.
  const clock = vi.spyOn(Date, 'now').mockReturnValue(Number(headers['webhook-timestamp']) * 1000);
  try {
    const read = message.parse(new Webhook(secret).verify(body, headers));
    if (headers['webhook-id'] !== read.id) throw new Error('webhook-id is not the id');
    return read;
  } finally {
    clock.mockRestore();
  }
}

const created = z.object({
  data: z.object({ secret: z.string(), endpoint: z.object({ endpoint_id: z.string() }) }),
});

export interface Endpoint {
  endpoint_id: string;
  secret: string;
  url: string;
  path: string;
}

/** An endpoint that has yet to answer a test. */
export async function createEndpoint(
  client: Client,
  { url = newReceiver(), events = ['*'] }: { url?: string; events?: string[] } = {},
): Promise<Endpoint> {
  const { body } = await call(client, 'POST', '/api/webhook-endpoints', { body: { url, events } });
  const { secret, endpoint } = created.parse(body).data;
  return { ...endpoint, secret, url, path: `/api/webhook-endpoints/${endpoint.endpoint_id}` };
}

/** An endpoint that has answered its test. */
export async function verifiedEndpoint(...parameters: Parameters<typeof createEndpoint>): Promise<Endpoint> {
  const endpoint = await createEndpoint(...parameters);
  await call(parameters[0], 'POST', `${endpoint.path}/test`);
  return endpoint;
}

/** The consumer takes a wake-up of each organization. */
export async function wake(organization_ids: string[], bindings: Bindings = env): Promise<void> {
  const messages = organization_ids.map((organization_id) => ({
    id: crypto.randomUUID(),
    timestamp: new Date(),
    attempts: 1,
    body: { organization_id },
  }));
  const context = createExecutionContext();
  await worker.queue(createMessageBatch('patchbay-webhook-wakeups', messages), bindings, context);
  await waitOnExecutionContext(context);
}

/** The cron runs. */
export async function sweep(bindings: Bindings = env): Promise<void> {
  const context = createExecutionContext();
  await worker.scheduled(createScheduledController({ cron: '* * * * *' }), bindings, context);
  await waitOnExecutionContext(context);
}

/** From now on it is so many seconds later. */
export const later = (seconds: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + seconds * 1000 });

/** Makes an event: the client's own key gets the name. */
export async function rename(client: Client, name: string): Promise<void> {
  const { status } = await call(client, 'PUT', `/api/api-keys/${client.key_id}`, { body: { name } });
  if (status !== 200) throw new Error(`The key was not renamed: ${status}`);
}

const delivery = z.object({
  delivery_id: z.string(),
  event_id: z.string(),
  event_type: z.string(),
  status: z.string(),
  attempts: z.number(),
  next_attempt_at: z.string().nullable(),
  response_status: z.number().nullable(),
  response_body: z.string().nullable(),
  duration_ms: z.number(),
  last_error: z.string().nullable(),
});

/** The newest 100. */
export async function deliveriesOf(client: Client, { path }: Endpoint) {
  const { body } = await call(client, 'GET', `${path}/deliveries?page_size=100`);
  return z.object({ data: z.array(delivery) }).parse(body).data;
}

export async function endpointAt(client: Client, { path }: Endpoint): Promise<object> {
  const { body } = await call(client, 'GET', path);
  return z.object({ data: z.looseObject({}) }).parse(body).data;
}

/** A queue that notes what it is sent, and passes it on to nobody. */
export function notingQueue(sent: unknown[]): Queue {
  return new Proxy(env.WEBHOOK_WAKEUPS, {
    get: (queue, name) => {
      if (name === 'send') return async (body: unknown) => void sent.push(body);
      if (name === 'sendBatch') {
        return async (messages: { body: unknown }[]) => void sent.push(...messages.map(({ body }) => body));
      }
      return Reflect.get(queue, name);
    },
  });
}
