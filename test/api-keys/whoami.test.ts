import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { roles } from '../../src/worker/core/vocabulary.ts';
import { countedBindings, interceptedBindings, laggingBindings } from '../bindings.ts';
import { call, changeKey, everythingKept, newClient, newOperator, start } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { createCustomer, setStatus } from '../operations.ts';

const PATH = '/api/whoami';

let client: Client;

beforeEach(async () => {
  client = await newClient({ tier: 'pro' });
  await call(client, 'GET', '/api/nothing');
});

afterEach(() => vi.useRealTimers());

const alone = { 'X-Organization-Id': null };
const ask = (by = client, headers: Record<string, string | null> = alone) => call(by, 'GET', PATH, { headers });

describe('who has but an API key', () => {
  it('is told its organization, with its limits, and what the key is and may', async () => {
    const { status, body } = await ask();

    expect(status).toBe(200);
    expect(body).toEqual({
      success: true,
      data: {
        organization: {
          client_id: client.organization_id,
          name: null,
          tier: 'pro',
          status: 'active',
          created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
          limits: {
            integrations: expect.any(Number),
            phone_numbers: expect.any(Number),
            unconfirmed_numbers: expect.any(Number),
            api_keys: expect.any(Number),
            audit_events: expect.any(Number),
          },
          rate_limits: { period_seconds: 10, requests: 500, mutations: 100 },
        },
        key: {
          key_id: client.key_id,
          name: 'Test',
          role: 'admin',
          permissions: expect.arrayContaining(['integrations:delete', 'audit:read']),
          user_id: 'user_operator',
          expires_at: null,
        },
      },
    });
  });

  it.each([
    ['admin', 18],
    ['agent_manager', 13],
    ['user', 2],
  ] as const)('as %s is told its %i permissions, which are what it may do', async (role, count) => {
    expect(roles).toContain(role);
    const holder = await newClient({ organization_id: client.organization_id, tier: 'pro', role });

    const { permissions } = Object(Object(await ask(holder)).body).data.key;

    expect(permissions).toHaveLength(count);
    const audit = await call(holder, 'GET', '/api/audit-events');
    expect(permissions.includes('audit:read')).toBe(audit.status === 200);
  });

  it('is told when the key ends', async () => {
    const expiring = await newClient({ expires_at: Date.parse('2099-01-15T10:30:00Z') / 1000 });

    expect((await ask(expiring)).body).toMatchObject({ data: { key: { expires_at: '2099-01-15T10:30:00Z' } } });
  });

  it('is told the limits that an operator has set, in place of those of the tier', async () => {
    const before = Object(Object(await ask()).body).data.organization.limits;
    await env.DB.prepare('UPDATE organizations SET max_integrations = 7, max_api_keys = 0 WHERE organization_id = ?')
      .bind(client.organization_id)
      .run();

    const { limits } = Object(Object(await ask()).body).data.organization;

    expect(limits).toEqual({ ...before, integrations: 7, api_keys: 0 });
  });

  it('is told the name that an operator gave, and never the metadata', async () => {
    const customer = await createCustomer(await newOperator(), { name: 'Straße', metadata: { crm: '4711' } });

    const { body, text } = await ask(customer);

    expect(body).toMatchObject({ data: { organization: { name: 'Straße', tier: 'starter' } } });
    expect(text).not.toMatch(/metadata|4711/);
  });

  it('is told nothing of hashes, counters or salts', async () => {
    expect((await ask()).text).not.toMatch(/hash|salt|count|sequence|prefix|raw_key|revision/);
  });
});

describe('the organization of whoami', () => {
  it('may be named, and must be the key’s then', async () => {
    const { organization_id } = client;

    expect((await ask(client, { 'X-Organization-Id': organization_id })).status).toBe(200);
    expect(await ask(client, { 'X-Organization-Id': 'org_other' })).toMatchObject({
      status: 403,
      body: { code: 'organization_mismatch' },
    });
    expect(await ask(client, { 'X-Organization-Id': 'acme' })).toMatchObject({
      status: 400,
      body: { code: 'invalid_organization_id' },
    });
    expect(await ask(client, { 'X-Organization-Id': '' })).toMatchObject({
      status: 400,
      body: { code: 'missing_organization_id' },
    });
  });

  it.each(['/api/integrations', '/api/whoami/', '/api/whoami/x', '/api/Whoami', '/api/nothing', '/api/api-keys'])(
    'must be named everywhere else: %s',
    async (path) => {
      expect(await call(client, 'GET', path, { headers: alone })).toMatchObject({
        status: 400,
        body: { code: 'missing_organization_id' },
      });
    },
  );
});

