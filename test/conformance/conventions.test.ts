/** The contract's conventions, as far as the calls that there are can show them, over HTTP. */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { joinServer, newNumbers, problem, twilio } from './server.ts';
import type { Client } from './server.ts';

const MISSING = 'intg_000000000000';
const MAX_BODY_BYTES = 64 * 1024;

const server = joinServer();
const [taken = '', free] = newNumbers(2);
let admin: Client;
let user: Client;

beforeAll(async () => {
  admin = await server.newOrganization();
  user = await server.newKey(admin.organization_id, 'user');
  await server.importNumber(admin, await server.createIntegration(admin), taken);
});

interface Request {
  method?: string;
  path?: string;
  as?: () => Client;
  headers?: Record<string, string | null>;
  body?: unknown;
}

const send = ({ method = 'POST', path = '/api/integrations', as = () => admin, headers = {}, body }: Request) =>
  server.call(as(), method, path, { headers, body });

const integration = { name: 'Twilio Production', credentials: twilio };

/** A JSON object of exactly so many bytes, which no call accepts. */
const jsonOfBytes = (bytes: number) => `{"name":"${' '.repeat(bytes - '{"name":""}'.length)}"}`;

interface Problem {
  what: string;
  request: Request;
  status: number;
  code: string;
  /** Those of the body beside what every problem has. */
  members?: string[];
}

const problems: Problem[] = [
  { what: 'no key', request: { headers: { 'X-API-Key': null } }, status: 401, code: 'missing_api_key' },
  { what: 'a wrong key', request: { headers: { 'X-API-Key': 'no key' } }, status: 401, code: 'invalid_api_key' },
  {
    what: 'no organization',
    request: { headers: { 'X-Organization-Id': null } },
    status: 400,
    code: 'missing_organization_id',
  },
  {
    what: 'another organization',
    request: { headers: { 'X-Organization-Id': 'org_other' } },
    status: 403,
    code: 'organization_mismatch',
  },
  {
    what: 'a role that may not',
    request: { body: integration, as: () => user },
    status: 403,
    code: 'permission_denied',
    members: ['required_permission'],
  },
  { what: 'an unknown path', request: { path: '/api/nothing' }, status: 404, code: 'not_found' },
  { what: 'an unknown path outside the API', request: { path: '/nothing' }, status: 404, code: 'not_found' },
  {
    what: 'a wrong method',
    request: { method: 'PATCH' },
    status: 405,
    code: 'method_not_allowed',
    members: ['allowed_methods'],
  },
  { what: 'malformed JSON', request: { body: '{"name": plainvalue' }, status: 400, code: 'malformed_json' },
  { what: 'an empty body', request: { body: '' }, status: 400, code: 'malformed_json' },
  {
    what: 'a body of more than 64 KiB',
    request: { body: jsonOfBytes(MAX_BODY_BYTES + 1) },
    status: 413,
    code: 'payload_too_large',
  },
  {
    what: 'a body of another media type',
    request: { body: integration, headers: { 'Content-Type': 'text/plain' } },
    status: 415,
    code: 'unsupported_media_type',
  },
  {
    what: 'a body of no media type',
    request: { headers: { 'Content-Type': null } },
    status: 415,
    code: 'unsupported_media_type',
  },
  { what: 'a value out of bounds', request: { body: {} }, status: 422, code: 'validation_failed', members: ['errors'] },
  {
    what: 'a missing integration',
    request: { method: 'DELETE', path: `/api/integrations/${MISSING}` },
    status: 404,
    code: 'integration_not_found',
  },
  {
    what: 'a number that exists',
    request: { path: '/api/phone-numbers', body: { phone_number: taken, provider: 'sip' } },
    status: 409,
    code: 'phone_number_exists',
  },
];

it.each(problems)('$what gets the problem $code with exactly its members, and nothing is stored', async (expected) => {
  const { request, status, code, members = [] } = expected;
  const before = await server.stored();

  const answer = await send(request);

  expect(answer).toMatchObject(
    problem(status, code, { title: expect.stringMatching(/./), detail: expect.stringMatching(/./) }),
  );
  expect(answer.headers.get('Content-Type')).toBe('application/problem+json');
  const names = Object.keys(z.record(z.string(), z.unknown()).parse(answer.body));
  expect(names).toEqual(['type', 'title', 'status', 'code', 'detail', ...members, 'request_id']);
  expect(await server.stored()).toEqual(before);
});

