import { env } from 'cloudflare:workers';
import { afterEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { call, createIntegration, newClient } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import type { Behaviour } from './receiver-server.ts';
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
  sweep,
  verified,
  verifiedEndpoint,
  wake,
} from './receivers.ts';
import type { Endpoint } from './receivers.ts';

const HOUR = 3600;
const DAY = 24 * HOUR;

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** The types of the messages that came after the test. */
const typesAt = async ({ url, secret }: Endpoint) => (await messagesAt(url, secret)).slice(1).map(({ type }) => type);

const namesAt = async ({ url, secret }: Endpoint) =>
  (await messagesAt(url, secret)).flatMap(({ data: { changes } }) => {
    const { name } = z
      .object({ name: z.object({ to: z.string() }).optional() })
      .catch({})
      .parse(changes);
    return name ? [name.to] : [];
  });

/** The consumer and the cron run again and again, each time some hours later. */
async function pass(client: Client, seconds: number, step = HOUR): Promise<void> {
  for (let passed = 0; passed < seconds; passed += step) {
    later(step);
    await wake([client.organization_id]);
  }
}

describe('what is sent', () => {
  it('is the event as the audit trail shows it, signed', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    const integration_id = await createIntegration(client);
    await call(client, 'PUT', `/api/integrations/${integration_id}`, { body: { name: 'Renamed' } });
    await wake([client.organization_id]);

    const { body } = await call(client, 'GET', `/api/audit-events?target_id=${integration_id}`);
    const [created, updated] = z
      .object({ data: z.array(z.looseObject({ event_id: z.string(), created_at: z.string() })) })
      .parse(body).data;
    const [, ...messages] = await messagesAt(endpoint.url, endpoint.secret);
    expect(messages).toEqual([
      {
        id: created?.event_id,
        type: 'integration.created',
        created_at: created?.created_at,
        organization_id: client.organization_id,
        data: { target_id: integration_id, state: created?.['state'], actor: created?.['actor'] },
      },
      {
        id: updated?.event_id,
        type: 'integration.updated',
        created_at: updated?.created_at,
        organization_id: client.organization_id,
        data: {
          target_id: integration_id,
          state: updated?.['state'],
          changes: { name: { from: 'Twilio Production', to: 'Renamed' } },
          actor: updated?.['actor'],
        },
      },
    ]);
  });

  it('is what the endpoint asks for, and nothing about webhooks and reads of credentials', async () => {
    const client = await newClient();
    const all = await verifiedEndpoint(client);
    const some = await verifiedEndpoint(client, { events: ['integration.*', 'api_key.revoked'] });
    const one = await verifiedEndpoint(client, { events: ['integration.deleted'] });
    const integration_id = await createIntegration(client);
    await rename(client, 'Renamed');
    await call(client, 'DELETE', `/api/integrations/${integration_id}`);
    await wake([client.organization_id]);
    expect(await typesAt(all)).toEqual(['integration.created', 'api_key.updated', 'integration.deleted']);
    expect(await typesAt(some)).toEqual(['integration.created', 'integration.deleted']);
    expect(await typesAt(one)).toEqual(['integration.deleted']);
  });

  it('is a refusal too, by its own name', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    const integration_id = await createIntegration(client);
    const number = { phone_number: '+14155550199', provider: 'twilio', integration_id };
    await call(client, 'POST', '/api/phone-numbers?verify=false', { body: number });
    await call(client, 'DELETE', `/api/integrations/${integration_id}`);
    await wake([client.organization_id]);
    expect(await typesAt(endpoint)).toEqual([
      'integration.created',
      'phone_number.imported',
      'integration.delete_refused',
    ]);
  });

  it('is one message for each target of a bulk act', async () => {
    const client = await newClient();
    const integration_id = await createIntegration(client);
    for (const phone_number of ['+14155551001', '+14155551002', '+14155551003']) {
      const body = { provider: 'twilio', integration_id, phone_number };
      await call(client, 'POST', '/api/phone-numbers?verify=false', { body });
    }
    const endpoint = await verifiedEndpoint(client);
    const removing = `/api/integrations/${integration_id}?remove_phone_numbers=true`;
    const { status } = await call(client, 'DELETE', removing);
    expect(status).toBe(200);
    await wake([client.organization_id]);
    expect((await typesAt(endpoint)).toSorted()).toEqual([
      'integration.deleted',
      'phone_number.deleted',
      'phone_number.deleted',
      'phone_number.deleted',
    ]);
  });
});

