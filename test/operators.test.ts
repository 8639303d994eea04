/** Who may call what under `/operator`, for every route that is there. */
import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { app } from '../src/worker/app.ts';
import { hashKey, newRawKey } from '../src/worker/callers/raw-key.ts';
import { operatorPermissions } from '../src/worker/core/permissions.ts';
import type { OperatorPermission } from '../src/worker/core/permissions.ts';
import type { Bindings } from '../src/worker/env.ts';
import { networkLimit, operatorLimit } from '../src/worker/http/rate-limit.ts';
import { beginsRoute } from '../src/worker/http/route.ts';
import worker from '../src/worker/index.ts';
import wrangler from '../wrangler.toml?raw';
import { countedBindings } from './bindings.ts';
import { call, emptyStorage, everythingKept, newClient, newOperator } from './fixtures.ts';
import type { Client, Operator } from './fixtures.ts';
import { customer, suspendedCustomer } from './operations.ts';

const routes = app.routes.flatMap(({ method, path, handler }) =>
  beginsRoute(handler) && handler.route.by === 'operator'
    ? [{ method, path, permission: handler.route.permission, kind: handler.route.kind, name: `${method} ${path}` }]
    : [],
);

const apiRoutes = app.routes.flatMap(({ method, path, handler }) =>
  beginsRoute(handler) && handler.route.by === 'api_key' ? [{ method, path: path.replaceAll(/:\w+/g, 'x') }] : [],
);

const tenMinutesAgo = () => Math.floor(Date.now() / 1000) - 600;

const secondsLater = (seconds: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + seconds * 1000 });

afterEach(() => vi.useRealTimers());

describe('the routes of operators', () => {
  it('are those of the contract, each with its permission', () => {
    expect(routes.map(({ name, permission }) => `${name} ${permission}`)).toEqual([
      'POST /operator/organizations organizations:create',
      'GET /operator/organizations organizations:read',
      'GET /operator/organizations/:organization_id organizations:read',
      'PUT /operator/organizations/:organization_id organizations:create',
      'POST /operator/organizations/:organization_id/suspend organizations:suspend',
      'POST /operator/organizations/:organization_id/resume organizations:suspend',
      'POST /operator/organizations/:organization_id/offboard organizations:offboard',
      'POST /operator/organizations/:organization_id/api-keys keys:mint',
      'GET /operator/organizations/:organization_id/api-keys organizations:read',
      'POST /operator/organizations/:organization_id/api-keys/revoke-all keys:mint',
      'DELETE /operator/organizations/:organization_id/api-keys/:key_id keys:mint',
      'GET /operator/phone-numbers organizations:read',
      'POST /operator/phone-numbers/release numbers:release',
      'GET /operator/audit-events audit:read',
    ]);
  });

  it('are all that is under /operator, but for its document', () => {
    const paths = app.routes.filter(({ method, path }) => method !== 'ALL' && path.startsWith('/operator'));
    const known = new Set([...routes.map(({ path }) => path), '/operator/openapi.json']);

    expect(paths.filter(({ path }) => !known.has(path))).toEqual([]);
  });

  it('begin with what reads where they are a GET, and with what mutates where they are not', () => {
    expect(routes.map(({ kind }) => kind)).toEqual(
      routes.map(({ method }) => (method === 'GET' ? 'reads' : 'mutates')),
    );
  });

  it('need every permission that there is', () => {
    expect(new Set(routes.map(({ permission }) => permission))).toEqual(new Set(operatorPermissions));
  });
});

type Customer = Awaited<ReturnType<typeof customer>>;

/** What a route needs, to do something if it could. */
const inputs: Record<string, { query?: (of: Customer) => string; body?: (of: Customer) => object; suspended?: true }> =
  {
    'POST /operator/organizations': {
      body: () => ({ organization_id: 'org_new', name: 'New', first_key: { name: 'First', role: 'admin' } }),
    },
    'PUT /operator/organizations/:organization_id': { body: () => ({ name: 'Taken over', tier: 'starter' }) },
    'POST /operator/organizations/:organization_id/resume': { suspended: true },
    'POST /operator/organizations/:organization_id/offboard': {
      body: ({ organization_id }) => ({ organization_id }),
      suspended: true,
    },
    'POST /operator/organizations/:organization_id/api-keys': { body: () => ({ name: 'Mine', role: 'admin' }) },
    'GET /operator/phone-numbers': { query: ({ phone_number }) => `?phone_number=%2B${phone_number.slice(1)}` },
    'POST /operator/phone-numbers/release': { body: ({ phone_number }) => ({ phone_number }) },
    'GET /operator/audit-events': { query: ({ organization_id }) => `?organization_id=${organization_id}` },
  };

