/** What operators do with the API keys of an organization: mint, list, revoke. */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { failingBindings, interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  emptyStorage,
  everythingKept,
  everythingStored,
  newClient,
  newOperator,
  page,
  rowOf,
  rows,
} from '../fixtures.ts';
import type { Client, Operator } from '../fixtures.ts';
import { customer, setStatus } from '../operations.ts';

const LOST = 'D1_ERROR: Network connection lost.';

let operator: Operator;
let client: Awaited<ReturnType<typeof customer>>;
let keys: string;

beforeEach(async () => {
  await emptyStorage();
  operator = await newOperator();
  client = await customer();
  keys = `${client.path}/api-keys`;
  await call(operator, 'GET', '/operator/nothing');
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const secondsLater = (seconds: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + seconds * 1000 });
const now = () => Math.floor(Date.now() / 1000);
const iso = (seconds: number) => new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');

const mint = (body: unknown, bindings = env) => call(operator, 'POST', keys, { body, bindings });
const revoke = (key_id: string, bindings = env) => call(operator, 'DELETE', `${keys}/${key_id}`, { bindings });
const revokeAll = (bindings = env) => call(operator, 'POST', `${keys}/revoke-all`, { bindings });
const reads = async (by: Client) => (await call(by, 'GET', '/api/integrations')).status;

const minted = z.object({
  data: z.object({ raw_key: z.string(), key: z.looseObject({ key_id: z.string(), created_at: z.string() }) }),
});

async function mintedBy(body: object) {
  const { text } = await mint({ name: 'Support', role: 'user', ...body });
  const { raw_key, key } = minted.parse(JSON.parse(text)).data;
  return { raw_key, key, holder: { organization_id: client.organization_id, raw_key, key_id: key.key_id } };
}

describe('a key that an operator mints', () => {
  it('is answered as it is stored, to the character', async () => {
    const expires_at = now() + 86_400;

    const { status, text } = await mint({
      name: 'Support',
      role: 'agent_manager',
      user_id: 'user_ada',
      expires_at: iso(expires_at),
    });

    expect(status).toBe(201);
    const { raw_key, key } = minted.parse(JSON.parse(text)).data;
    expect(text).toBe(
      `{"success":true,"message":"API key minted successfully","data":{"raw_key":"${raw_key}","key":{` +
        `"key_id":"${key.key_id}","name":"Support","role":"agent_manager","prefix":"${raw_key.slice(0, 12)}",` +
        `"client_id":"${client.organization_id}","user_id":"user_ada","status":"active",` +
        `"created_at":"${key.created_at}","last_used_at":null,"expires_at":"${iso(expires_at)}"}}}`,
    );
    expect(raw_key).toMatch(/^bk_live_[0-9A-Za-z]{56}$/);
    expect(await rowOf('api_keys', key.key_id)).toMatchObject({
      organization_id: client.organization_id,
      key_hash: await hashKey(raw_key),
      created_by: null,
      revision: 1,
      expires_at,
    });
  });

  it('is the operator’s user’s and does not expire, unless it is said', async () => {
    const { key } = await mintedBy({});
    const { key: other } = await mintedBy({ user_id: null, expires_at: null });

    for (const made of [key, other]) expect(made).toMatchObject({ user_id: 'user_operator', expires_at: null });
  });

  it('works at once, with its role', async () => {
    const { holder: admin } = await mintedBy({ role: 'admin' });
    const { holder: user } = await mintedBy({ role: 'user' });

    const integration_id = await createIntegration(admin, undefined, '?verify=false');
    expect((await call(user, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(403);
    expect((await call(admin, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(200);
  });

  it('is in the organization’s own list and trail, with the operator key as its maker', async () => {
    const { key } = await mintedBy({});

    const { data } = await page(client, `/api/audit-events?target_id=${key.key_id}`);
    const listed = await page(client, '/api/api-keys');

    expect(data).toMatchObject([
      {
        action: 'api_key.created',
        actor: { type: 'operator', id: operator.operator_key_id, name: 'Signup service' },
        actor_key_id: null,
        state: key,
      },
    ]);
    expect(listed.data).toContainEqual(key);
  });

  it('is shown once: nothing that is stored, logged or listed has it', async () => {
    const lines: unknown[][] = [];
    for (const method of ['debug', 'error', 'info', 'log', 'warn'] as const) {
      vi.spyOn(console, method).mockImplementation((...line) => void lines.push(line));
    }

    const { holder, raw_key } = await mintedBy({});
    await reads(holder);
    const listed = await page(operator, keys);

    const everywhere = JSON.stringify([await everythingStored(), lines, listed]);
    expect(everywhere).toContain(raw_key.slice(0, 12));
    for (const raw of [raw_key, operator.raw_key]) expect(everywhere).not.toContain(raw.slice(-40));
  });

  it('sleeps while its organization is suspended', async () => {
    await setStatus(client.organization_id, 'suspended');
    const { holder } = await mintedBy({ role: 'admin' });

    expect(await reads(holder)).toBe(401);
    await call(operator, 'POST', `${client.path}/resume`);
    expect(await reads(holder)).toBe(200);
  });

  it('is made once where an answer is lost, and shown', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST, times: 1 });

    const { status, text } = await mint({ name: 'Support', role: 'user' }, bindings);

    expect(status).toBe(201);
    const { raw_key, key } = minted.parse(JSON.parse(text)).data;
    expect(await rowOf('api_keys', key.key_id)).toMatchObject({ key_hash: await hashKey(raw_key) });
    expect(await rows('api_keys')).toHaveLength(2);
    expect(await actionsOn(key.key_id)).toEqual(['api_key.created']);
  });

  it('is not made where the quota of the organization is full, and the answer says which', async () => {
    await env.DB.prepare('UPDATE organizations SET max_api_keys = 1').run();
    const before = await everythingKept();

    expect(await mint({ name: 'Support', role: 'user' })).toMatchObject({
      status: 409,
      body: { code: 'quota_exceeded', quota: 'api_keys', limit: 1 },
    });

    expect(await everythingKept()).toEqual(before);
  });

  it.each([
    ['no organization', '/operator/organizations/org_nobody/api-keys', 404, 'organization_not_found'],
    ['an id of another form', '/operator/organizations/acme/api-keys', 422, 'validation_failed'],
  ])('is of an organization, not of %s', async (_, path, status, code) => {
    const before = await everythingKept();

    const answer = await call(operator, 'POST', path, { body: { name: 'Support', role: 'user' } });

    expect(answer).toMatchObject({ status, body: { code } });
    expect(await everythingKept()).toEqual(before);
  });

  it.each([0, 1])('is of no organization that is offboarded (is_offboarding %i)', async (isOffboarding) => {
    await setStatus(client.organization_id, 'offboarded', isOffboarding);
    const before = await everythingKept();

    expect(await mint({ name: 'Support', role: 'user' })).toMatchObject({
      status: 409,
      body: { code: 'organization_offboarded' },
    });

    expect(await everythingKept()).toEqual(before);
  });

  const user = 'must be user_ followed by 1 to 64 of A–Z, a–z, 0–9, _ and -';

  it.each<[string, object, string, string]>([
    ['without a name', { role: 'user' }, 'name', 'is required'],
    ['without a role', { name: 'K' }, 'role', 'is required'],
    ['with another role', { name: 'K', role: 'operator' }, 'role', 'must be one of admin, agent_manager, user'],
    [
      'that has expired',
      { name: 'K', role: 'user', expires_at: '2020-01-01T00:00:00Z' },
      'expires_at',
      'must be in the future',
    ],
    [
      'that expires on a day that does not exist',
      { name: 'K', role: 'user', expires_at: '2030-02-30T00:00:00Z' },
      'expires_at',
      'must be an RFC 3339 time, like 2030-01-15T10:30:00Z',
    ],
    ['of a user of another form', { name: 'K', role: 'user', user_id: 'ada' }, 'user_id', user],
    ['of no user', { name: 'K', role: 'user', user_id: 'user_' }, 'user_id', user],
    ['of a user with spaces', { name: 'K', role: 'user', user_id: 'user_ada b' }, 'user_id', user],
    ['of a user of 65 characters', { name: 'K', role: 'user', user_id: `user_${'a'.repeat(65)}` }, 'user_id', user],
    [
      'that is chosen',
      { name: 'K', role: 'user', raw_key: 'bk_live_mine' },
      'raw_key',
      '`raw_key` is not a known field',
    ],
    [
      'of another organization',
      { name: 'K', role: 'user', organization_id: 'org_other' },
      'organization_id',
      '`organization_id` is not a known field',
    ],
  ])('is not made %s, and a 422 says what to mend', async (_, body, path, message) => {
    const before = await everythingKept();

    expect(await mint(body)).toMatchObject({
      status: 422,
      body: { errors: [{ path, message: expect.stringContaining(message) }] },
    });

    expect(await everythingKept()).toEqual(before);
  });
});

describe('the list of an organization’s keys', () => {
  it('is what its own admin sees, and no more', async () => {
    const { organization_id } = client;
    const other = await newClient({ organization_id, role: 'user' });
    await newClient();
    await revoke(client.key_id);

    const { data, total_count } = await page(operator, keys);

    expect(total_count).toBe(2);
    // Keys that were made in one second are in the order of their ids.
    expect(new Map(data.map(({ key_id, client_id, status }) => [key_id, { client_id, status }]))).toEqual(
      new Map([
        [client.key_id, { client_id: organization_id, status: 'revoked' }],
        [other.key_id, { client_id: organization_id, status: 'active' }],
      ]),
    );
    expect(JSON.stringify(data)).not.toMatch(/key_hash|created_by|revision|raw_key/);
  });

  it('comes by pages, in either order', async () => {
    for (const _ of [1, 2, 3]) await newClient({ organization_id: client.organization_id, role: 'user' });
    const whole = await page(operator, keys);

    const first = await page(operator, `${keys}?page_size=3&order=desc`);
    const second = await page(operator, `${keys}?page_size=3&order=desc&cursor=${first.next_cursor}`);

    expect([...first.data, ...second.data]).toEqual(whole.data.toReversed());
    expect(second.next_cursor).toBeNull();
  });

  it('of one organization takes no cursor of another’s', async () => {
    const other = await customer();
    await newClient({ organization_id: other.organization_id, role: 'user' });
    const { next_cursor } = await page(operator, `${other.path}/api-keys?page_size=1`);

    expect((await call(operator, 'GET', `${keys}?page_size=1&cursor=${next_cursor}`)).status).toBe(422);
  });

  it('is a 404 of no organization, and empty of one without keys', async () => {
    await env.DB.prepare('DELETE FROM api_keys').run();

    expect(await call(operator, 'GET', '/operator/organizations/org_nobody/api-keys')).toMatchObject({
      status: 404,
      body: { code: 'organization_not_found' },
    });
    expect((await page(operator, keys)).data).toEqual([]);
  });
});

describe('a key that an operator revokes', () => {
  it('changes nothing from then on, reads for 60 s at most, and is answered as it is', async () => {
    secondsLater(0);
    expect(await reads(client)).toBe(200);

    const { status, body } = await revoke(client.key_id);

    expect(status).toBe(200);
    expect(body).toMatchObject({
      message: 'API key revoked successfully',
      data: { key_id: client.key_id, status: 'revoked', client_id: client.organization_id },
    });
    expect((await call(client, 'POST', '/api/api-keys', { body: { name: 'x', role: 'user' } })).status).toBe(401);
    secondsLater(61);
    expect(await reads(client)).toBe(401);
    expect(await env.KEY_CACHE.get(await hashKey(client.raw_key))).toBeNull();
  });

  it('may be the last admin’s, and is on record with the operator key', async () => {
    const { headers } = await revoke(client.key_id);

    const events = (await rows('audit_events')).filter(({ action }) => action === 'api_key.revoked');
    expect(events).toMatchObject([
      {
        target_id: client.key_id,
        actor_type: 'operator',
        actor_id: operator.operator_key_id,
        request_id: headers.get('X-Request-Id'),
      },
    ]);
  });

  it('is revoked once: the second time has no effect', async () => {
    await revoke(client.key_id);
    const before = await everythingKept();

    expect(await revoke(client.key_id)).toMatchObject({ status: 200, body: { data: { status: 'revoked' } } });

    expect(await everythingKept()).toEqual(before);
  });

  it('is no other key', async () => {
    const other = await newClient({ organization_id: client.organization_id });

    await revoke(client.key_id);

    expect(await reads(other)).toBe(200);
    expect(await rowOf('api_keys', other.key_id)).toMatchObject({ status: 'active' });
  });

  it('is one of the organization in the path: another’s is a 404, and stays', async () => {
    const stranger = await newClient();
    const before = await everythingKept();

    const answers = [await revoke(stranger.key_id), await revoke('apikey_000000000000')];

    for (const answer of answers) expect(answer).toMatchObject({ status: 404, body: { code: 'api_key_not_found' } });
    expect(
      await call(operator, 'DELETE', `/operator/organizations/org_nobody/api-keys/${client.key_id}`),
    ).toMatchObject({ status: 404, body: { code: 'organization_not_found' } });
    expect(await everythingKept()).toEqual(before);
  });

  it('is no operator key', async () => {
    expect(await revoke(operator.operator_key_id)).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'key_id', message: 'must be apikey_ followed by 12 lower-case hex digits' }] },
    });
  });

  it('can be revoked while its organization is suspended', async () => {
    await setStatus(client.organization_id, 'suspended');

    expect(await revoke(client.key_id)).toMatchObject({ status: 200, body: { data: { status: 'revoked' } } });
  });
});