describe('a new endpoint', () => {
  it('gets a test, and the events since its creation only once it has answered that with 2xx', async () => {
    const client = await newClient();
    await rename(client, 'Before');
    const endpoint = await createEndpoint(client);
    await behave(endpoint.url, 500, 302, 204);
    await rename(client, 'After');
    for (const seconds of [0, 1, 9]) {
      later(seconds);
      await wake([client.organization_id]);
    }
    // It rests between the tests.
    expect((await messagesAt(endpoint.url, endpoint.secret)).map(({ type }) => type)).toEqual([
      'webhook_endpoint.test',
      'webhook_endpoint.test',
    ]);
    expect(await endpointAt(client, endpoint)).toMatchObject({
      verified_at: null,
      last_test: {
        succeeded: false,
        response_status: 302,
        error: 'The answer had status 302. Redirects are not followed.',
      },
    });
    await pass(client, 2 * HOUR);
    expect(await endpointAt(client, endpoint)).toMatchObject({ last_test: { succeeded: true, response_status: 204 } });
    expect(await typesAt(endpoint)).toEqual(['webhook_endpoint.test', 'webhook_endpoint.test', 'api_key.updated']);
    expect(await namesAt(endpoint)).toEqual(['After']);
  });

  it('must answer a test again after its URL has changed', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    const url = newReceiver();
    await behave(url, 500);
    await call(client, 'PUT', endpoint.path, { body: { url } });
    await rename(client, 'Renamed');
    await pass(client, 3 * HOUR);
    const { received } = await logOf(url);
    expect(received.length).toBeGreaterThan(0);
    expect(await typesAt({ ...endpoint, url })).not.toContain('api_key.updated');
    expect(await typesAt(endpoint)).toEqual([]);
  });
});

