/** What comes between two steps of a delivery: changes, late batches, lost events, other tenants' limits. */
import { env } from 'cloudflare:workers';
import { afterEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { disableFailing } from '../../src/worker/webhooks/sweep.ts';
import { interceptedBindings } from '../bindings.ts';
import { call, newClient } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import {
  behave,
  createEndpoint,
  deliveriesOf,
  endpointAt,
  later,
  logOf,
  messagesAt,
  newReceiver,
  notingQueue,
  rename,
  verified,
  verifiedEndpoint,
  wake,
} from './receivers.ts';
import type { Endpoint } from './receivers.ts';

const DAY = 86_400;

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** Something is done while an attempt is under way, which then fails by its deadline. */
async function whileSending(endpoint: Endpoint, sending: () => Promise<unknown>, doing: () => Promise<unknown>) {
  await behave(endpoint.url, 'hang', 200);
  const deadlines: (() => void)[] = [];
  const { setTimeout: wait } = globalThis;
  vi.stubGlobal('setTimeout', (resume: () => void, milliseconds: number) =>
    milliseconds === 10_000 ? deadlines.push(resume) : wait(resume, milliseconds),
  );
  const before = (await logOf(endpoint.url)).received.length;
  const sent = sending();
  await expect.poll(async () => (await logOf(endpoint.url)).received.length, { timeout: 240_000 }).toBe(before + 1);
  await doing();
  for (const end of deadlines) end();
  await sent;
  vi.unstubAllGlobals();
}

const rowsOf = async (table: string, { endpoint_id }: Endpoint) =>
  (await env.DB.prepare(`SELECT * FROM ${table} WHERE endpoint_id = ?`).bind(endpoint_id).all()).results;

const namesAt = async ({ url, secret }: Endpoint) =>
  (await messagesAt(url, secret)).flatMap(({ data: { changes } }) => {
    const { name } = z
      .object({ name: z.object({ to: z.string() }).optional() })
      .catch({})
      .parse(changes);
    return name ? [name.to] : [];
  });

describe('an attempt that is under way', () => {
  const changes: [string, (client: Client, endpoint: Endpoint) => Promise<unknown>][] = [
    ['an update', (client, { path }) => call(client, 'PUT', path, { body: { description: 'Billing' } })],
    ['a replay', (client, { path }) => call(client, 'POST', `${path}/replay?since=2020-01-01T00:00:00Z`)],
    ['a rotation', (client, { path }) => call(client, 'POST', `${path}/rotate-secret`, { body: {} })],
    ['a test', (client, { path }) => call(client, 'POST', `${path}/test`)],
    [
      'a suspension',
      ({ organization_id }) =>
        env.DB.prepare(`UPDATE organizations SET status = 'suspended' WHERE organization_id = ?`)
          .bind(organization_id)
          .run(),
    ],
  ];

  it.each(changes)('counts for nothing after %s, and the event is sent again', async (_, change) => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await rename(client, 'Under way');
    await whileSending(
      endpoint,
      () => wake([client.organization_id]),
      () => change(client, endpoint),
    );
    expect(await rowsOf('webhook_deliveries', endpoint)).toEqual([]);
    expect(await rowsOf('webhook_endpoints', endpoint)).toMatchObject([{ failing_since: null, last_error: null }]);

    await env.DB.prepare(`UPDATE organizations SET status = 'active' WHERE organization_id = ?`)
      .bind(client.organization_id)
      .run();
    later(61);
    await wake([client.organization_id]);
    expect((await namesAt(endpoint)).filter((name) => name === 'Under way')).toHaveLength(2);
  });

  it('is the only one, however often the endpoint is changed and woken meanwhile', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await rename(client, 'Under way');
    await whileSending(
      endpoint,
      () => wake([client.organization_id]),
      async () => {
        for (let count = 0; count < 4; count += 1) {
          await call(client, 'PUT', endpoint.path, { body: { enabled: true } });
          await wake([client.organization_id]);
        }
      },
    );
    expect((await logOf(endpoint.url)).most).toBe(1);
    later(13);
    await wake([client.organization_id]);
    expect(await namesAt(endpoint)).toEqual(['Under way', 'Under way']);
  });

  it('verifies nothing, if it is a test and the URL has changed', async () => {
    const client = await newClient();
    const endpoint = await createEndpoint(client);
    const url = newReceiver();
    await behave(url, 500);
    const { fetch: send } = globalThis;
    vi.stubGlobal('fetch', async (...parameters: Parameters<typeof fetch>) => {
      const answer = await send(...parameters);
      if (parameters[0] === endpoint.url) await call(client, 'PUT', endpoint.path, { body: { url } });
      return answer;
    });
    await wake([client.organization_id]);
    vi.unstubAllGlobals();
    expect(await endpointAt(client, endpoint)).toMatchObject({ url, verified_at: null, last_test: null });
  });
});

