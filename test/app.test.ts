import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { app } from '../src/worker/app.ts';
import { newRawKey } from '../src/worker/callers/raw-key.ts';
import { roles } from '../src/worker/core/vocabulary.ts';
import type { Role } from '../src/worker/core/vocabulary.ts';
import { beginsRoute } from '../src/worker/http/route.ts';
import {
  call,
  createIntegration,
  emptyStorage,
  everythingStored,
  importNumber,
  newClient,
  newOperator,
  resources,
  twilio,
  unusedNumber,
} from './fixtures.ts';
import type { Answer, Client } from './fixtures.ts';
import { deadDelivery } from './mutations.ts';

/** The contract's word on who may do what. */
const rolesHolding: Record<string, readonly string[]> = {
  'integrations:create': ['admin', 'agent_manager'],
  'integrations:read': ['admin', 'agent_manager', 'user'],
  'integrations:update': ['admin', 'agent_manager'],
  'integrations:delete': ['admin', 'agent_manager'],
  'phone_numbers:create': ['admin', 'agent_manager'],
  'phone_numbers:read': ['admin', 'agent_manager', 'user'],
  'phone_numbers:update': ['admin', 'agent_manager'],
  'phone_numbers:delete': ['admin', 'agent_manager'],
  'api_keys:create': ['admin', 'agent_manager'],
  'api_keys:read': ['admin', 'agent_manager'],
  'api_keys:update': ['admin', 'agent_manager'],
  'api_keys:rotate': ['admin', 'agent_manager'],
  'api_keys:revoke': ['admin', 'agent_manager'],
  'audit:read': ['admin'],
  'webhooks:create': ['admin'],
  'webhooks:read': ['admin'],
  'webhooks:update': ['admin'],
  'webhooks:delete': ['admin'],
};

const everyRoute = app.routes.flatMap(({ method, path, handler }) =>
  beginsRoute(handler) && handler.route.by === 'api_key'
    ? [{ method, path, permission: handler.route.permission }]
    : [],
);

// GET /api/whoami needs none (test/api-keys/whoami.test.ts).
const routes = everyRoute.flatMap(({ permission, ...route }) => (permission ? [{ ...route, permission }] : []));

/** The ids that a path may name. */
type Ids = Record<
  'integration_id' | 'phone_number_id' | 'key_id' | 'organization_id' | 'endpoint_id' | 'delivery_id',
  string
>;

const missing: Ids = {
  integration_id: 'intg_000000000000',
  phone_number_id: 'phon_000000000000',
  key_id: 'apikey_000000000000',
  organization_id: 'org_missing',
  endpoint_id: 'whep_000000000000',
  delivery_id: 'whdel_000000000000',
};

const concrete = (path: string, ids = missing) =>
  Object.entries(ids).reduce((filled, [name, id]) => filled.replace(`:${name}`, id), path) +
  (path.endsWith('/replay') ? '?since=2024-01-15T10:30:00Z' : '');

const methodNotAllowed = z.object({ allowed_methods: z.array(z.string()) });

const lastMinute = () => Math.floor(Date.now() / 1000) - 60;

describe('the routes of the app', () => {
  it('are those of the contract', () => {
    expect(everyRoute.map(({ method, path, permission }) => `${method} ${path} ${permission}`)).toEqual([
      'GET /api/whoami null',
      'POST /api/integrations integrations:create',
      'GET /api/integrations integrations:read',
      'GET /api/integrations/:integration_id integrations:read',
      'PUT /api/integrations/:integration_id integrations:update',
      'GET /api/integrations/:integration_id/provider-numbers phone_numbers:create',
      'POST /api/integrations/:integration_id/verify integrations:update',
      'GET /api/integrations/:integration_id/references integrations:read',
      'DELETE /api/integrations/:integration_id integrations:delete',
      'POST /api/phone-numbers phone_numbers:create',
      'POST /api/phone-numbers/bulk phone_numbers:create',
      'POST /api/phone-numbers/bulk-update phone_numbers:update',
      'POST /api/phone-numbers/bulk-delete phone_numbers:delete',
      'GET /api/phone-numbers phone_numbers:read',
      'GET /api/phone-numbers/:phone_number_id phone_numbers:read',
      'PUT /api/phone-numbers/:phone_number_id phone_numbers:update',
      'POST /api/phone-numbers/:phone_number_id/verify phone_numbers:update',
      'DELETE /api/phone-numbers/:phone_number_id phone_numbers:delete',
      'POST /api/api-keys api_keys:create',
      'GET /api/api-keys api_keys:read',
      'GET /api/api-keys/:key_id api_keys:read',
      'PUT /api/api-keys/:key_id api_keys:update',
      'POST /api/api-keys/:key_id/rotate api_keys:rotate',
      'DELETE /api/api-keys/:key_id api_keys:revoke',
      'GET /api/audit-events audit:read',
      'POST /api/webhook-endpoints webhooks:create',
      'GET /api/webhook-endpoints webhooks:read',
      'GET /api/webhook-endpoints/:endpoint_id webhooks:read',
      'PUT /api/webhook-endpoints/:endpoint_id webhooks:update',
      'DELETE /api/webhook-endpoints/:endpoint_id webhooks:delete',
      'POST /api/webhook-endpoints/:endpoint_id/rotate-secret webhooks:update',
      'POST /api/webhook-endpoints/:endpoint_id/test webhooks:update',
      'POST /api/webhook-endpoints/:endpoint_id/replay webhooks:update',
      'GET /api/webhook-endpoints/:endpoint_id/deliveries webhooks:read',
      'POST /api/webhook-endpoints/:endpoint_id/deliveries/:delivery_id/retry webhooks:update',
    ]);
  });

  it('begin with what reads where they are a GET, and with what mutates where they are not', () => {
    const chains = Map.groupBy(
      app.routes.filter(({ path }) => path.startsWith('/api') && !path.includes('*')),
      ({ method, path }) => `${method} ${path}`,
    );
    const kinds = [...chains].map(([name, [first]]) => [
      name,
      first && beginsRoute(first.handler) ? first.handler.route.kind : 'unguarded',
    ]);

    expect(kinds).toEqual([...chains.keys()].map((name) => [name, name.startsWith('GET ') ? 'reads' : 'mutates']));
  });
});

