import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { hashKey, isWellFormed } from '../../src/worker/callers/raw-key.ts';
import { countedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
  eventsOn,
  everythingKept,
  everythingStored,
  keyChanges,
  newClient,
  rowOf,
  start,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const DAY = 86_400;
const now = () => Math.floor(Date.now() / 1000);
const iso = (seconds: number) => new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');

let client: Client;

const become = async (...options: Parameters<typeof newClient>) => {
  client = await newClient(...options);
  await call(client, 'GET', '/api/nothing');
};

beforeEach(() => become());

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const create = (body: unknown, bindings = env) => call(client, 'POST', '/api/api-keys', { body, bindings });

const created = z.object({
  data: z.object({
    raw_key: z.string(),
    key: z.looseObject({ key_id: z.string(), expires_at: z.string().nullable() }),
  }),
});

/** Makes a key, and a client with it. */
async function createdBy(body: object) {
  const { status, text } = await create({ name: 'CI', role: 'user', ...body });
  if (status !== 201) throw new Error(`${status} ${text}`);
  const { raw_key, key } = created.parse(JSON.parse(text)).data;
  const holder: Client = { organization_id: client.organization_id, key_id: key.key_id, raw_key };
  return { holder, raw_key, key };
}

describe('a new API key', () => {
  it('is answered as it is stored, to the character', async () => {
    const { status, text } = await create({ name: 'CI', role: 'agent_manager' });

    const { raw_key, key } = created.parse(JSON.parse(text)).data;
    const row = await rowOf('api_keys', key.key_id);
    expect(status).toBe(201);
    expect(text).toBe(
      `{"success":true,"message":"API key created successfully","data":{"raw_key":"${raw_key}","key":{` +
        `"key_id":"${key.key_id}","name":"CI","role":"agent_manager","prefix":"${raw_key.slice(0, 12)}",` +
        `"client_id":"${client.organization_id}","user_id":"user_operator","status":"active",` +
        `"created_at":"${iso(Number(row['created_at']))}","last_used_at":null,"expires_at":null}}}`,
    );
    expect(key.key_id).toMatch(/^apikey_[a-f0-9]{12}$/);
    expect(raw_key).toMatch(/^bk_live_[0-9A-Za-z]{56}$/);
    expect(isWellFormed(raw_key)).toBe(true);
    expect(row).toMatchObject({
      name: 'CI',
      role: 'agent_manager',
      status: 'active',
      key_hash: await hashKey(raw_key),
    });
  });

  it('works at once, with its role', async () => {
    const { holder: manager } = await createdBy({ role: 'agent_manager' });
    const { holder: user } = await createdBy({ role: 'user' });

    const integration_id = await createIntegration(manager);
    expect((await call(user, 'GET', `/api/integrations/${integration_id}`)).status).toBe(200);
    expect((await call(user, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(403);
    expect((await call(manager, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(200);
  });

  it('is shown once: nothing that is stored or logged has it', async () => {
    const lines: unknown[][] = [];
    for (const method of ['debug', 'error', 'info', 'log', 'warn'] as const) {
      vi.spyOn(console, method).mockImplementation((...line) => void lines.push(line));
    }

    const { holder, raw_key } = await createdBy({});
    await call(holder, 'GET', '/api/integrations');
    const listed = await call(client, 'GET', '/api/api-keys');

    const everywhere = JSON.stringify([await everythingStored(), lines, listed.text]);
    expect(everywhere).toContain(holder.key_id);
    expect(everywhere).toContain(raw_key.slice(0, 12));
    expect(everywhere).not.toContain(raw_key.slice(0, 16));
    expect(everywhere).not.toContain(raw_key.slice(-48));
  });

  it('is the caller’s user’s', async () => {
    client = await newClient();
    await changeKey(client, `user_id = 'user_ada'`);

    const { key } = await createdBy({});

    expect(key).toMatchObject({ user_id: 'user_ada', client_id: client.organization_id });
    expect(await rowOf('api_keys', key.key_id)).toMatchObject({
      user_id: 'user_ada',
      organization_id: client.organization_id,
    });
  });

  it('is another each time', async () => {
    const [one, other] = [await createdBy({}), await createdBy({})];

    expect(one.key.key_id).not.toBe(other.key.key_id);
    expect(one.raw_key.slice(8, 30)).not.toBe(other.raw_key.slice(8, 30));
  });

  it('has one event, with its state and no hash', async () => {
    const { status, text, headers } = await create({ name: 'CI', role: 'user' });

    expect(status).toBe(201);
    const { key_id } = created.parse(JSON.parse(text)).data.key;
    const { key_hash: _, ended_at: _ended, ...state } = await rowOf('api_keys', key_id);
    expect(await eventsOn(key_id)).toEqual([
      expect.objectContaining({
        action: 'api_key.created',
        actor_key_id: client.key_id,
        request_id: headers.get('X-Request-Id'),
        state,
      }),
    ]);
  });

  it('costs a warm isolate one batch, and nothing after the answer', async () => {
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'POST', '/api/api-keys', { body: { name: 'CI', role: 'user' }, bindings });
    await answer.settle();

    expect(answer.status).toBe(201);
    expect(calls).toEqual(['DB.batch']);
  });
});

describe('the role of a new key', () => {
  it.each([
    ['admin', 'admin'],
    ['admin', 'agent_manager'],
    ['admin', 'user'],
    ['agent_manager', 'agent_manager'],
    ['agent_manager', 'user'],
  ] as const)('may be given by a key of role %s as %s', async (own, role) => {
    await become({ role: own });

    expect((await createdBy({ role })).key).toMatchObject({ role });
  });

  it('is not above the caller’s own', async () => {
    await become({ role: 'agent_manager' });
    const before = await everythingKept();

    const { status, body } = await create({ name: 'CI', role: 'admin' });

    expect(status).toBe(403);
    expect(body).toMatchObject({
      code: 'permission_denied',
      required_permission: 'api_keys:create',
      exceeds: 'role',
      detail: 'An API key cannot create, rename, rotate or revoke a key that has a higher role than its own.',
    });
    expect(await everythingKept()).toEqual(before);
  });

  it('is judged by the caller’s key as D1 has it, not as it is cached', async () => {
    await changeKey(client, `role = 'agent_manager'`);
    const before = await everythingKept();

    expect(await create({ name: 'CI', role: 'admin' })).toMatchObject({ status: 403, body: { exceeds: 'role' } });

    expect(await everythingKept()).toEqual(before);
    expect((await createdBy({ role: 'agent_manager' })).key).toMatchObject({ role: 'agent_manager' });
  });
});

describe('the expiry of a new key', () => {
  const withExpiry = async (expires_at: number) => {
    await become({ expires_at });
    return expires_at;
  };

  it('is the caller’s where none is given', async () => {
    const own = await withExpiry(now() + DAY);

    const { key } = await createdBy({});

    expect(key.expires_at).toBe(iso(own));
    expect(await rowOf('api_keys', key.key_id)).toMatchObject({ expires_at: own });
  });

  it('is none where the caller has none and none is given', async () => {
    expect((await createdBy({})).key.expires_at).toBeNull();
  });

  it('may be any time to come where the caller has none', async () => {
    expect((await createdBy({ expires_at: '9999-12-31T23:59:59Z' })).key.expires_at).toBe('9999-12-31T23:59:59Z');
  });

  it('loses its fraction of a second', async () => {
    expect((await createdBy({ expires_at: '2999-01-01T00:00:00.999Z' })).key.expires_at).toBe('2999-01-01T00:00:00Z');
  });

  it('may be the caller’s own, or any before it', async () => {
    const own = await withExpiry(now() + DAY);

    expect((await createdBy({ expires_at: iso(own) })).key.expires_at).toBe(iso(own));
    expect((await createdBy({ expires_at: iso(own - 1) })).key.expires_at).toBe(iso(own - 1));
  });

  it('is not later than the caller’s', async () => {
    const own = await withExpiry(now() + DAY);
    const before = await everythingKept();

    const { status, body } = await create({ name: 'CI', role: 'user', expires_at: iso(own + 1) });

    expect(status).toBe(403);
    expect(body).toMatchObject({
      code: 'permission_denied',
      required_permission: 'api_keys:create',
      exceeds: 'expires_at',
      detail: 'An API key cannot create or rotate a key that expires later than itself.',
    });
    expect(await everythingKept()).toEqual(before);
  });

  it('is judged by the caller’s key as D1 has it, not as it is cached', async () => {
    const own = now() + DAY;
    await changeKey(client, `expires_at = ${own}`);
    const before = await everythingKept();

    expect(await create({ name: 'CI', role: 'user', expires_at: iso(own + 1) })).toMatchObject({
      status: 403,
      body: { exceeds: 'expires_at' },
    });

    expect(await everythingKept()).toEqual(before);
    expect((await createdBy({})).key.expires_at).toBe(iso(own));
  });

  it.each([
    '2020-01-01T00:00:00Z',
    '2999-01-01',
    '2999-01-01T00:00:00',
    '2999-13-01T00:00:00Z',
    '2999-02-30T00:00:00Z',
    '12999-01-01T00:00:00Z',
    'tomorrow',
    '',
    32_472_144_000,
    true,
    ['2999-01-01T00:00:00Z'],
  ])('is a 422 as %j', async (expires_at) => {
    const before = await everythingKept();

    expect(await create({ name: 'CI', role: 'user', expires_at })).toMatchObject({
      status: 422,
      body: { code: 'validation_failed', errors: [{ path: 'expires_at', message: expect.any(String) }] },
    });
    expect(await everythingKept()).toEqual(before);
  });

  it('is a 422 as this very second, and not as the next', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });

    expect(await create({ name: 'CI', role: 'user', expires_at: iso(now()) })).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'expires_at', message: 'must be in the future' }] },
    });
    expect((await createdBy({ expires_at: iso(now() + 1) })).key.expires_at).toBe(iso(now() + 1));
  });

  it('ends the key', async () => {
    const { holder } = await createdBy({ expires_at: iso(now() + 30) });
    expect((await call(holder, 'GET', '/api/integrations')).status).toBe(200);

    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 31_000 });

    expect((await call(holder, 'GET', '/api/integrations')).status).toBe(401);
  });
});