describe('a batch that D1 carries out late', () => {
  /** The batches of a turn, carried out; and each of them once more, later. */
  async function turnWithLateBatches(client: Client) {
    const late: (() => Promise<unknown>)[] = [];
    const bindings = interceptedBindings((name, carryOut) => {
      if (name === 'DB.batch') late.push(carryOut);
      return carryOut();
    });
    await wake([client.organization_id], bindings);
    return late;
  }

  it('does not undo a replay, nor take an endpoint for longer than a moment', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await rename(client, 'First');
    const late = await turnWithLateBatches(client);
    await call(client, 'POST', `${endpoint.path}/replay?since=2020-01-01T00:00:00Z`);
    for (const carryOut of late) await carryOut();
    expect(await rowsOf('webhook_endpoints', endpoint)).toMatchObject([{ cursor_sequence: -1 }]);
    later(61);
    await wake([client.organization_id]);
    expect(await namesAt(endpoint)).toEqual(['First', 'First']);
  });

  it('does not sign with a secret that was shown to nobody', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    const held: (() => Promise<unknown>)[] = [];
    const bindings = interceptedBindings((name, carryOut, { statements }) => {
      const isRotation = statements.some(({ sql }) => sql.includes('secret_rotated'));
      if (name !== 'DB.batch' || !isRotation) return carryOut();
      held.push(carryOut);
      throw new Error('D1_ERROR: Network connection lost.');
    });
    const rotation = { body: { overlap_seconds: 0 } };
    const lost = await call(client, 'POST', `${endpoint.path}/rotate-secret`, { ...rotation, bindings });
    expect(lost).toMatchObject({ status: 503, body: { outcome: 'unknown' } });
    const { body } = await call(client, 'POST', `${endpoint.path}/rotate-secret`, rotation);
    const { secret } = z.object({ data: z.object({ secret: z.string() }) }).parse(body).data;
    for (const carryOut of held) await carryOut();

    await rename(client, 'Renamed');
    await wake([client.organization_id]);
    const last = (await logOf(endpoint.url)).received.at(-1);
    expect(last && verified(last, secret).type).toBe('api_key.updated');
    expect(last?.headers['webhook-signature']?.split(' ')).toHaveLength(1);
  });
});

describe('events that fail, and others', () => {
  it('of three that fail, none holds up a fourth for longer than a short rest', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await behave(endpoint.url, 500, 500, 500, 200, 500);
    for (const name of ['One', 'Two', 'Three', 'Four']) await rename(client, name);
    await wake([client.organization_id]);
    later(10);
    await wake([client.organization_id]);
    expect((await namesAt(endpoint)).slice(0, 4)).toEqual(['One', 'Two', 'Three', 'Four']);
    const statuses = (await deliveriesOf(client, endpoint)).map(({ status }) => status);
    expect(statuses.filter((status) => status === 'delivered')).toHaveLength(1);
  });

  it('of a steady stream, a retry has its turn among the new ones', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await behave(endpoint.url, 500, 200);
    await rename(client, 'Again');
    await wake([client.organization_id]);
    for (let count = 0; count < 12; count += 1) await rename(client, `Name ${count}`);
    later(10);
    await wake([client.organization_id]);
    expect((await namesAt(endpoint)).slice(0, 3)).toEqual(['Again', 'Name 0', 'Again']);
  });

  it('are not tried again once they are kept no longer, and wake nobody', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await behave(endpoint.url, 500);
    await rename(client, 'Forgotten');
    await wake([client.organization_id]);
    const [delivery] = await deliveriesOf(client, endpoint);
    await env.DB.prepare('DELETE FROM audit_events WHERE event_id = ?').bind(delivery?.event_id).run();
    const retry = `${endpoint.path}/deliveries/${delivery?.delivery_id}/retry`;
    expect(await call(client, 'POST', retry)).toMatchObject({
      status: 404,
      body: { code: 'webhook_delivery_not_found' },
    });

    later(10);
    const woken: unknown[] = [];
    await wake([client.organization_id], { ...env, WEBHOOK_WAKEUPS: notingQueue(woken) });
    expect(woken).toEqual([]);
    expect(await rowsOf('webhook_deliveries', endpoint)).toEqual([]);
    expect((await logOf(endpoint.url)).received).toHaveLength(2);
  });

  it('are looked for among a thousand at a time', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client, { events: ['integration.*'] });
    await env.DB.prepare(
      `INSERT INTO audit_events (organization_id, event_id, action, target_id, request_id, state, created_at, sequence)
       WITH RECURSIVE numbered(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbered WHERE n < 5000)
       SELECT organization_id, printf('%08x-0000-7000-8000-000000000000', n), 'api_key.updated', target_id, request_id, state,
         created_at, (SELECT last_sequence FROM organizations o WHERE o.organization_id = audit_events.organization_id) + n
       FROM numbered CROSS JOIN audit_events WHERE organization_id = ? AND action = 'api_key.created'`,
    )
      .bind(client.organization_id)
      .run();
    await env.DB.prepare('UPDATE organizations SET last_sequence = last_sequence + 5000 WHERE organization_id = ?')
      .bind(client.organization_id)
      .run();
    let read = 0;
    const bindings = interceptedBindings(async (_, carryOut) => {
      const results = await carryOut();
      if (Array.isArray(results)) for (const { meta } of results) read += meta.rows_read;
      return results;
    });
    const woken: unknown[] = [];
    await wake([client.organization_id], { ...bindings, WEBHOOK_WAKEUPS: notingQueue(woken) });
    expect(read).toBeLessThan(10_000);
    expect(woken).toEqual([{ organization_id: client.organization_id, endpoint_id: endpoint.endpoint_id }]);
    for (let turn = 0; turn < 6; turn += 1) await wake([client.organization_id]);
    expect(await rowsOf('webhook_endpoints', endpoint)).toMatchObject([{ cursor_sequence: expect.any(Number) }]);
    const { results } = await env.DB.prepare(
      `SELECT e.cursor_sequence - o.last_sequence AS behind FROM webhook_endpoints e NATURAL JOIN organizations o WHERE endpoint_id = ?`,
    )
      .bind(endpoint.endpoint_id)
      .all();
    expect(results).toEqual([{ behind: 0 }]);
  });
});