it.each<Pick<Problem, 'what' | 'request'>>([{ what: 'a success', request: { body: integration } }, ...problems])(
  'the answer to $what has a request id that the server made, and must not be cached',
  async ({ request }) => {
    const headers = { ...request.headers, 'X-Request-Id': 'inbound' };

    const [first, second] = [await send({ ...request, headers }), await send({ ...request, headers })];

    for (const answer of [first, second]) {
      expect(answer.headers.get('X-Request-Id')).toMatch(/^(?!inbound)./);
      expect(answer.headers.get('Cache-Control')).toBe(
        request.path?.startsWith('/api/') === false ? 'no-store' : 'no-store, no-transform',
      );
      expect(answer.body).toMatchObject(
        answer.status < 400 ? { success: true } : { request_id: answer.headers.get('X-Request-Id') },
      );
    }
    expect(first.headers.get('X-Request-Id')).not.toBe(second.headers.get('X-Request-Id'));
  },
);

describe('an action that succeeds', () => {
  const time = z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);

  it('returns a message, and the entity without its credentials', async () => {
    const before = Date.now();
    const { status, headers, body, text } = await send({ body: integration });
    const after = Date.now();

    expect(status).toBe(201);
    expect(headers.get('Content-Type')).toBe('application/json');
    const { data } = z
      .strictObject({
        success: z.literal(true),
        message: z.literal('Integration created successfully'),
        data: z.strictObject({
          integration_id: z.string().regex(/^intg_[0-9a-f]{12}$/),
          client_id: z.literal(admin.organization_id),
          name: z.literal(integration.name),
          provider: z.literal('twilio'),
          category: z.literal('telephony'),
          status: z.literal('active'),
          created_at: time,
          updated_at: time,
          account_hint: z.literal('AC…cdef'),
          verification: z.strictObject({
            status: z.literal('verified'),
            checked_at: time,
            provider_status: z.literal(200),
            provider_code: z.null(),
            detail: z.literal('The provider accepted the credentials.'),
          }),
        }),
      })
      .parse(body);
    expect(Date.parse(data.created_at)).toBeGreaterThan(before - 1000);
    expect(Date.parse(data.created_at)).toBeLessThanOrEqual(after);
    expect(text).not.toContain(twilio.auth_token);
    expect(text).not.toContain(twilio.account_sid);
  });

  it('may have parameters in its Content-Type', async () => {
    const headers = { 'Content-Type': 'Application/JSON; charset=utf-8' };

    expect((await send({ body: integration, headers })).status).toBe(201);
  });
});

it('an ETag comes strong over HTTP, and goes back as If-None-Match and If-Match', async () => {
  const path = `/api/integrations/${await server.createIntegration(admin)}`;
  const read = await send({ method: 'GET', path });
  const tag = read.headers.get('ETag');

  const same = await send({ method: 'GET', path, headers: { 'If-None-Match': tag } });
  const renamed = await send({ method: 'PUT', path, headers: { 'If-Match': tag }, body: { name: 'One' } });
  const outdated = await send({ method: 'PUT', path, headers: { 'If-Match': tag }, body: { name: 'Two' } });

  expect(tag).toMatch(/^"1-\d+"$/);
  expect(same).toMatchObject({ status: 304, text: '' });
  expect(same.headers.get('ETag')).toBe(tag);
  expect(renamed.status).toBe(200);
  expect(outdated).toMatchObject(problem(412, 'precondition_failed'));
  expect(await send({ method: 'GET', path })).toMatchObject({ body: { data: { name: 'One' } } });
});

