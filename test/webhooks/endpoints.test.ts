import { env } from 'cloudflare:workers';
import { afterEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { rewrapDataKeys } from '../../src/worker/credentials/rewrap.ts';
import { call, newClient } from '../fixtures.ts';
import {
  behave,
  createEndpoint,
  deliveriesOf,
  endpointAt,
  later,
  logOf,
  messagesAt,
  newReceiver,
  rename,
  sweep,
  verifiedEndpoint,
  wake,
} from './receivers.ts';

afterEach(() => vi.useRealTimers());

const creation = (changes: object = {}) => ({ body: { url: newReceiver(), events: ['*'], ...changes } });

describe('POST /api/webhook-endpoints', () => {
  it('answers with the endpoint and, once, with its secret', async () => {
    const client = await newClient();
    const url = newReceiver();
    const request = {
      headers: { 'Idempotency-Key': 'create-once' },
      body: { url, events: ['integration.*', 'phone_number.deleted'], description: 'Billing' },
    };
    const first = await call(client, 'POST', '/api/webhook-endpoints', request);
    expect(first).toMatchObject({
      status: 201,
      body: {
        success: true,
        message: 'Webhook endpoint created successfully',
        data: {
          secret: expect.stringMatching(/^whsec_[A-Za-z0-9+/]{43}=$/),
          endpoint: {
            endpoint_id: expect.stringMatching(/^whep_[a-f0-9]{12}$/),
            client_id: client.organization_id,
            url,
            description: 'Billing',
            events: ['integration.*', 'phone_number.deleted'],
            enabled: true,
            verified_at: null,
            last_test: null,
            last_delivered_at: null,
            failing_since: null,
            last_error: null,
          },
        },
      },
    });
    const again = await call(client, 'POST', '/api/webhook-endpoints', request);
    const { data } = z.object({ data: z.object({ secret: z.string(), endpoint: z.unknown() }) }).parse(first.body);
    expect(again).toMatchObject({ status: 201, body: { data: { endpoint: data.endpoint } } });
    expect(again.text).not.toContain('whsec_');
    const listed = await call(client, 'GET', '/api/webhook-endpoints');
    expect(listed.body).toMatchObject({ data: [data.endpoint], pagination: { total_count: 1 } });
    expect(listed.text).not.toContain('whsec_');
  });

  it('stores no secret that can be read without the key-encryption key', async () => {
    const client = await newClient();
    const { secret, endpoint_id } = await createEndpoint(client);
    const tables = ['webhook_endpoints', 'webhook_secrets', 'audit_events', 'idempotency_keys'];
    for (const table of tables) {
      const { results } = await env.DB.prepare(`SELECT * FROM ${table}`).all();
      const stored = JSON.stringify(results);
      expect(stored).not.toContain(secret);
      expect(stored).not.toContain(secret.slice('whsec_'.length));
    }
    const { results } = await env.DB.prepare('SELECT kek_id FROM webhook_secrets WHERE endpoint_id = ?')
      .bind(endpoint_id)
      .all();
    expect(results).toEqual([{ kek_id: 'k1' }]);
  });

  it.each([
    ['no url', { url: undefined }, 'url'],
    ['no events', { events: undefined }, 'events'],
    ['an empty list of events', { events: [] }, 'events'],
    ['an event that there is not', { events: ['integration.exploded'] }, 'events.0'],
    ['reads of credentials', { events: ['credentials.read'] }, 'events.0'],
    ['events about webhooks', { events: ['webhook_endpoint.*'] }, 'events.0'],
    ['an event twice', { events: ['*', '*'] }, 'events'],
    ['events that are no list', { events: '*' }, 'events'],
    ['a long description', { description: 'x'.repeat(201) }, 'description'],
    ['a description that cannot be seen', { description: '\u200b' }, 'description'],
    ['enabled as a word', { enabled: 'yes' }, 'enabled'],
    ['a long URL', { url: `https://hooks.example.com/${'x'.repeat(2048)}` }, 'url'],
    ['a secret of its own', { secret: 'whsec_AAAA' }, 'secret'],
  ])('refuses %s', async (_, changes, path) => {
    const client = await newClient();
    const answer = await call(client, 'POST', '/api/webhook-endpoints', creation(changes));
    expect(answer).toMatchObject({ status: 422, body: { code: 'validation_failed', errors: [{ path }] } });
    expect((await call(client, 'GET', '/api/webhook-endpoints')).body).toMatchObject({ data: [] });
  });

  it('refuses the eleventh, also of several at once, and there is room again after a deletion', async () => {
    const client = await newClient();
    const answers = await Promise.all(
      Array.from({ length: 14 }, () => call(client, 'POST', '/api/webhook-endpoints', creation())),
    );
    const created = answers.filter(({ status }) => status === 201);
    const full = answers.filter(({ status }) => status === 409);
    expect([created.length, full.length]).toEqual([10, 4]);
    expect(full[0]).toMatchObject({
      body: {
        code: 'quota_exceeded',
        quota: 'webhook_endpoints',
        limit: 10,
        detail: 'The organization has reached its limit of 10 webhook endpoints. Deleting and revoking still work.',
      },
    });
    const { body } = await call(client, 'GET', '/api/webhook-endpoints');
    const { data } = z.object({ data: z.array(z.object({ endpoint_id: z.string() })) }).parse(body);
    expect(data).toHaveLength(10);
    await call(client, 'DELETE', `/api/webhook-endpoints/${data[0]?.endpoint_id}`);
    expect(await call(client, 'POST', '/api/webhook-endpoints', creation())).toMatchObject({ status: 201 });
  });

  it('is sent nothing, not even a test, if it is created disabled', async () => {
    const client = await newClient();
    const { body } = await call(client, 'POST', '/api/webhook-endpoints', creation({ enabled: false }));
    expect(body).toMatchObject({ data: { endpoint: { enabled: false } } });
    const { url } = z.object({ data: z.object({ endpoint: z.object({ url: z.string() }) }) }).parse(body).data.endpoint;
    await wake([client.organization_id]);
    expect((await logOf(url)).received).toEqual([]);
  });
});

describe('who may', () => {
  const routes: [string, string][] = [
    ['POST', ''],
    ['GET', ''],
    ['GET', '/ID'],
    ['PUT', '/ID'],
    ['DELETE', '/ID'],
    ['POST', '/ID/rotate-secret'],
    ['POST', '/ID/test'],
    ['POST', '/ID/replay?since=2020-01-01T00:00:00Z'],
    ['GET', '/ID/deliveries'],
    ['POST', '/ID/deliveries/whdel_000000000000/retry'],
  ];
  const bodies: Record<string, object> = {
    POST: creation().body,
    PUT: { description: 'Other' },
    '/ID/rotate-secret': {},
  };
  const bodyOf = (method: string, path: string) =>
    path === '/ID/rotate-secret' ? {} : path === '' || path === '/ID' ? bodies[method] : undefined;

  it.each(routes)('%s %s: only an admin', async (method, path) => {
    const admin = await newClient();
    const endpoint = await createEndpoint(admin);
    for (const role of ['agent_manager', 'user'] as const) {
      const client = await newClient({ organization_id: admin.organization_id, role });
      const target = `/api/webhook-endpoints${path.replace('ID', endpoint.endpoint_id)}`;
      const body = bodyOf(method, path);
      const answer = await call(client, method, target, method === 'GET' || body === undefined ? {} : { body });
      expect(answer).toMatchObject({ status: 403, body: { code: 'permission_denied' } });
    }
    expect(await endpointAt(admin, endpoint)).toMatchObject({ url: endpoint.url, description: null });
  });

  it.each(routes.filter(([, path]) => path !== ''))('%s %s: nobody of another organization', async (method, path) => {
    const owner = await newClient();
    const endpoint = await verifiedEndpoint(owner);
    await rename(owner, 'Renamed');
    const other = await newClient();
    const body = bodyOf(method, path);
    const ask = (id: string) =>
      call(
        other,
        method,
        `/api/webhook-endpoints${path.replace('ID', id)}`,
        method === 'GET' || body === undefined ? {} : { body },
      );
    const [another, missing] = [await ask(endpoint.endpoint_id), await ask('whep_000000000000')];
    expect(another).toMatchObject({ status: 404, body: { code: 'webhook_endpoint_not_found' } });
    const told = ({ text }: { text: string }) => text.replace(/"request_id":"[^"]*"/, '');
    expect(told(another)).toBe(told(missing));
    await wake([other.organization_id]);
    expect((await logOf(endpoint.url)).received).toHaveLength(1);
    await wake([owner.organization_id]);
    expect((await logOf(endpoint.url)).received).toHaveLength(2);
  });
});

describe('PUT', () => {
  it('changes what it names, and a null description takes it away', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await call(client, 'PUT', endpoint.path, { body: { description: 'Billing', events: ['integration.*'] } });
    expect(await endpointAt(client, endpoint)).toMatchObject({ description: 'Billing', events: ['integration.*'] });
    const answer = await call(client, 'PUT', endpoint.path, { body: { description: null } });
    expect(answer).toMatchObject({ status: 200, body: { data: { description: null, events: ['integration.*'] } } });
    expect(await endpointAt(client, endpoint)).toMatchObject({ description: null, verified_at: expect.any(String) });
  });

  it('refuses a change of nothing', async () => {
    const client = await newClient();
    const endpoint = await createEndpoint(client);
    expect(await call(client, 'PUT', endpoint.path, { body: {} })).toMatchObject({ status: 422 });
  });
});