interface Request {
  path: string;
  body: object | undefined;
}

/** A request of the route that would be carried out, and whose organization it is about. */
async function prepare(name: string, path: string): Promise<Request & { owner: Customer }> {
  const { query, body, suspended } = inputs[name] ?? {};
  const owner = await (suspended ? suspendedCustomer() : customer());
  const filled = path.replace(':organization_id', owner.organization_id).replace(':key_id', owner.key_id);
  return { owner, path: filled + (query?.(owner) ?? ''), body: body?.(owner) };
}

/** Everything in D1, but who was last seen when, and all ciphertext. (The cache of keys may change.) */
async function everything() {
  const { d1, CREDENTIALS } = await everythingKept();
  return { ...d1, CREDENTIALS, operator_keys: d1['operator_keys']?.map((row) => ({ ...row, last_used_at: null })) };
}

const withoutRequestId = (text: string) => text.replace(/"request_id":"[^"]*"/, '');

/** Ways for an operator key to change in D1 while the caches know it as it was, and what its mutations answer then. */
const keyChanges = [
  ['was revoked', () => `status = 'revoked'`, 401, 'invalid_operator_key'],
  ['has expired', () => 'expires_at = unixepoch() - 60', 401, 'invalid_operator_key'],
  [
    'lost the permission',
    (permission: OperatorPermission) =>
      `permissions = '${JSON.stringify(operatorPermissions.filter((other) => other !== permission))}'`,
    403,
    'operator_permission_denied',
  ],
] as const;

const changeOperator = ({ operator_key_id }: Operator, assignment: string) =>
  env.DB.prepare(`UPDATE operator_keys SET ${assignment} WHERE operator_key_id = ?`).bind(operator_key_id).run();