describe('where two errors apply', () => {
  const wrongOrganization = { 'X-Organization-Id': 'org_other' };
  const wrongKey = { 'X-API-Key': 'no key' };
  const noOrganization = { 'X-Organization-Id': null };
  const invalid = { body: { name: '' } };
  const unknownPath = { path: '/api/nothing' };

  it.each<{ winner: string; over: string; request: Request; status: number; code: string; members?: object }>([
    {
      winner: '401 for the key',
      over: '400 for the header',
      request: { ...invalid, headers: { ...wrongKey, ...noOrganization } },
      status: 401,
      code: 'invalid_api_key',
    },
    {
      winner: '401 for the key',
      over: '403 for the organization',
      request: { ...invalid, headers: { ...wrongKey, ...wrongOrganization } },
      status: 401,
      code: 'invalid_api_key',
    },
    {
      winner: '401 for the key',
      over: '404 for the path',
      request: { ...unknownPath, headers: wrongKey },
      status: 401,
      code: 'invalid_api_key',
    },
    {
      winner: '401 for the key',
      over: '405 for the method',
      request: { method: 'PATCH', headers: wrongKey },
      status: 401,
      code: 'invalid_api_key',
    },
    {
      winner: '400 for the header',
      over: '403 for the permission',
      request: { ...invalid, as: () => user, headers: noOrganization },
      status: 400,
      code: 'missing_organization_id',
    },
    {
      winner: '403 for the organization',
      over: '403 for the permission',
      request: { ...invalid, as: () => user, headers: wrongOrganization },
      status: 403,
      code: 'organization_mismatch',
    },
    {
      winner: '403 for the permission',
      over: '422 for the body',
      request: { ...invalid, as: () => user },
      status: 403,
      code: 'permission_denied',
      members: { required_permission: 'integrations:create' },
    },
    {
      winner: '403 for the permission',
      over: '413 for the body',
      request: { body: jsonOfBytes(MAX_BODY_BYTES + 1), as: () => user },
      status: 403,
      code: 'permission_denied',
      members: { required_permission: 'integrations:create' },
    },
    {
      winner: '403 for the permission',
      over: '422 for the path',
      request: { method: 'DELETE', path: '/api/integrations/malformed', as: () => user },
      status: 403,
      code: 'permission_denied',
      members: { required_permission: 'integrations:delete' },
    },
    {
      winner: '422 for the body',
      over: '409 for the number',
      request: { path: '/api/phone-numbers', body: { phone_number: taken, provider: 'twilio' } },
      status: 422,
      code: 'validation_failed',
      members: { errors: [{ path: 'integration_id', message: 'is required' }] },
    },
    {
      winner: '404 for the integration',
      over: '409 for the number',
      request: {
        path: '/api/phone-numbers?verify=false',
        body: { phone_number: taken, provider: 'twilio', integration_id: MISSING },
      },
      status: 404,
      code: 'integration_not_found',
    },
  ])('$winner is returned, not $over', async ({ request, status, code, members }) => {
    const before = await server.stored();

    expect(await send(request)).toMatchObject(problem(status, code, members));

    expect(await server.stored()).toEqual(before);
  });
});

describe('a method that a path does not support', () => {
  it.each([
    { path: '/api/integrations', known: 'POST' },
    { path: `/api/integrations/${MISSING}`, known: 'DELETE' },
    { path: '/api/phone-numbers', known: 'POST' },
  ])('gets 405 at $path, with the supported methods in Allow', async ({ path, known }) => {
    const answer = await send({ method: 'PATCH', path });

    const allowed = answer.headers.get('Allow')?.split(', ');
    expect(answer).toMatchObject(problem(405, 'method_not_allowed', { allowed_methods: allowed }));
    expect(allowed).toContain(known);
    expect(allowed).not.toContain('PATCH');
  });
});