describe('tests and replays', () => {
  // Once more, if a minute of the limiter ends in between.
  it('are ten a minute for an organization, whatever its endpoints are', { retry: 3 }, async () => {
    const client = await newClient();
    const [one, other] = [await createEndpoint(client), await createEndpoint(client)];
    const answers = [];
    for (let count = 0; count < 11; count += 1) {
      const path = count % 2 === 0 ? `${one.path}/test` : `${other.path}/replay?since=2020-01-01T00:00:00Z`;
      answers.push(await call(client, 'POST', path));
    }
    expect(answers.map(({ status }) => status)).toEqual([200, 202, 200, 202, 200, 202, 200, 202, 200, 202, 429]);
    const refused = answers.at(-1);
    expect(refused?.body).toMatchObject({ code: 'rate_limited' });
    expect(refused?.headers.get('RateLimit')).toBe('"webhook_tests";r=0');
    expect(refused?.headers.get('RateLimit-Policy')).toContain('"webhook_tests";q=10;w=60');
    expect((await logOf(one.url)).received).toHaveLength(5);
    // Those that endpoints get by themselves are among them.
    const late = await createEndpoint(client);
    await wake([client.organization_id]);
    expect((await logOf(late.url)).received).toEqual([]);
  });

  it('are not taken from an organization by who has no valid key', async () => {
    const client = await newClient();
    const endpoint = await createEndpoint(client);
    for (let count = 0; count < 12; count += 1) {
      const stranger = { ...client, raw_key: `${client.raw_key.slice(0, -1)}${count % 10}` };
      await call(stranger, 'POST', `${endpoint.path}/replay?since=2020-01-01T00:00:00Z`);
    }
    expect(await call(client, 'POST', `${endpoint.path}/test`)).toMatchObject({ status: 200 });
  });

  it('of a test tell what came of it, and a repeat under the same Idempotency-Key sends none', async () => {
    const client = await newClient();
    const endpoint = await createEndpoint(client);
    await behave(endpoint.url, 403, 200);
    const refused = await call(client, 'POST', `${endpoint.path}/test`);
    expect(refused).toMatchObject({
      status: 200,
      body: {
        message: 'Webhook endpoint did not answer the test with 2xx',
        data: { verified_at: null, last_test: { succeeded: false, response_status: 403 } },
      },
    });
    const headers = { 'Idempotency-Key': 'test-once' };
    const taken = await call(client, 'POST', `${endpoint.path}/test`, { headers });
    expect(taken.body).toMatchObject({ data: { verified_at: expect.any(String), last_test: { succeeded: true } } });
    const again = await call(client, 'POST', `${endpoint.path}/test`, { headers });
    expect(again.headers.get('Idempotency-Replayed')).toBe('true');
    expect(again.body).toEqual(taken.body);
    expect((await logOf(endpoint.url)).received).toHaveLength(2);
  });

  it('of a replay send the events since a time once more, with the same ids', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await rename(client, 'First');
    await wake([client.organization_id]);
    const answer = await call(client, 'POST', `${endpoint.path}/replay?since=2020-01-01T00:00:00Z`);
    expect(answer).toMatchObject({ status: 202, body: { data: { delivered_until: '2020-01-01T00:00:00Z' } } });
    await wake([client.organization_id]);
    const [, first, ...replayed] = await messagesAt(endpoint.url, endpoint.secret);
    expect(replayed.map(({ type }) => type)).toEqual(['api_key.created', 'api_key.updated']);
    expect(replayed[1]).toEqual(first);
  });

  it.each(['2999-01-01T00:00:00Z', 'yesterday', ''])('of a replay since "%s" are refused', async (since) => {
    const client = await newClient();
    const endpoint = await createEndpoint(client);
    const answer = await call(client, 'POST', `${endpoint.path}/replay?since=${since}`);
    expect(answer).toMatchObject({ status: 422, body: { errors: [{ path: 'since' }] } });
  });
});