describe('a receiver that fails', () => {
  const behaviours: [string, Behaviour, number | null, string][] = [
    ['answers 500', 500, 500, 'The answer had status 500.'],
    ['answers 410', 410, 410, 'The answer had status 410.'],
    ['answers 429', 429, 429, 'The answer had status 429.'],
    ['redirects', 'redirect', 307, 'The answer had status 307. Redirects are not followed.'],
    ['cuts the connection', 'cut', null, 'The connection failed.'],
  ];
  it.each(behaviours)('gets the event later, if it %s', async (_, behaviour, response_status, last_error) => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await behave(endpoint.url, behaviour, 200);
    await rename(client, 'Renamed');
    later(0);
    await wake([client.organization_id]);
    expect(await deliveriesOf(client, endpoint)).toMatchObject([
      { event_type: 'api_key.updated', status: 'retrying', attempts: 1, response_status, last_error },
    ]);
    await wake([client.organization_id]);
    expect(await typesAt(endpoint)).toEqual(['api_key.updated']);

    later(10);
    await wake([client.organization_id]);
    const [, first, second, ...others] = await messagesAt(endpoint.url, endpoint.secret);
    expect(second).toEqual(first);
    expect(others).toEqual([]);
    expect(await deliveriesOf(client, endpoint)).toMatchObject([
      { status: 'delivered', attempts: 2, response_status: 200, response_body: 'status 200', last_error: null },
    ]);
    const redirected = await logOf(`${endpoint.url}-redirected`);
    expect(redirected.received).toEqual([]);
  });

  it('is given up after 10 seconds, if it does not answer', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await behave(endpoint.url, 'hang', 200);
    await rename(client, 'Renamed');
    const deadlines: (() => void)[] = [];
    const { setTimeout: wait } = globalThis;
    vi.stubGlobal('setTimeout', (resume: () => void, milliseconds: number) =>
      milliseconds === 10_000 ? deadlines.push(resume) : wait(resume, milliseconds),
    );
    const woken = wake([client.organization_id]);
    await expect.poll(async () => (await logOf(endpoint.url)).received.length, { timeout: 240_000 }).toBe(2);
    expect(await deliveriesOf(client, endpoint)).toEqual([]);
    for (const end of deadlines) end();
    await woken;
    expect(await deliveriesOf(client, endpoint)).toMatchObject([
      { status: 'retrying', response_status: null, last_error: 'There was no answer in 10 seconds.' },
    ]);
  });

  it.each(['cut-body', 'endless'] as const)(
    'has taken the event, if it answers 200 and its body is %s',
    async (body) => {
      const client = await newClient();
      const endpoint = await verifiedEndpoint(client);
      await behave(endpoint.url, body);
      await rename(client, 'Renamed');
      await wake([client.organization_id]);
      const [delivery] = await deliveriesOf(client, endpoint);
      expect(delivery).toMatchObject({ status: 'delivered', attempts: 1, response_status: 200 });
      expect(delivery?.response_body).toBe(body === 'endless' ? 'x'.repeat(1024) : 'taken');
    },
  );

  it('does not hold up the events after the one that fails', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await behave(endpoint.url, 500, 200);
    for (const name of ['First', 'Second', 'Third']) await rename(client, name);
    await wake([client.organization_id]);
    expect(await namesAt(endpoint)).toEqual(['First', 'Second', 'Third']);
    later(10);
    await wake([client.organization_id]);
    expect(await namesAt(endpoint)).toEqual(['First', 'Second', 'Third', 'First']);
  });

  it('rests after three failures in a row, and its events wait without rows', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await behave(endpoint.url, 503);
    const names = Array.from({ length: 80 }, (_, index) => `Name ${index}`);
    for (const name of names) await rename(client, name);
    later(0);
    await wake([client.organization_id]);
    await wake([client.organization_id]);
    expect(await namesAt(endpoint)).toEqual(['Name 0', 'Name 1', 'Name 2']);
    expect(await deliveriesOf(client, endpoint)).toHaveLength(3);
    expect(await endpointAt(client, endpoint)).toMatchObject({ last_error: 'The answer had status 503.' });

    await pass(client, DAY);
    expect((await deliveriesOf(client, endpoint)).length).toBeLessThan(60);
    await behave(endpoint.url, 200);
    await pass(client, 16 * HOUR);
    expect(new Set(await namesAt(endpoint))).toEqual(new Set(names));
    expect(await endpointAt(client, endpoint)).toMatchObject({ failing_since: null, last_error: null });
  });
});

describe('an event that fails for three days', () => {
  it('is dead, with an event of its own, and can be sent once more', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await behave(endpoint.url, 500);
    await rename(client, 'Failing');
    await wake([client.organization_id]);
    // The last of its retries may be due most of a day later.
    await pass(client, 4 * DAY);
    const [delivery] = await deliveriesOf(client, endpoint);
    expect(delivery).toMatchObject({ status: 'dead', next_attempt_at: null, last_error: 'The answer had status 500.' });
    // 5 s, 20 s, 80 s and so on, up to 12 hours.
    expect(delivery?.attempts).toBeGreaterThan(8);
    expect(delivery?.attempts).toBeLessThan(20);
    const { attempts } = delivery ?? {};
    await pass(client, 12 * HOUR);
    expect((await deliveriesOf(client, endpoint))[0]).toMatchObject({ attempts });
    const { text } = await call(client, 'GET', '/api/audit-events?action=webhook_delivery.dead');
    expect(
      z.object({ data: z.array(z.object({ target_id: z.string(), state: z.looseObject({}) })) }).parse(JSON.parse(text))
        .data,
    ).toMatchObject([
      {
        target_id: delivery?.delivery_id,
        state: { event_type: 'api_key.updated', last_error: 'The answer had status 500.', response_body: null },
      },
    ]);

    await behave(endpoint.url, 200);
    const retrying = await call(client, 'POST', `${endpoint.path}/deliveries/${delivery?.delivery_id}/retry`);
    expect(retrying).toMatchObject({ status: 202, body: { data: { status: 'retrying' } } });
    await wake([client.organization_id]);
    expect((await deliveriesOf(client, endpoint))[0]).toMatchObject({ status: 'delivered' });
  });
});