describe('a revocation of all keys', () => {
  it('ends every key, the expired and the newest too, and says how many', async () => {
    const { organization_id } = client;
    await newClient({ organization_id, role: 'user' });
    const { holder } = await mintedBy({ role: 'admin' });
    const revokedBefore = await newClient({ organization_id });
    await revoke(revokedBefore.key_id);
    const other = await newClient();

    const { status, body } = await revokeAll();

    expect(status).toBe(200);
    expect(body).toEqual({ success: true, message: 'API keys revoked successfully', data: { revoked_count: 3 } });
    expect((await call(holder, 'POST', '/api/api-keys', { body: { name: 'x', role: 'user' } })).status).toBe(401);
    const statuses = (await rows('api_keys')).map((row) => [row['organization_id'] === organization_id, row['status']]);
    expect(statuses.filter(([ours]) => ours)).toEqual(statuses.filter(([ours]) => ours).map(() => [true, 'revoked']));
    expect(await reads(other)).toBe(200);
  });

  it('has one event for each key, all of one call', async () => {
    await newClient({ organization_id: client.organization_id, role: 'user' });

    const { headers } = await revokeAll();

    const events = (await rows('audit_events')).filter(({ action }) => action === 'api_key.revoked');
    expect(events).toHaveLength(2);
    for (const event of events) {
      expect(event).toMatchObject({ actor_id: operator.operator_key_id, request_id: headers.get('X-Request-Id') });
    }
  });

  it('of no keys is 0, and leaves no event', async () => {
    await revokeAll();
    const before = await everythingKept();

    expect(await revokeAll()).toMatchObject({ status: 200, body: { data: { revoked_count: 0 } } });

    expect(await everythingKept()).toEqual(before);
  });

  it('is told rightly where its answer is lost', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST, times: 1 });

    expect(await revokeAll(bindings)).toMatchObject({ status: 200, body: { data: { revoked_count: 1 } } });
    expect(await actionsOn(client.key_id)).toEqual(['api_key.created', 'api_key.revoked']);
  });

  it('does not revoke what was minted since, however late a second try of it lands', async () => {
    const batches: (() => Promise<unknown>)[] = [];
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'DB.batch') batches.push(carryOut);
      return carryOut();
    });
    await revokeAll(bindings);
    // Two: the first one's event would have the id of the batch, which is taken.
    const { holder } = await mintedBy({ role: 'admin' });
    const { holder: second } = await mintedBy({ role: 'admin' });
    const before = await everythingKept();

    for (const again of batches) await again();

    expect(batches).toHaveLength(1);
    expect(await everythingKept()).toEqual(before);
    expect([await reads(holder), await reads(second)]).toEqual([200, 200]);
  });

  it('under an Idempotency-Key does not revoke what was minted since, and tells the first count', async () => {
    const headers = { 'Idempotency-Key': 'all' };
    await call(operator, 'POST', `${keys}/revoke-all`, { headers });
    const { holder } = await mintedBy({ role: 'admin' });

    const again = await call(operator, 'POST', `${keys}/revoke-all`, { headers });

    expect(again).toMatchObject({ status: 200, body: { data: { revoked_count: 1 } } });
    expect(await reads(holder)).toBe(200);
  });

  it.each([
    ['no organization', 'org_nobody', 404, 'organization_not_found'],
    ['an id of another form', 'acme', 422, 'validation_failed'],
  ])('is of an organization, not of %s', async (_, id, status, code) => {
    const before = await everythingKept();

    const answer = await call(operator, 'POST', `/operator/organizations/${id}/api-keys/revoke-all`);

    expect(answer).toMatchObject({ status, body: { code } });
    expect(await everythingKept()).toEqual(before);
  });
});