describe('deliveries', () => {
  it('are the failures and the last ten successes, and can be filtered', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await behave(endpoint.url, 500, 200);
    for (let count = 0; count < 13; count += 1) await rename(client, `Name ${count}`);
    await wake([client.organization_id]);
    const deliveries = await deliveriesOf(client, endpoint);
    expect(deliveries.map(({ status }) => status).toSorted()).toEqual([
      ...Array.from({ length: 10 }, () => 'delivered'),
      'retrying',
    ]);
    const { body } = await call(client, 'GET', `${endpoint.path}/deliveries?status=retrying`);
    expect(body).toMatchObject({ data: [{ status: 'retrying' }], pagination: { total_count: 1 } });
    expect(await call(client, 'GET', `${endpoint.path}/deliveries?status=lost`)).toMatchObject({ status: 422 });
  });

  it('are kept for seven days', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await rename(client, 'Renamed');
    await wake([client.organization_id]);
    later(7 * 86_400 - 60);
    await sweep();
    expect(await deliveriesOf(client, endpoint)).toHaveLength(1);
    later(120);
    await sweep();
    expect(await deliveriesOf(client, endpoint)).toEqual([]);
  });

  it('are retried one by one, and a delivery that there is not is a 404', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await rename(client, 'Renamed');
    await wake([client.organization_id]);
    const [delivery] = await deliveriesOf(client, endpoint);
    const missing = await call(client, 'POST', `${endpoint.path}/deliveries/whdel_000000000000/retry`);
    expect(missing).toMatchObject({ status: 404, body: { code: 'webhook_delivery_not_found' } });
    const ofAnother = await verifiedEndpoint(client);
    const crossed = await call(client, 'POST', `${ofAnother.path}/deliveries/${delivery?.delivery_id}/retry`);
    expect(crossed).toMatchObject({ status: 404, body: { code: 'webhook_delivery_not_found' } });
    await call(client, 'POST', `${endpoint.path}/deliveries/${delivery?.delivery_id}/retry`);
    await wake([client.organization_id]);
    const [, first, second] = await messagesAt(endpoint.url, endpoint.secret);
    expect(second).toEqual(first);
    expect(await deliveriesOf(client, endpoint)).toMatchObject([{ status: 'delivered', attempts: 2 }]);
  });

  it('are at most 500 that are tried again; the next that fails waits behind the cursor', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await env.DB.prepare(
      `INSERT INTO webhook_deliveries (organization_id, delivery_id, endpoint_id, event_id, event_type, status, attempts,
         created_at, attempted_at, next_attempt_at, duration_ms)
       WITH RECURSIVE numbered(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbered WHERE n < 500)
       SELECT ?, printf('whdel_%012x', n), ?, printf('018d0cab-0000-7000-8000-%012x', n), 'api_key.updated', 'retrying', 1, 0, 0, 9999999999, 0
       FROM numbered`,
    )
      .bind(client.organization_id, endpoint.endpoint_id)
      .run();
    await behave(endpoint.url, 500, 200);
    await rename(client, 'Waits');
    await wake([client.organization_id]);
    const { body } = await call(client, 'GET', `${endpoint.path}/deliveries`);
    expect(body).toMatchObject({ pagination: { total_count: 500 } });
    later(3600);
    await wake([client.organization_id]);
    expect((await messagesAt(endpoint.url, endpoint.secret)).map(({ type }) => type)).toEqual([
      'webhook_endpoint.test',
      'api_key.updated',
      'api_key.updated',
    ]);
    expect((await deliveriesOf(client, endpoint))[0]).toMatchObject({ status: 'delivered' });
  });
});

describe('a secret', () => {
  it('is wrapped anew by a rotation of the key-encryption keys, and signs as before', async () => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    const ring = z.object({ keys: z.record(z.string(), z.string()) }).parse(JSON.parse(env.CREDENTIALS_KEKS));
    const second = btoa('a second KEK of the same length!');
    const both = { ...env, CREDENTIALS_KEKS: JSON.stringify({ current: 'k2', keys: { ...ring.keys, k2: second } }) };
    await rewrapDataKeys(both);
    const { results } = await env.DB.prepare('SELECT DISTINCT kek_id FROM webhook_secrets').all();
    expect(results).toEqual([{ kek_id: 'k2' }]);
    const alone = { ...env, CREDENTIALS_KEKS: JSON.stringify({ current: 'k2', keys: { k2: second } }) };
    await rename(client, 'Renamed');
    await wake([client.organization_id], alone);
    expect(await messagesAt(endpoint.url, endpoint.secret)).toHaveLength(2);
    await rewrapDataKeys({
      ...both,
      CREDENTIALS_KEKS: JSON.stringify({ current: 'k1', keys: { ...ring.keys, k2: second } }),
    });
  });
});