describe.each(routes)('$name', ({ name, method, path, permission }) => {
  let request: Request;
  let owner: Customer;
  let operator: Operator;
  let revoked: Operator;
  let expired: Operator;
  let before: Awaited<ReturnType<typeof everything>>;

  // Once for all: they leave it as it is.
  beforeAll(async () => {
    await emptyStorage();
    ({ owner, ...request } = await prepare(name, path));
    operator = await newOperator();
    revoked = await newOperator();
    await changeOperator(revoked, `status = 'revoked'`);
    expired = await newOperator({ expires_at: tenMinutesAgo() });
    before = await everything();
  });

  const attempt = (by: Operator, headers: Record<string, string | null> = {}, bindings: Bindings = env) =>
    call(by, method, request.path, { body: request.body, headers, bindings });

  it('answers 401 without a key', async () => {
    const { status, body, headers } = await attempt(operator, { Authorization: null });

    expect(status).toBe(401);
    expect(body).toMatchObject({ code: 'missing_operator_key' });
    expect(headers.get('WWW-Authenticate')).toBe('Bearer realm="patchbay operators"');
    expect(await everything()).toEqual(before);
  });

  it('answers 401 to an organization’s key in X-API-Key, with its organization or without', async () => {
    const { raw_key, organization_id } = owner;

    for (const header of [organization_id, null]) {
      const headers = { Authorization: null, 'X-API-Key': raw_key, 'X-Organization-Id': header };
      expect(await attempt(operator, headers)).toMatchObject({ status: 401, body: { code: 'missing_operator_key' } });
    }

    expect(await everything()).toEqual(before);
  });

  it('answers 401 to an operator key in X-API-Key', async () => {
    const headers = { Authorization: null, 'X-API-Key': operator.raw_key, 'X-Organization-Id': owner.organization_id };

    expect(await attempt(operator, headers)).toMatchObject({ status: 401, body: { code: 'missing_operator_key' } });

    expect(await everything()).toEqual(before);
  });

  it('answers one and the same 401 to every other key, whatever is wrong with it', async () => {
    const { raw_key } = operator;
    const random = raw_key.slice('bk_operator_'.length);
    const authorizations = {
      malformed: 'Bearer bk_operator_malformed',
      mistyped: `Bearer ${raw_key.slice(0, -1)}${raw_key.endsWith('x') ? 'y' : 'x'}`,
      'in lower case': `Bearer ${raw_key.toLowerCase()}`,
      longer: `Bearer ${raw_key}0`,
      'of no operator': `Bearer ${newRawKey('bk_operator_')}`,
      'an organization’s': `Bearer ${owner.raw_key}`,
      'an organization’s, as an operator’s': `Bearer bk_operator_${owner.raw_key.slice('bk_live_'.length)}`,
      'an operator’s, as an organization’s': `Bearer bk_live_${random}`,
      'of another environment': `Bearer bk_test_operator_${random}`,
      'of an environment of operators': `Bearer bk_operator_test_${random}`,
      'without a scheme': raw_key,
      'of another scheme': `Basic ${btoa(`operator:${raw_key}`)}`,
      'a key under another scheme': `Basic ${raw_key}`,
      'with nothing': 'Bearer',
      twice: `Bearer ${raw_key}, Bearer ${raw_key}`,
      'beside an organization’s': `Bearer ${owner.raw_key}, Bearer ${raw_key}`,
      'in quotes': `Bearer "${raw_key}"`,
      revoked: `Bearer ${revoked.raw_key}`,
      expired: `Bearer ${expired.raw_key}`,
    };

    const answers = await Promise.all(
      Object.entries(authorizations).map(async ([what, Authorization]) => {
        const answer = await attempt(operator, { Authorization });
        return [what, { ...answer, challenge: answer.headers.get('WWW-Authenticate') }] as const;
      }),
    );

    const [[, first] = []] = answers;
    expect(first?.body).toMatchObject({ status: 401, code: 'invalid_operator_key' });
    for (const [what, { status, text, challenge, headers }] of answers) {
      expect(status, what).toBe(401);
      expect(withoutRequestId(text), what).toBe(withoutRequestId(first?.text ?? ''));
      expect(challenge, what).toBe('Bearer realm="patchbay operators"');
      expect(headers.get('RateLimit-Policy'), what).toBeNull();
    }
    expect(await everything()).toEqual(before);
  });

  it('answers 403 to a key with every permission but its own, before it looks at body and path', async () => {
    const other = await newOperator({ permissions: operatorPermissions.filter((one) => one !== permission) });
    const unchanged = await everything();

    const body = method === 'GET' ? undefined : '{';
    const answers = [await attempt(other), await call(other, method, path.replaceAll(/:\w+/g, '-'), { body })];

    for (const answer of answers) {
      expect(answer).toMatchObject({
        status: 403,
        body: { code: 'operator_permission_denied', required_permission: permission },
      });
    }
    expect(await everything()).toEqual(unchanged);
  });

  it('answers 403 to a key without any permission', async () => {
    const powerless = await newOperator({ permissions: [] });

    expect(await attempt(powerless)).toMatchObject({
      status: 403,
      body: { code: 'operator_permission_denied', required_permission: permission },
    });
  });

  it('has no headers of CORS, whatever origins there are', async () => {
    const headers = { Origin: 'https://console.example', 'Access-Control-Request-Method': method };
    const preflight = { ...headers, Authorization: null };
    const corsHeaders = (found: Headers) => [...found.keys()].filter((one) => one.startsWith('access-control-'));
    const unchanged = await everything();

    for (const CORS_ORIGINS of ['*', 'https://console.example']) {
      const bindings = { ...env, CORS_ORIGINS };
      const refused = await attempt(operator, preflight, bindings);
      const asked = await call(operator, 'OPTIONS', request.path, { headers: preflight, bindings });
      const askedWithKey = await call(operator, 'OPTIONS', request.path, { headers, bindings });

      expect([refused.status, asked.status, askedWithKey.status]).toEqual([401, 401, 405]);
      expect(askedWithKey.headers.get('Allow')).not.toContain('OPTIONS');
      for (const answer of [refused, asked, askedWithKey]) expect(corsHeaders(answer.headers)).toEqual([]);
    }
    expect(await everything()).toEqual(unchanged);
  });
});

/** Stores what the route needs, and nothing else. */
async function requested({ name, method, path }: (typeof routes)[number]) {
  await emptyStorage();
  const { path: filled, body } = await prepare(name, path);
  return (by: Operator, headers: Record<string, string> = {}) => call(by, method, filled, { body, headers });
}