describe.each(routes)('$method $path', ({ method, path, permission }) => {
  let owner: Client;
  let before: Awaited<ReturnType<typeof resources>>;

  // Once for all: they leave it as it is.
  beforeAll(async () => {
    await emptyStorage();
    owner = await newClient();
    await importNumber(owner, await createIntegration(owner), unusedNumber());
    before = await resources();
  });

  const attempt = (client: Client, headers: Record<string, string | null> = {}) =>
    call(client, method, concrete(path), { headers });

  it('answers 401 without a key', async () => {
    const { status, body, headers } = await attempt(owner, { 'X-API-Key': null });

    expect(status).toBe(401);
    expect(body).toMatchObject({ code: 'missing_api_key' });
    expect(headers.get('WWW-Authenticate')).toBe('ApiKey realm="patchbay"');
    expect(await resources()).toEqual(before);
  });

  it('answers one and the same 401 to a malformed, an unknown, a revoked and an expired key', async () => {
    const { organization_id } = owner;
    const revoked = await newClient({ organization_id });
    await env.DB.prepare(`UPDATE api_keys SET status = 'revoked' WHERE key_id = ?`).bind(revoked.key_id).run();
    const expired = await newClient({ organization_id, expires_at: lastMinute() });
    // Well-formed but for its prefix.
    const ofTest = `bk_test_${'a'.repeat(50)}3mgdDO`;
    const keys = ['bk_live_malformed', ofTest, newRawKey(), revoked.raw_key, expired.raw_key];

    const answers = await Promise.all(keys.map((key) => attempt(owner, { 'X-API-Key': key })));

    expect(answers.map(({ status }) => status)).toEqual([401, 401, 401, 401, 401]);
    const bodies = answers.map(({ text }) => text.replace(/"request_id":"[^"]*"/, ''));
    expect(new Set(bodies).size).toBe(1);
    expect(bodies[0]).toContain('"code":"invalid_api_key"');
    expect(await resources()).toEqual(before);
  });

  it.each([
    [null, 'missing_organization_id'],
    ['', 'missing_organization_id'],
    ['acme', 'invalid_organization_id'],
    ['org_', 'invalid_organization_id'],
    ['"org_quoted"', 'invalid_organization_id'],
    ['org_one, org_one', 'invalid_organization_id'],
    [`org_${'a'.repeat(41)}`, 'invalid_organization_id'],
  ])('answers 400 where the organization header is %j', async (value, code) => {
    const { status, body } = await attempt(owner, { 'X-Organization-Id': value });

    expect(status).toBe(400);
    expect(body).toMatchObject({ code });
    expect(await resources()).toEqual(before);
  });

  it('answers 401 rather than 400 where both headers are wrong', async () => {
    const { status } = await attempt(owner, { 'X-API-Key': newRawKey(), 'X-Organization-Id': null });

    expect(status).toBe(401);
  });

  it('answers 403 to a key of another organization', async () => {
    const stranger = await newClient();

    const { status, body } = await attempt(stranger, { 'X-Organization-Id': owner.organization_id });

    expect(status).toBe(403);
    expect(body).toMatchObject({ code: 'organization_mismatch' });
    expect(await resources()).toEqual(before);
  });

  const withRole = async (role: Role) => attempt(await newClient({ organization_id: owner.organization_id, role }));
  const holds = (role: Role) => rolesHolding[permission]?.includes(role);

  it.each(roles.filter(holds))('lets role %s pass, to be judged by its body or path', async (role) => {
    const { status } = await withRole(role);

    const hasBody = (method === 'POST' || method === 'PUT') && !/\/(?:verify|test|replay|retry)$/.test(path);
    const judged = hasBody ? 415 : path.includes(':') ? 404 : 200;
    expect(status).toBe(judged);
    expect(await resources()).toEqual(before);
  });

  it.each(roles.filter((role) => !holds(role)))('answers 403 to role %s, before body and path', async (role) => {
    const { status, body } = await withRole(role);

    expect(status).toBe(403);
    expect(body).toMatchObject({ code: 'permission_denied', required_permission: permission });
    expect(await resources()).toEqual(before);
  });
});

const bodies: Record<string, object[]> = {
  'PUT /api/api-keys/:key_id': [{ name: 'Taken over' }],
  'POST /api/api-keys/:key_id/rotate': [{ overlap_seconds: 60 }],
  'PUT /api/integrations/:integration_id': [{ name: 'Taken over' }, { credentials: twilio }],
  'PUT /api/webhook-endpoints/:endpoint_id': [{ enabled: false }, { url: 'https://hooks.example.com/' }],
  'POST /api/webhook-endpoints/:endpoint_id/rotate-secret': [{}],
  'PUT /api/phone-numbers/:phone_number_id': [{ supports_inbound: true }, { assigned_agent_id: 'agent_000000000001' }],
};

const attempts = routes
  .filter(({ path }) => path.includes(':'))
  .flatMap(({ method, path }) => {
    const named = `${method} ${path}`;
    return named in bodies
      ? (bodies[named] ?? []).map((body) => ({ named, method, path, body }))
      : { named, method, path };
  });

describe('another organization’s id', () => {
  beforeEach(emptyStorage);

  it('is tried with every route that takes one', () => {
    const taking = routes.filter(({ path }) => path.includes(':')).map(({ method, path }) => `${method} ${path}`);

    expect([...new Set(attempts.map(({ named }) => named))]).toEqual(taking);
  });

  it.each(attempts)('is a 404 to $named, told from a missing one by nothing, and stays as it is', async (attempted) => {
    const { method, path } = attempted;
    const body = 'body' in attempted ? attempted.body : undefined;
    const [owner, stranger] = [await newClient(), await newClient()];
    const integration_id = await createIntegration(owner);
    const phone_number_id = await importNumber(owner, integration_id, unusedNumber());
    const spare = await createIntegration(owner);
    const other = await newClient({ organization_id: owner.organization_id, role: 'user' });
    const [, , , endpoint_id = '', , delivery_id = ''] = (await deadDelivery(owner)).split('/');
    // The integration to be deleted is one that nothing keeps.
    const theirs = {
      integration_id: method === 'DELETE' ? spare : integration_id,
      phone_number_id,
      key_id: other.key_id,
      organization_id: owner.organization_id,
      endpoint_id,
      delivery_id,
    };
    await call(stranger, 'GET', '/api/integrations');
    // Of the key cache, the two organizations' own part: entries of others end meanwhile.
    const everything = async () => {
      const { KEY_CACHE, ...stored } = await everythingStored();
      const isTheirs = ([, entry]: [string, string]) =>
        [owner, stranger].some(({ organization_id }) => entry.includes(`"${organization_id}"`));
      return { ...stored, KEY_CACHE: Object.entries(KEY_CACHE).filter(isTheirs) };
    };
    const before = await everything();

    const foreign = await call(stranger, method, concrete(path, theirs), { body });
    const absent = await call(stranger, method, concrete(path), { body });

    expect(foreign.status).toBe(404);
    const resource = path.split('/')[2]?.slice(0, -1).replace('-', '_');
    expect(foreign.body).toMatchObject({ code: `${resource}_not_found` });
    const told = ({ status, text, headers }: Answer) =>
      [status, text, ...headers].map((part) => String(part).replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, 'request id'));
    expect(told(foreign)).toEqual(told(absent));
    expect(await everything()).toEqual(before);
  });
});