describe('a body', () => {
  const number = { phone_number: free, provider: 'sip' };

  it('of 64 KiB is read', async () => {
    expect(await send({ body: jsonOfBytes(MAX_BODY_BYTES) })).toMatchObject(problem(422, 'validation_failed'));
  });

  it.each<{ what: string; path?: string; body: unknown; at: string[] }>([
    { what: 'lacks a member', body: { name: 'Twilio' }, at: ['credentials'] },
    { what: 'has a member too many', body: { ...integration, unasked: 'plainvalue' }, at: ['unasked'] },
    { what: 'has an empty name', body: { ...integration, name: '' }, at: ['name'] },
    {
      what: 'has a name of 101 characters',
      body: { ...integration, name: 'plainvalue'.repeat(10) + '.' },
      at: ['name'],
    },
    { what: 'has a control character in its name', body: { ...integration, name: 'plainvalue\n' }, at: ['name'] },
    {
      what: 'names an unknown provider',
      body: { ...integration, credentials: { provider: 'plainvalue' } },
      at: ['credentials.provider'],
    },
    {
      what: 'has an account SID of another form',
      body: { ...integration, credentials: { ...twilio, account_sid: 'plainvalue' } },
      at: ['credentials.account_sid'],
    },
    {
      what: 'is out of bounds in two places',
      body: { name: 7, credentials: { ...twilio, auth_token: '' } },
      at: ['name', 'credentials.auth_token'],
    },
    { what: 'is not an object', body: '["plainvalue"]', at: [''] },
    {
      what: 'has a number that is not E.164',
      path: '/api/phone-numbers',
      body: { ...number, phone_number: 'plainvalue' },
      at: ['phone_number'],
    },
    {
      what: 'has a number that begins with +0',
      path: '/api/phone-numbers',
      body: { ...number, phone_number: '+04155550199' },
      at: ['phone_number'],
    },
    {
      what: 'has a PIN that is too short',
      path: '/api/phone-numbers',
      body: { ...number, inbound_pin: '123' },
      at: ['inbound_pin'],
    },
  ])('that $what gets 422, which says where and does not repeat the value', async ({ path, body, at }) => {
    const before = await server.stored();

    const answer = await send({ ...(path === undefined ? {} : { path }), body });

    const errors = at.map((place) => ({ path: place, message: expect.stringMatching(/./) }));
    expect(answer).toMatchObject(problem(422, 'validation_failed', { errors }));
    expect(answer.text).not.toContain('plainvalue');
    expect(await server.stored()).toEqual(before);
  });

  it('that is not JSON is not repeated in the answer', async () => {
    expect((await send({ body: '{"name": plainvalue' })).text).not.toContain('plainvalue');
  });
});

describe('an organization of the tier starter', () => {
  const LIMIT = 100;
  const MUTATIONS_LIMIT = 20;
  /** On a slow machine several windows of the limit may end before one is full. */
  const MAX_REQUESTS = 20 * LIMIT;

  let starter: Client;
  let starterUser: Client;

  beforeEach(async () => {
    starter = await server.newOrganization({ tier: 'starter' });
    starterUser = await server.newKey(starter.organization_id, 'user');
  });

  async function sendUntilLimited(request: (index: number) => Request) {
    const passed: number[] = [];
    while (passed.length < MAX_REQUESTS) {
      const answer = await send(request(passed.length));
      if (answer.status === 429) return { passed, limited: answer };
      passed.push(answer.status);
    }
    throw new Error('The limit was never met');
  }

  const createAsUser = (): Request => ({ as: () => starterUser, body: integration });

  it('is limited to 20 mutations in 10 s, and what is refused is not done', async () => {
    const numbers = newNumbers(MAX_REQUESTS);
    const { passed, limited } = await sendUntilLimited((index) => ({
      as: () => starter,
      path: '/api/phone-numbers',
      body: { phone_number: numbers[index], provider: 'sip' },
    }));

    expect(limited).toMatchObject(problem(429, 'rate_limited'));
    expect(limited.headers.get('Content-Type')).toBe('application/problem+json');
    expect(limited.headers.get('Retry-After')).toMatch(/^[1-9]\d*$/);
    expect(limited.headers.get('Cache-Control')).toBe('no-store, no-transform');
    expect(passed.length).toBeGreaterThanOrEqual(MUTATIONS_LIMIT);
    expect(passed.filter((status) => status !== 201)).toEqual([]);
    const rows = await server.rows('phone_numbers');
    expect(rows.filter((row) => row['organization_id'] === starter.organization_id)).toHaveLength(passed.length);
  });

  it('is limited to 100 requests in 10 s', async () => {
    const { passed, limited } = await sendUntilLimited(() => ({
      as: () => starter,
      method: 'GET',
      path: '/api/phone-numbers',
    }));

    expect(limited).toMatchObject(problem(429, 'rate_limited'));
    expect(passed.length).toBeGreaterThanOrEqual(LIMIT);
    expect(passed.filter((status) => status !== 200)).toEqual([]);
  });

  it('has one limit for all its keys, which counts before their permissions', async () => {
    const { passed, limited } = await sendUntilLimited(createAsUser);

    expect(passed.length).toBeGreaterThanOrEqual(MUTATIONS_LIMIT);
    expect(passed.filter((status) => status !== 403)).toEqual([]);
    expect(limited).toMatchObject(problem(429, 'rate_limited'));
  });

  it('does not use up the limit of another organization', async () => {
    await sendUntilLimited(createAsUser);

    expect((await send({ method: 'DELETE', path: `/api/integrations/${MISSING}` })).status).toBe(404);
  });
});