describe('an endpoint that fails for five days', () => {
  it('is disabled, with an event, and its events wait until it is enabled', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await behave(endpoint.url, 'cut');
    for (const name of ['First', 'Second', 'Third', 'Fourth']) await rename(client, name);
    await wake([client.organization_id]);
    await pass(client, 4 * DAY, 2 * HOUR);
    await sweep();
    expect(await endpointAt(client, endpoint)).toMatchObject({ enabled: true });
    later(DAY);
    await sweep();
    expect(await endpointAt(client, endpoint)).toMatchObject({ enabled: false, last_error: 'The connection failed.' });
    const { body } = await call(client, 'GET', '/api/audit-events?action=webhook_endpoint.disabled');
    expect(body).toMatchObject({
      data: [
        {
          target_id: endpoint.endpoint_id,
          actor: { type: 'system' },
          changes: { enabled: { from: true, to: false } },
        },
      ],
    });
    const before = (await logOf(endpoint.url)).received.length;
    await behave(endpoint.url, 200);
    await rename(client, 'While disabled');
    await pass(client, DAY, 4 * HOUR);
    expect((await logOf(endpoint.url)).received).toHaveLength(before);

    await call(client, 'PUT', endpoint.path, { body: { enabled: true } });
    await pass(client, DAY, 4 * HOUR);
    expect(await namesAt(endpoint)).toContain('Fourth');
    expect(await namesAt(endpoint)).toContain('While disabled');
  });
});

describe('a secret that was rotated', () => {
  it('signs until the overlap ends, together with the new one', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    const { body } = await call(client, 'POST', `${endpoint.path}/rotate-secret`, { body: { overlap_seconds: HOUR } });
    const { secret } = z.object({ data: z.object({ secret: z.string() }) }).parse(body).data;
    expect(secret).not.toBe(endpoint.secret);
    await rename(client, 'During the overlap');
    await wake([client.organization_id]);
    expect(await namesAt(endpoint)).toEqual(['During the overlap']);
    const { received } = await logOf(endpoint.url);
    expect(received.slice(1).map((one) => verified(one, secret).type)).toEqual(['api_key.updated']);

    later(HOUR);
    await rename(client, 'After the overlap');
    await wake([client.organization_id]);
    const last = (await logOf(endpoint.url)).received.at(-1);
    if (!last) throw new Error('nothing was received');
    expect(verified(last, secret).type).toBe('api_key.updated');
    expect(() => verified(last, endpoint.secret)).toThrow('No matching signature found');
    await sweep();
    const { results } = await env.DB.prepare('SELECT ends_at FROM webhook_secrets WHERE endpoint_id = ?')
      .bind(endpoint.endpoint_id)
      .all();
    expect(results).toEqual([{ ends_at: null }]);
  });
});