describe('whoami', () => {
  it('is a 401 without a key, and by any but a living API key', async () => {
    const operator = await newOperator();
    const dead = await newClient();
    await changeKey(dead, `status = 'revoked'`);
    const suspended = await newClient();
    await setStatus(suspended.organization_id, 'suspended');
    const before = await everythingKept();

    const answers = [
      await ask(client, { ...alone, 'X-API-Key': null }),
      await ask(client, { ...alone, 'X-API-Key': null, Authorization: `Bearer ${client.raw_key}` }),
      await ask(client, { ...alone, 'X-API-Key': null, Authorization: `Bearer ${operator.raw_key}` }),
      await ask(client, { ...alone, 'X-API-Key': operator.raw_key }),
      await ask(dead),
      await ask(suspended),
    ];

    expect(answers.map(({ status, body }) => [status, Object(body).code])).toEqual([
      [401, 'missing_api_key'],
      [401, 'missing_api_key'],
      [401, 'missing_api_key'],
      [401, 'invalid_api_key'],
      [401, 'invalid_api_key'],
      [401, 'invalid_api_key'],
    ]);
    for (const { text } of answers) expect(text).not.toContain('org_');
    expect(await everythingKept()).toEqual(before);
  });

  it('changes nothing that is stored, and is one batch that reads one row', async () => {
    const { bindings, calls } = countedBindings();
    let rowsRead = 0;
    const counting = interceptedBindings(async (_, carryOut) => {
      const result = await carryOut();
      if (Array.isArray(result)) for (const { meta } of result) rowsRead += meta.rows_read;
      return result;
    });
    const before = await everythingKept();

    await start(client, 'GET', PATH, { headers: alone, bindings });
    await start(client, 'GET', PATH, { headers: alone, bindings: counting });

    expect(calls).toEqual(['DB.batch']);
    expect(rowsRead).toBe(1);
    expect(await everythingKept()).toEqual(before);
  });

  it('knows an organization that the nearest replica does not know yet', async () => {
    const { bindings, asked } = laggingBindings();
    await call(client, 'GET', PATH, { headers: alone, bindings });
    const answers = new Map<string, unknown>();
    const empty = interceptedBindings((_, carryOut) => carryOut());
    const behind = new Proxy(empty.DB, {
      get(database, name) {
        if (name !== 'withSession') return Reflect.get(database, name);
        return (constraint: string) => {
          answers.set(constraint, true);
          const session = database.withSession(constraint);
          if (constraint !== 'first-unconstrained') return session;
          return new Proxy(session, {
            get: (found, method) =>
              method === 'batch'
                ? async (statements: D1PreparedStatement[]) =>
                    (await database.batch(statements)).map((result) => ({ ...result, results: [] }))
                : Reflect.get(found, method),
          });
        };
      },
    });

    const { status, body } = await call(client, 'GET', PATH, { headers: alone, bindings: { ...empty, DB: behind } });

    expect(asked).toEqual(['first-unconstrained']);
    expect([...answers.keys()]).toEqual(['first-unconstrained', 'first-primary']);
    expect(status).toBe(200);
    expect(body).toMatchObject({ data: { organization: { client_id: client.organization_id } } });
  });

  it.each(['POST', 'PUT', 'DELETE'])('is a GET alone: %s is a 405', async (method) => {
    const { status, headers } = await call(client, method, PATH);

    expect([status, headers.get('Allow')]).toEqual([405, 'GET, HEAD']);
  });

  it('takes no parameters', async () => {
    expect(await call(client, 'GET', `${PATH}?organization_id=org_other`, { headers: alone })).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'organization_id', message: '`organization_id` is not a known parameter' }] },
    });
  });

  it('is limited as every call of the organization', async () => {
    const { headers } = await ask();

    expect(headers.get('RateLimit-Policy')).toBe('"pro";q=500;w=10');
  });
});