describe('a new key that is refused', () => {
  it('for its role and its expiry is refused for its role', async () => {
    await become({ role: 'agent_manager', expires_at: now() + DAY });

    expect(await create({ name: 'CI', role: 'admin', expires_at: '2999-01-01T00:00:00Z' })).toMatchObject({
      status: 403,
      body: { exceeds: 'role' },
    });
  });

  it.each<[string, unknown, string[]]>([
    ['nothing', {}, ['name', 'role']],
    ['no object', [], ['']],
    ['no name', { role: 'user' }, ['name']],
    ['no role', { name: 'CI' }, ['role']],
    ['a name of 0 characters', { name: '', role: 'user' }, ['name']],
    ['a name of 101 characters', { name: 'x'.repeat(101), role: 'user' }, ['name']],
    ['a name with a line break', { name: 'a\nb', role: 'user' }, ['name']],
    ['an unknown role', { name: 'CI', role: 'owner' }, ['role']],
    ['a role in capitals', { name: 'CI', role: 'Admin' }, ['role']],
    ['a user of its own', { name: 'CI', role: 'user', user_id: 'user_eve' }, ['user_id']],
    ['an organization of its own', { name: 'CI', role: 'user', client_id: 'org_other' }, ['client_id']],
    ['a raw key of its own', { name: 'CI', role: 'user', raw_key: 'plaintext' }, ['raw_key']],
  ])('is a 422 by %s', async (_, body, paths) => {
    const before = await everythingKept();

    const { status, body: problem, text } = await create(body);

    expect(status).toBe(422);
    expect(problem).toMatchObject({ code: 'validation_failed', errors: paths.map((path) => ({ path })) });
    expect(text).not.toContain('plaintext');
    expect(await everythingKept()).toEqual(before);
  });

  it.each(keyChanges)('is so by a key that, cached as alive, %s', async (_, assignment, status, code) => {
    await changeKey(client, assignment);
    const before = await everythingKept();

    const { body, ...answer } = await create({ name: 'CI', role: 'user' });

    expect(answer.status).toBe(status);
    expect(body).toMatchObject({ code });
    expect(body).not.toHaveProperty('exceeds');
    expect(await everythingKept()).toEqual(before);
    expect(await actionsOn(client.key_id)).toEqual(['api_key.created']);
  });
});