describe('a secret that was rotated twice within the overlap', () => {
  const rotate = async (client: Client, { path }: Endpoint, overlap_seconds: number) => {
    const { body } = await call(client, 'POST', `${path}/rotate-secret`, { body: { overlap_seconds } });
    return z.object({ data: z.object({ secret: z.string() }) }).parse(body).data.secret;
  };
  const lastOf = async (endpoint: Endpoint) => {
    const { received } = await logOf(endpoint.url);
    const last = received.at(-1);
    if (!last) throw new Error('nothing was received');
    return last;
  };

  it('still signs, because the answer to the first rotation may have been lost', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await rotate(client, endpoint, HOUR);
    const third = await rotate(client, endpoint, HOUR);
    await rename(client, 'Renamed');
    await wake([client.organization_id]);
    const last = await lastOf(endpoint);
    expect(verified(last, endpoint.secret)).toEqual(verified(last, third));
    expect(last.headers['webhook-signature']?.split(' ')).toHaveLength(3);

    await rotate(client, endpoint, HOUR);
    await rename(client, 'Renamed again');
    await wake([client.organization_id]);
    expect((await lastOf(endpoint)).headers['webhook-signature']?.split(' ')).toHaveLength(3);
  });

  it('signs no more, if a rotation has no overlap', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    const second = await rotate(client, endpoint, HOUR);
    const third = await rotate(client, endpoint, 0);
    await rename(client, 'Renamed');
    await wake([client.organization_id]);
    const last = await lastOf(endpoint);
    expect(verified(last, third).type).toBe('api_key.updated');
    for (const old of [endpoint.secret, second]) expect(() => verified(last, old)).toThrow('No matching signature');
  });
});

describe('an organization', () => {
  const setStatus = (client: Client, status: string) =>
    env.DB.prepare('UPDATE organizations SET status = ? WHERE organization_id = ?')
      .bind(status, client.organization_id)
      .run();

  it('gets nothing while it is suspended, and all of it when it is resumed', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await rename(client, 'Before');
    await setStatus(client, 'suspended');
    await wake([client.organization_id]);
    await sweep();
    expect(await namesAt(endpoint)).toEqual([]);
    await setStatus(client, 'active');
    await wake([client.organization_id]);
    expect(await namesAt(endpoint)).toEqual(['Before']);
  });

  it('loses its endpoints, secrets and deliveries when it is offboarded', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await behave(endpoint.url, 500);
    await rename(client, 'Before');
    await wake([client.organization_id]);
    await env.DB.prepare(`UPDATE organizations SET status = 'offboarded', is_offboarding = 1 WHERE organization_id = ?`)
      .bind(client.organization_id)
      .run();
    await sweep();
    later(HOUR);
    await wake([client.organization_id]);
    expect((await logOf(endpoint.url)).received).toHaveLength(2);
    for (const table of ['webhook_endpoints', 'webhook_secrets', 'webhook_deliveries']) {
      const { results } = await env.DB.prepare(`SELECT * FROM ${table} WHERE organization_id = ?`)
        .bind(client.organization_id)
        .all();
      expect(results).toEqual([]);
    }
    const { results } = await env.DB.prepare(
      'SELECT status, is_offboarding FROM organizations WHERE organization_id = ?',
    )
      .bind(client.organization_id)
      .all();
    expect(results).toEqual([{ status: 'offboarded', is_offboarding: 0 }]);
  });
});