describe('a replay', () => {
  it('since a time that is yet to be reached leaves nothing out', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await rename(client, 'Waits');
    await env.DB.prepare(
      'UPDATE webhook_endpoints SET cursor_at = cursor_at - 100, cursor_sequence = cursor_sequence WHERE endpoint_id = ?',
    )
      .bind(endpoint.endpoint_id)
      .run();
    await call(client, 'POST', `${endpoint.path}/replay?since=${new Date(Date.now() - 1000).toISOString()}`);
    await wake([client.organization_id]);
    expect(await namesAt(endpoint)).toContain('Waits');
  });

  it('since the second of an event sends that event', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await rename(client, 'Sent');
    await wake([client.organization_id]);
    const [delivery] = await deliveriesOf(client, endpoint);
    const { results } = await env.DB.prepare('SELECT created_at FROM audit_events WHERE event_id = ?')
      .bind(delivery?.event_id)
      .all<{ created_at: number }>();
    await env.DB.prepare('UPDATE webhook_endpoints SET cursor_at = ? WHERE endpoint_id = ?')
      .bind(results[0]?.created_at, endpoint.endpoint_id)
      .run();
    const since = new Date((results[0]?.created_at ?? 0) * 1000).toISOString();
    await call(client, 'POST', `${endpoint.path}/replay?since=${since}`);
    await wake([client.organization_id]);
    expect((await namesAt(endpoint)).filter((name) => name === 'Sent')).toHaveLength(2);
  });
});

describe('an endpoint that has failed for five days', () => {
  const fail = (endpoint: Endpoint, since: number) =>
    env.DB.prepare('UPDATE webhook_endpoints SET failing_since = ? WHERE endpoint_id = ?')
      .bind(Math.floor(Date.now() / 1000) - since, endpoint.endpoint_id)
      .run();
  const disablings = async (client: Client) =>
    (await call(client, 'GET', '/api/audit-events?action=webhook_endpoint.disabled')).body;

  it('is disabled once, and not before', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await fail(endpoint, 5 * DAY - 60);
    await disableFailing(env);
    expect(await disablings(client)).toMatchObject({ data: [] });
    await fail(endpoint, 5 * DAY);
    await disableFailing(env);
    await disableFailing(env);
    expect(await disablings(client)).toMatchObject({ pagination: { total_count: 1 } });
  });

  it('is not, if its organization was suspended meanwhile', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await fail(endpoint, 6 * DAY);
    const setStatus = (status: string) =>
      env.DB.prepare('UPDATE organizations SET status = ? WHERE organization_id = ?')
        .bind(status, client.organization_id)
        .run();
    await setStatus('suspended');
    await disableFailing(env);
    await setStatus('active');
    await disableFailing(env);
    expect(await endpointAt(client, endpoint)).toMatchObject({ enabled: true });
  });
});

describe('the answer to a change', () => {
  it('shows the endpoint as the next GET does', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await env.DB.prepare(
      `UPDATE webhook_endpoints SET failing_since = 1, last_error = 'x', updated_at = 1 WHERE endpoint_id = ?`,
    )
      .bind(endpoint.endpoint_id)
      .run();
    for (const [method, path, body] of [
      ['PUT', '', { description: 'Billing' }],
      ['POST', '/test', undefined],
      ['POST', '/rotate-secret', {}],
      ['POST', '/replay?since=2020-01-01T00:00:00Z', undefined],
    ] as const) {
      const answer = await call(client, method, `${endpoint.path}${path}`, body === undefined ? {} : { body });
      const { data } = z.object({ data: z.looseObject({ endpoint: z.unknown().optional() }) }).parse(answer.body);
      expect(data['endpoint'] ?? data).toEqual(await endpointAt(client, endpoint));
    }
  });

  it.each(['url', 'events', 'enabled'])('is a refusal, if %s is null', async (name) => {
    const client = await newClient();
    const endpoint = await createEndpoint(client);
    const answer = await call(client, 'PUT', endpoint.path, { body: { [name]: null, description: 'x' } });
    expect(answer).toMatchObject({ status: 422, body: { errors: [{ path: name }] } });
  });
});