/** A key with its permission alone, in another case of the scheme. */
async function minimal({ permission }: (typeof routes)[number]) {
  const operator = await newOperator({ permissions: [permission] });
  return [operator, { Authorization: `bearer  ${operator.raw_key}` }] as const;
}

describe.each(routes.filter(({ kind }) => kind === 'mutates'))('$name', (route) => {
  it('is done for a key with its permission alone', async () => {
    const attempt = await requested(route);
    const by = await minimal(route);
    const before = await everything();

    const { status, headers } = await attempt(...by);

    expect([200, 201, 202]).toContain(status);
    expect(headers.get('RateLimit-Policy')).toBe('"operator";q=100;w=10');
    expect(await everything()).not.toEqual(before);
  });

  it.each(keyChanges)('is done no more for a key that %s, though both caches have it', async (...change) => {
    const [, assignment, status, code] = change;
    const attempt = await requested(route);
    const operator = await newOperator();
    await call(operator, 'GET', '/operator/nothing');
    await changeOperator(operator, assignment(route.permission));
    const before = await everything();

    expect(await attempt(operator)).toMatchObject({ status, body: { code } });
    // The isolate has forgotten the key by now, and KV has not.
    expect(await attempt(operator)).toMatchObject({ status, body: { code } });

    expect(await everything()).toEqual(before);
  });
});

describe.each(routes.filter(({ kind }) => kind === 'reads'))('$name', (route) => {
  it('is answered to a key with its permission alone, and changes nothing', async () => {
    const attempt = await requested(route);
    const by = await minimal(route);
    const before = await everything();

    const { status, headers } = await attempt(...by);

    expect(status).toBe(200);
    expect(headers.get('RateLimit-Policy')).toBe('"operator";q=100;w=10');
    expect(await everything()).toEqual(before);
  });

  it.each(keyChanges)('is answered to a key that %s for 60 s at most', async (...change) => {
    const [, assignment, status, code] = change;
    secondsLater(0);
    const attempt = await requested(route);
    const operator = await newOperator();
    await call(operator, 'GET', '/operator/nothing');
    await changeOperator(operator, assignment(route.permission));

    secondsLater(58);
    expect((await attempt(operator)).status).toBe(200);
    secondsLater(3);
    expect(await attempt(operator)).toMatchObject({ status, body: { code } });
  });
});

/** Sends a request as it is. */
async function send(
  method: string,
  url: string,
  { headers = {}, bindings = env, body = null }: { headers?: HeadersInit; bindings?: Bindings; body?: string | null },
) {
  const context = createExecutionContext();
  const request = new Request<unknown, IncomingRequestCfProperties>(`https://patchbay.test${url}`, {
    method,
    headers,
    body,
  });
  const response = await worker.fetch(request, bindings, context);
  const text = await response.text();
  await waitOnExecutionContext(context);
  return { status: response.status, headers: response.headers, text };
}

const headersOf = ({ raw_key }: Operator) => ({ Authorization: `Bearer ${raw_key}` });

const toldBy = ({ status, text, headers }: Awaited<ReturnType<typeof send>>) =>
  [status, text, ...headers].map((part) => String(part).replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, 'request id'));

describe('the API of operators, unless it is on,', () => {
  const methods = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'];
  const paths = [
    ...new Set(routes.map(({ path }) => path.replaceAll(/:\w+/g, 'x'))),
    '/operator',
    '/operator/',
    '/operator/openapi.json',
    '/operator/nothing',
  ];

  it.each(['', 'off', 'Off', 'OFF', 'false', 'False', '0', ' ', 'no'])(
    'is not there at all for %j: nothing tells a path of it from any other, or a good key from none',
    async (OPERATOR_API) => {
      const operator = await newOperator();
      const { bindings, calls } = countedBindings();
      const off: Bindings = Object.assign({ ...bindings, CORS_ORIGINS: '*' }, { OPERATOR_API });

      for (const method of methods) {
        const nothing = toldBy(await send(method, '/nothing', { bindings: off }));
        expect(nothing[0]).toBe('404');
        for (const path of paths) {
          for (const headers of [headersOf(operator), {}]) {
            const answer = await send(method, path, { headers, bindings: off });
            expect(toldBy(answer), `${method} ${path}`).toEqual(nothing);
          }
        }
      }

      expect(calls).toEqual([]);
    },
  );

  it('is not there where nothing is said of it', async () => {
    const unset: typeof env = new Proxy(env, {
      get: (set, name) => (name === 'OPERATOR_API' ? undefined : Reflect.get(set, name)),
    });
    const headers = headersOf(await newOperator());

    expect((await send('GET', '/operator/organizations', { headers, bindings: unset })).status).toBe(404);
    expect((await send('GET', '/operator/openapi.json', { headers, bindings: unset })).status).toBe(404);
  });

  it('is not there as deployed', () => {
    expect(wrangler).toMatch(/^OPERATOR_API = ""$/m);
    expect(wrangler).toContain('run_worker_first = ["/operator/*"]');
  });

  it.each(['on', 'On', 'true', '1'])('is there for %j', async (OPERATOR_API) => {
    const bindings: Bindings = Object.assign({ ...env }, { OPERATOR_API });
    const headers = headersOf(await newOperator());

    expect((await send('GET', '/operator/organizations', { headers, bindings })).status).toBe(200);
    const { status, text } = await send('GET', '/operator/openapi.json', { bindings });
    expect(status).toBe(200);
    expect(JSON.parse(text)).toMatchObject({ openapi: expect.any(String) });
  });
});