describe('turns', () => {
  it('are one at a time for an endpoint, however many wake-ups there are', async () => {
    const client = await newClient();
    const endpoints = [];
    for (let count = 0; count < 6; count += 1) endpoints.push(await verifiedEndpoint(client));
    const names = Array.from({ length: 5 }, (_, index) => `Name ${index}`);
    for (const name of names) await rename(client, name);
    await Promise.all([wake([client.organization_id]), wake([client.organization_id]), wake([client.organization_id])]);
    for (const endpoint of endpoints) {
      expect(await namesAt(endpoint)).toEqual(names);
      expect((await logOf(endpoint.url)).most).toBe(1);
    }
  });

  it('go on by themselves, as long as there is something to send', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    const names = Array.from({ length: 40 }, (_, index) => `Name ${index}`);
    for (const name of names) await rename(client, name);
    const woken: unknown[] = [];
    const bindings = { ...env, WEBHOOK_WAKEUPS: notingQueue(woken) };
    await wake([client.organization_id], bindings);
    expect(await namesAt(endpoint)).toEqual(names.slice(0, 13));
    for (let turn = 0; turn < 3; turn += 1) await wake([client.organization_id], bindings);
    expect(await namesAt(endpoint)).toEqual(names);
    const { organization_id } = client;
    const { endpoint_id } = endpoint;
    expect(woken).toEqual(Array.from({ length: 3 }, () => ({ organization_id, endpoint_id })));
  });

  it('are woken by the cron, if a wake-up was lost', async () => {
    const client = await newClient();
    await verifiedEndpoint(client);
    const idle = await newClient();
    await verifiedEndpoint(idle);
    await rename(client, 'Renamed');
    await wake([idle.organization_id]);
    const woken: unknown[] = [];
    await sweep({ ...env, WEBHOOK_WAKEUPS: notingQueue(woken) });
    expect(woken).toContainEqual({ organization_id: client.organization_id });
    expect(woken).not.toContainEqual({ organization_id: idle.organization_id });
  });

  it('are not held up by the dead endpoint of another organization, with 10,000 events that wait', async () => {
    const dead = await newClient();
    const deadEndpoint = await verifiedEndpoint(dead);
    await behave(deadEndpoint.url, 'cut');
    await env.DB.prepare(
      `INSERT INTO audit_events (organization_id, event_id, action, target_id, request_id, state, created_at, sequence)
       WITH RECURSIVE numbered(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbered WHERE n < 10000)
       SELECT organization_id, printf('%08x-0000-7000-8000-000000000000', n), 'api_key.updated', target_id, request_id, state,
         created_at, (SELECT last_sequence FROM organizations o WHERE o.organization_id = audit_events.organization_id) + n
       FROM numbered CROSS JOIN audit_events WHERE organization_id = ? AND action = 'api_key.created'`,
    )
      .bind(dead.organization_id)
      .run();
    await env.DB.prepare('UPDATE organizations SET last_sequence = last_sequence + 10000 WHERE organization_id = ?')
      .bind(dead.organization_id)
      .run();
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await env.DB.prepare(
      `INSERT INTO organizations (organization_id, tier, created_at, last_event_at, last_sequence)
       WITH RECURSIVE numbered(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbered WHERE n < 998)
       SELECT 'org_other_' || n, 'starter', 0, 1, 1 FROM numbered`,
    ).run();
    await env.DB.prepare(
      `INSERT INTO webhook_endpoints (organization_id, endpoint_id, url, events, enabled, created_at, updated_at, verified_at,
         cursor_at, cursor_sequence)
       SELECT organization_id, 'whep_' || substr('000000000000' || organization_id, -12), 'https://hooks.example.com/', '["*"]',
         1, 0, 0, 1, 0, 0 FROM organizations WHERE organization_id GLOB 'org_other_*'`,
    ).run();
    await rename(client, 'Renamed');
    await pass(dead, 5 * HOUR);
    later(2 * HOUR);
    const woken: unknown[] = [];
    await sweep({ ...env, WEBHOOK_WAKEUPS: notingQueue(woken) });
    expect(woken).toContainEqual({ organization_id: dead.organization_id });
    expect(woken).toContainEqual({ organization_id: client.organization_id });
    expect(woken.length).toBeGreaterThan(900);
    // Each message is an invocation of its own: that of the dead endpoint first, and it is not over yet.
    const deadTurn = wake([dead.organization_id]);
    await wake([client.organization_id]);
    expect(await namesAt(endpoint)).toEqual(['Renamed']);
    await deadTurn;
    expect((await deliveriesOf(dead, deadEndpoint)).length).toBeLessThan(40);
  });
});
