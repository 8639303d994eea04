/** Deliveries that are interrupted, at every call that they make, and what must be true in the end. */
import { env } from 'cloudflare:workers';
import { vi } from 'vitest';
import * as z from 'zod';
import type { Bindings } from '../../src/worker/env.ts';
import { sweepWebhooks } from '../../src/worker/webhooks/sweep.ts';
import { interceptedBindings } from '../bindings.ts';
import type { Client } from '../fixtures.ts';
import { behave, later, messagesAt, notingQueue, wake } from './receivers.ts';
import type { Endpoint } from './receivers.ts';

const HOUR = 3600;

/**
 * A fault at one of the calls on bindings and receivers, counted from 0. `before`, `after`: that call fails, before or after it
 * is carried out. `killed`: it is carried out, and then all others fail.
 */
export interface Fault {
  at: number;
  how: 'before' | 'after' | 'killed';
}

/** Runs something with a fault. Whatever it throws, it is over then. Returns how many calls it made. */
export async function withFault(
  fault: Fault | undefined,
  act: (bindings: Bindings) => Promise<unknown>,
): Promise<number> {
  let calls = 0;
  const intercept = async (carryOut: () => Promise<unknown>): Promise<unknown> => {
    const index = calls;
    calls += 1;
    if (!fault || index < fault.at) return carryOut();
    const lost = new Error('Network connection lost.');
    if (index > fault.at) {
      if (fault.how === 'killed') throw lost;
      return carryOut();
    }
    if (fault.how === 'before') throw lost;
    const result = await carryOut();
    if (fault.how === 'after') throw lost;
    return result;
  };
  const { fetch: carryOutFetch } = globalThis;
  vi.stubGlobal('fetch', (...parameters: Parameters<typeof fetch>) => intercept(() => carryOutFetch(...parameters)));
  const WEBHOOK_WAKEUPS = new Proxy(env.WEBHOOK_WAKEUPS, {
    get: (queue, name) => {
      const method: unknown = Reflect.get(queue, name);
      return typeof method === 'function'
        ? (...parameters: unknown[]) => intercept(async () => Reflect.apply(method, queue, parameters))
        : method;
    },
  });
  try {
    await act({ ...interceptedBindings((_, carryOut) => intercept(carryOut)), WEBHOOK_WAKEUPS });
  } catch {
    // An isolate that is killed tells nobody.
  } finally {
    vi.stubGlobal('fetch', carryOutFetch);
  }
  return calls;
}

/** The ids of the events that endpoints are told about, and whether each came after this one's creation. */
async function eventsOf({ organization_id }: Client, { endpoint_id }: Endpoint) {
  const { results } = await env.DB.prepare(
    `SELECT event_id, sequence > (SELECT sequence FROM audit_events c WHERE c.organization_id = e.organization_id
         AND c.target_id = ? AND c.action = 'webhook_endpoint.created') AS isOwed
       FROM audit_events e WHERE organization_id = ? AND action NOT GLOB 'webhook_*' AND action <> 'credentials.read'`,
  )
    .bind(endpoint_id, organization_id)
    .all<{ event_id: string; isOwed: number }>();
  return results;
}

/** The receiver works, and time passes: whom the cron wakes has a turn. Retries are at most 18 hours apart. */
export async function settleDown({ url }: Endpoint): Promise<void> {
  await behave(url, 200);
  for (const seconds of [61, 61, 61, 9 * HOUR, 9 * HOUR, 9 * HOUR]) {
    later(seconds);
    const woken: unknown[] = [];
    await sweepWebhooks({ ...env, WEBHOOK_WAKEUPS: notingQueue(woken) });
    await wake(woken.map((body) => wakeUp.parse(body).organization_id));
  }
}

const wakeUp = z.object({ organization_id: z.string() });

/** What an endpoint got against the trail: the ids of events that it never got, and of what it got and never happened. */
export async function differences(client: Client, endpoint: Endpoint, secret = endpoint.secret) {
  const events = await eventsOf(client, endpoint);
  const happened = new Set(events.map(({ event_id }) => event_id));
  const owed = events.filter(({ isOwed }) => isOwed === 1).map(({ event_id }) => event_id);
  const received = await messagesAt(endpoint.url, secret);
  const ids = new Set(received.filter(({ type }) => type !== 'webhook_endpoint.test').map(({ id }) => id));
  const { results: claims } = await env.DB.prepare('SELECT claim FROM webhook_endpoints WHERE endpoint_id = ?')
    .bind(endpoint.endpoint_id)
    .all();
  return {
    lost: owed.filter((id) => !ids.has(id)),
    invented: [...ids].filter((id) => !happened.has(id)),
    owed: owed.length,
    claims,
  };
}