describe('a path that the API does not know', () => {
  it.each(['/', '/nothing', '/health/x'])('is a 404 problem at %s, without any key', async (path) => {
    const client = await newClient();

    const { status, body, headers } = await call(client, 'GET', path, { headers: { 'X-API-Key': null } });

    expect(status).toBe(404);
    expect(body).toMatchObject({ type: 'urn:patchbay:problem:not_found', code: 'not_found', status: 404 });
    expect(headers.get('Content-Type')).toBe('application/problem+json');
    expect(headers.get('X-Request-Id')).toMatch(/^[0-9a-f-]{36}$/);
  });

  it.each(['/api', '/api/nothing', '/api/integrations/', '/api/integrations/intg_000000000000/x'])(
    'is a 404 at %s to a caller, and a 401 to anybody else',
    async (path) => {
      const client = await newClient();

      expect(await call(client, 'GET', path)).toMatchObject({ status: 404, body: { code: 'not_found' } });
      expect(await call(client, 'GET', path, { headers: { 'X-API-Key': null } })).toMatchObject({ status: 401 });
    },
  );
});

describe.each([
  { origins: 'no origins', CORS_ORIGINS: '' },
  { origins: 'origins', CORS_ORIGINS: 'https://console.example' },
])('the methods of a path, with $origins set', ({ CORS_ORIGINS }) => {
  const paths = new Set(app.routes.flatMap(({ method, path }) => (method === 'ALL' ? [] : [path])));

  it.each([...paths])('are those that a 405 of %s allows', async (path) => {
    const client = await newClient();
    const operator = await newOperator();
    const send = async (method: string) => {
      const context = createExecutionContext();
      const headers = {
        'X-API-Key': client.raw_key,
        'X-Organization-Id': client.organization_id,
        Authorization: `Bearer ${operator.raw_key}`,
      };
      const response = await app.request(concrete(path), { method, headers }, { ...env, CORS_ORIGINS }, context);
      await waitOnExecutionContext(context);
      return response;
    };

    const refused = await send('PATCH');
    expect(refused.status).toBe(405);
    const { allowed_methods } = methodNotAllowed.parse(await refused.json());
    expect(refused.headers.get('Allow')).toBe(allowed_methods.join(', '));

    const answered = [];
    for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS']) {
      if ((await send(method)).status !== 405) answered.push(method);
    }
    expect(allowed_methods.toSorted()).toEqual(answered.toSorted());
  });
});