describe('an organization’s key', () => {
  beforeEach(emptyStorage);

  const credentialsOf = ({ raw_key, organization_id }: Client): Record<string, string> => ({
    'X-API-Key': raw_key,
    'X-Organization-Id': organization_id,
    'Content-Type': 'application/json',
  });

  it.each<[string, Record<string, string>]>([
    ['X-HTTP-Method-Override', { 'X-HTTP-Method-Override': 'POST' }],
    ['X-Original-URL', { 'X-Original-URL': '/operator/organizations' }],
    ['X-Rewrite-URL', { 'X-Rewrite-URL': '/operator/organizations' }],
    ['X-Forwarded-Path', { 'X-Forwarded-Path': '/operator/organizations' }],
    ['X-Forwarded-Prefix', { 'X-Forwarded-Prefix': '/operator' }],
    ['X-Forwarded-Host', { 'X-Forwarded-Host': 'operator.patchbay.test' }],
    ['Forwarded', { Forwarded: 'for=127.0.0.1;host=localhost' }],
    ['X-Forwarded-For', { 'X-Forwarded-For': '127.0.0.1', 'CF-Connecting-IP': '127.0.0.1' }],
  ])('leads to no operator’s route by %s', async (_, trick) => {
    const client = await newClient();
    await call(client, 'GET', '/api/nothing');
    const headers = { ...credentialsOf(client), ...trick };
    const body = JSON.stringify({ organization_id: 'org_trick', name: 'Trick' });
    const before = await everything();

    const direct = await send('POST', '/operator/organizations', { headers, body });
    const around = await send('POST', '/api/organizations', { headers, body });
    const reading = await send('GET', '/api/integrations', { headers });

    expect(direct.status).toBe(401);
    expect(around.status).toBe(404);
    expect([reading.status, Object.keys(JSON.parse(reading.text))]).toEqual([200, ['success', 'data', 'pagination']]);
    expect(await everything()).toEqual(before);
  });

  it.each([
    ['/operator/organizations', 401],
    ['/Operator/organizations', 404],
    ['/OPERATOR/organizations', 404],
    ['//operator/organizations', 404],
    ['/operator//organizations', 401],
    ['/%6fperator/organizations', 404],
    ['/%256fperator/organizations', 404],
    ['/operator%2Forganizations', 404],
    ['/api/../operator/organizations', 401],
    ['/api/%2e%2e/operator/organizations', 401],
    ['/api/..%2foperator/organizations', 404],
    ['/api//operator/organizations', 404],
    ['/operator/..;/operator/organizations', 401],
    ['/operator/organizations/', 401],
    ['/operator/organizations;x=/api', 401],
    ['/operator/organizations?x=/api', 401],
  ])('leads to no operator’s route by the path %s', async (path, status) => {
    const client = await newClient();
    await call(client, 'GET', '/api/nothing');
    const body = JSON.stringify({ organization_id: 'org_trick', name: 'Trick' });
    const before = await everything();

    const bearer = { ...credentialsOf(client), Authorization: `Bearer ${client.raw_key}` };
    for (const headers of [credentialsOf(client), bearer]) {
      expect((await send('POST', path, { headers, body })).status).toBe(status);
      expect((await send('GET', path, { headers })).status).toBe(status);
    }

    expect(await everything()).toEqual(before);
  });

  it('leads to no operator’s route beside another in a second Authorization', async () => {
    const client = await newClient();
    await call(client, 'GET', '/api/nothing');
    const operator = await newOperator();
    const body = JSON.stringify({ organization_id: 'org_trick', name: 'Trick' });
    const before = await everything();

    for (const values of [
      [client.raw_key, operator.raw_key],
      [operator.raw_key, client.raw_key],
    ]) {
      const headers = new Headers(credentialsOf(client));
      for (const value of values) headers.append('Authorization', `Bearer ${value}`);
      expect((await send('POST', '/operator/organizations', { headers, body })).status).toBe(401);
    }

    expect(await everything()).toEqual(before);
  });
});

describe.each(apiRoutes)('$method $path', ({ method, path }) => {
  it('answers 401 to an operator key, wherever it is, and asks nobody about it', async () => {
    const client = await newClient();
    const { raw_key } = await newOperator();
    const { bindings, calls } = countedBindings();
    const before = await everything();

    const attempts: [Record<string, string | null>, string][] = [
      [{ 'X-API-Key': raw_key }, 'invalid_api_key'],
      [{ 'X-API-Key': raw_key, 'X-Organization-Id': null }, 'invalid_api_key'],
      [{ 'X-API-Key': raw_key, Authorization: `Bearer ${raw_key}` }, 'invalid_api_key'],
      [{ 'X-API-Key': null, Authorization: `Bearer ${raw_key}` }, 'missing_api_key'],
      [{ 'X-API-Key': `bk_live_${raw_key.slice('bk_operator_'.length)}` }, 'invalid_api_key'],
    ];
    for (const [headers, code] of attempts) {
      const answer = await call(client, method, path, { headers, bindings });
      expect(answer).toMatchObject({ status: 401, body: { code } });
    }

    expect(calls).toEqual([]);
    expect(await everything()).toEqual(before);
  });
});

describe('an operator key', () => {
  it.each(['/%6fperator/organizations', '/%6Fperator/organizations', '/oper%61tor/organizations'])(
    'is of no use at %s, because a rule in front of the Worker may not know that spelling',
    async (path) => {
      const operator = await newOperator();

      expect(await call(operator, 'GET', path)).toMatchObject({ status: 404, body: { code: 'not_found' } });
    },
  );

  it('may what this version knows, whatever else is in its list', async () => {
    const operator = await newOperator({ permissions: ['organizations:read'] });
    await env.DB.prepare('UPDATE operator_keys SET permissions = ? WHERE operator_key_id = ?')
      .bind('["organizations:archive","organizations:read"]', operator.operator_key_id)
      .run();

    expect((await call(operator, 'GET', '/operator/organizations')).status).toBe(200);
    expect(await call(operator, 'GET', '/operator/audit-events?actor_type=operator')).toMatchObject({
      status: 403,
      body: { code: 'operator_permission_denied', required_permission: 'audit:read' },
    });
  });
});

describe('the cache of an operator key', () => {
  beforeEach(() => secondsLater(0));

  it('knows a key by its hash alone, with what a call needs and a deadline 56 s from the read, for other clocks', async () => {
    const operator = await newOperator({ permissions: ['audit:read'] });
    await call(operator, 'GET', '/operator/nothing');
    const key_hash = await hashKey(operator.raw_key);

    const entry = await env.KEY_CACHE.get<object>(key_hash, 'json');

    expect(entry).toEqual({
      operator_key_id: operator.operator_key_id,
      name: 'Signup service',
      permissions: '["audit:read"]',
      key_hash,
      expires_at: expect.any(Number),
      deadline: Math.floor(Date.now() / 1000) + 56,
    });
  });

  it('heeds the key’s own expiry within an entry', async () => {
    const operator = await newOperator({ expires_at: Math.floor(Date.now() / 1000) + 30 });
    const status = async () => (await call(operator, 'GET', '/operator/organizations')).status;

    expect(await status()).toBe(200);
    secondsLater(28);
    expect(await status()).toBe(200);
    secondsLater(3);
    expect(await status()).toBe(401);
  });

  it('notes the use of a key', async () => {
    const { operator_key_id, ...operator } = await newOperator();
    await call({ operator_key_id, ...operator }, 'GET', '/operator/nothing');

    const used = (await everythingKept()).d1['operator_keys']?.find(
      (row) => row['operator_key_id'] === operator_key_id,
    );

    expect(used?.['last_used_at']).toBe(Math.floor(Date.now() / 1000));
  });

  it('costs a call nothing once it is filled', async () => {
    const operator = await newOperator();
    await call(operator, 'GET', '/operator/nothing');
    const { bindings, calls } = countedBindings();

    await call(operator, 'GET', '/operator/nothing', { bindings });

    expect(calls).toEqual([]);
  });
});