describe('every answer', () => {
  it('has a request id of its own, whatever the client sent, and is not to be stored', async () => {
    const client = await newClient();
    const headers = { 'X-Request-Id': 'theirs' };

    const refused = await call(client, 'DELETE', '/api/integrations/intg_000000000000', { headers });
    const created = await call(client, 'POST', '/api/integrations', {
      headers,
      body: { name: 'Telnyx', credentials: { provider: 'telnyx', api_key: 'plaintext-key' } },
    });

    expect(refused.body).toMatchObject({ request_id: refused.headers.get('X-Request-Id') });
    expect(created.status).toBe(201);
    for (const answer of [refused, created]) {
      expect(answer.headers.get('X-Request-Id')).toMatch(/^[0-9a-f-]{36}$/);
      expect(answer.headers.get('Cache-Control')).toBe('no-store, no-transform');
    }
    expect(refused.headers.get('X-Request-Id')).not.toBe(created.headers.get('X-Request-Id'));
  });
});

describe('the log', () => {
  afterEach(() => vi.restoreAllMocks());

  it('has one line a request, with the route’s pattern and not its path', async () => {
    const client = await newClient();
    const info = vi.spyOn(console, 'info').mockImplementation(() => {});

    const { headers } = await call(client, 'DELETE', '/api/integrations/intg_000000000000');

    expect(info.mock.calls.map(([line]) => JSON.parse(String(line)))).toEqual([
      {
        event: 'request',
        request_id: headers.get('X-Request-Id'),
        method: 'DELETE',
        route: '/api/integrations/:integration_id',
        organization_id: client.organization_id,
        key_id: client.key_id,
        status: 404,
        outcome: 'integration_not_found',
      },
    ]);
  });

  it.each([
    ['/api/integrations', { route: '/api/integrations', status: 401, outcome: 'missing_api_key' }],
    ['/nothing', { route: '/*', status: 404, outcome: 'not_found' }],
  ])('has a line for an anonymous request to %s too', async (path, line) => {
    const client = await newClient();
    const info = vi.spyOn(console, 'info').mockImplementation(() => {});

    await call(client, 'POST', path, { headers: { 'X-API-Key': null } });

    expect(info.mock.calls.map(([logged]) => JSON.parse(String(logged)))).toEqual([expect.objectContaining(line)]);
  });

  it.each([
    [400, null],
    [403, 'org_other'],
  ])('names the key that is used with a header that answers %i', async (status, organization_id) => {
    const client = await newClient();
    const info = vi.spyOn(console, 'info').mockImplementation(() => {});

    await call(client, 'GET', '/api/nothing', { headers: { 'X-Organization-Id': organization_id } });

    expect(info.mock.calls.map(([logged]) => JSON.parse(String(logged)))).toEqual([
      expect.objectContaining({ status, key_id: client.key_id, organization_id: client.organization_id }),
    ]);
  });
});