/** A limiter that notes who is counted, and refuses from the first on or never. */
function noting(success: boolean) {
  const counted: string[] = [];
  const limiter: RateLimit = {
    limit: async ({ key }) => {
      counted.push(key);
      return { success };
    },
  };
  return { limiter, counted };
}

describe('the limit of an operator key', () => {
  it('is stated as wrangler.toml has it', () => {
    for (const { binding, requests } of [operatorLimit, networkLimit]) {
      expect(wrangler).toMatch(
        new RegExp(`name = "${binding}"\\s+namespace_id = "\\d+"\\s+simple = { limit = ${requests}, period = 10 }`),
      );
    }
    expect(operatorLimit.requests).toBe(100);
  });

  it.each(routes.map(({ method, path }) => [method, path] as const))(
    'comes before everything else at %s %s, and counts the key and no organization',
    async (method, path) => {
      const operator = await newOperator({ permissions: [] });
      await call(operator, 'GET', '/operator/nothing');
      const { bindings, calls } = countedBindings();
      const { limiter, counted } = noting(false);

      const { status, body, headers } = await call(operator, method, path.replaceAll(/:\w+/g, '-'), {
        bindings: { ...bindings, OPERATOR_LIMIT: limiter },
      });

      expect(status).toBe(429);
      expect(body).toMatchObject({ code: 'rate_limited', retry_after_seconds: Number(headers.get('Retry-After')) });
      expect(headers.get('Retry-After')).toMatch(/^1[0-5]$/);
      expect(headers.get('RateLimit')).toBe('"operator";r=0');
      expect(headers.get('RateLimit-Policy')).toBe('"operator";q=100;w=10');
      expect(counted).toEqual([operator.operator_key_id]);
      expect(calls).toEqual([]);
    },
  );

  it('is one of a key: a second key of the same operator has its own', async () => {
    const { limiter, counted } = noting(true);
    const [one, other] = [await newOperator(), await newOperator()];

    for (const operator of [one, other, one]) {
      await call(operator, 'GET', '/operator/organizations', { bindings: { ...env, OPERATOR_LIMIT: limiter } });
    }

    expect(counted).toEqual([one.operator_key_id, other.operator_key_id, one.operator_key_id]);
  });
});

describe('the limit of an IP address on operator keys that no cache knows', () => {
  const from = { 'CF-Connecting-IP': '203.0.113.7' };

  it('ends a flood of well-formed keys before KV and D1, and counts it apart from that of other keys', async () => {
    const operator = await newOperator();
    const { bindings, calls } = countedBindings();
    const { limiter, counted } = noting(false);

    const { status, headers } = await call(operator, 'POST', '/operator/organizations', {
      headers: { ...from, Authorization: `Bearer ${newRawKey('bk_operator_')}` },
      bindings: { ...bindings, IP_LIMIT: limiter },
    });

    expect(status).toBe(429);
    expect(headers.get('RateLimit')).toBe('"operator_key_lookup";r=0');
    expect(headers.get('RateLimit-Policy')).toBe('"operator_key_lookup";q=200;w=10');
    expect(counted).toEqual(['operator_key_lookup 203.0.113.7']);
    expect(calls).toEqual([]);
  });

  it('does not count a malformed key, an organization’s key, or one that the isolate knows', async () => {
    const operator = await newOperator();
    await call(operator, 'GET', '/operator/nothing');
    const { limiter, counted } = noting(false);
    const bindings = { ...env, IP_LIMIT: limiter };
    const status = async (Authorization: string) =>
      (await call(operator, 'GET', '/operator/organizations', { headers: { ...from, Authorization }, bindings }))
        .status;

    expect(await status('Bearer bk_operator_malformed')).toBe(401);
    expect(await status(`Bearer ${(await newClient()).raw_key}`)).toBe(401);
    expect(await status(`Bearer ${operator.raw_key}`)).toBe(200);
    expect(counted).toEqual([]);
  });
});
