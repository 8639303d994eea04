import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { hashKey } from '../../src/auth/api-key.ts';
import { countedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
  eventsOn,
  everythingStored,
  importNumber,
  keyChanges,
  newClient,
  page,
  resources,
  rowOf,
  start,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import type { Role } from '../../src/schema.ts';

let client: Client;
let target: Client;

const colleague = async (role: Role) => {
  const { organization_id } = client;
  const key = await newClient({ organization_id, role });
  await call(key, 'GET', '/api/nothing');
  return key;
};

beforeEach(async () => {
  client = await newClient();
  await call(client, 'GET', '/api/nothing');
  target = await colleague('admin');
});

const revoke = (of = target, by = client, bindings = env) =>
  call(by, 'DELETE', `/api/api-keys/${of.key_id}`, { bindings });

const statusOf = async ({ key_id }: Client) => (await rowOf('api_keys', key_id))['status'];

const isAdmitted = async (by: Client) => (await call(by, 'GET', '/api/integrations')).status === 200;

describe('a revoked key', () => {
  it('is answered as it is stored, to the character', async () => {
    await changeKey(target, `created_at = unixepoch('2024-01-15T10:30:00Z'), last_used_at = NULL`);

    const { status, text } = await revoke();

    const { prefix } = await rowOf('api_keys', target.key_id);
    expect(status).toBe(200);
    expect(text).toBe(
      `{"success":true,"message":"API key revoked successfully","data":{"key_id":"${target.key_id}","name":"Test",` +
        `"role":"admin","prefix":"${String(prefix)}","client_id":"${client.organization_id}","user_id":"user_operator",` +
        '"status":"revoked","created_at":"2024-01-15T10:30:00Z","last_used_at":null,"expires_at":null,"created_by":null}}',
    );
    expect(await statusOf(target)).toBe('revoked');
  });

  it('is gone from the isolate’s cache and from KV, and reads nothing any more', async () => {
    const hash = hashKey(target.raw_key);
    expect(await env.KEY_CACHE.get(hash)).not.toBeNull();

    await revoke();

    expect(await env.KEY_CACHE.get(hash)).toBeNull();
    const { bindings, calls } = countedBindings();
    const { status, body } = await call(target, 'GET', '/api/integrations', { bindings });
    expect(status).toBe(401);
    expect(body).toMatchObject({ code: 'invalid_api_key' });
    expect(calls).toEqual(['KEY_CACHE.get', 'DB.batch']);
  });

  it('reads nothing any more where it ended itself by its very first call', async () => {
    const { organization_id } = client;
    const cold = await newClient({ organization_id });

    expect((await revoke(cold, cold)).status).toBe(200);

    expect(await env.KEY_CACHE.get(hashKey(cold.raw_key))).toBeNull();
    expect((await call(cold, 'GET', '/api/integrations')).status).toBe(401);
  });

  it('changes nothing from then on, wherever a cache still admits it', async () => {
    const integration_id = await createIntegration(client);
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    const spare = await createIntegration(client);
    const hash = hashKey(target.raw_key);
    const stale = String(await env.KEY_CACHE.get(hash));
    await revoke();
    const before = await resources();
    const keysBefore = await page(client, '/api/api-keys');
    const mutations: [string, string, object?][] = [
      ['POST', '/api/integrations', { name: 'x', credentials: twilio }],
      ['PUT', `/api/integrations/${integration_id}`, { name: 'x' }],
      ['PUT', `/api/integrations/${integration_id}`, { credentials: twilio }],
      ['DELETE', `/api/integrations/${spare}`],
      ['POST', '/api/phone-numbers', { phone_number: unusedNumber(), provider: 'twilio', integration_id }],
      ['POST', '/api/phone-numbers', { phone_number: unusedNumber(), provider: 'sip', sip_password: 'p' }],
      ['PUT', `/api/phone-numbers/${phone_number_id}`, { supports_inbound: true }],
      ['DELETE', `/api/phone-numbers/${phone_number_id}`],
      ['POST', '/api/api-keys', { name: 'x', role: 'user' }],
      ['DELETE', `/api/api-keys/${client.key_id}`],
      ['DELETE', `/api/api-keys/${target.key_id}`],
    ];

    for (const [method, path, body] of mutations) {
      await env.KEY_CACHE.put(hash, stale);
      expect(await isAdmitted(target)).toBe(true);
      const answer = await call(target, method, path, { body });
      expect(answer).toMatchObject({ status: 401, body: { code: 'invalid_api_key' } });
    }

    expect(await resources()).toEqual(before);
    expect((await page(client, '/api/api-keys')).data).toEqual(keysBefore.data);
  });

  it('stays listed, as revoked', async () => {
    await revoke();

    const { data } = await page(client, '/api/api-keys');

    expect(Object.fromEntries(data.map(({ key_id, status }) => [key_id, status]))).toEqual({
      [client.key_id]: 'active',
      [target.key_id]: 'revoked',
    });
  });

  it('is revoked once: a second time is a 200, the same answer, and no event', async () => {
    const first = await revoke();
    const before = await everythingStored();

    const second = await revoke();

    expect(second.status).toBe(200);
    expect(second.text).toBe(first.text);
    expect(await everythingStored()).toEqual(before);
    expect(await actionsOn(target.key_id)).toEqual(['api_key.created', 'api_key.revoked']);
  });

  it('has one event, with the state before it and no hash', async () => {
    const { key_hash: _, ended_at: _ended, ...state } = await rowOf('api_keys', target.key_id);

    const { headers } = await revoke();

    expect((await eventsOn(target.key_id)).slice(1)).toEqual([
      expect.objectContaining({
        action: 'api_key.revoked',
        actor_key_id: client.key_id,
        request_id: headers.get('X-Request-Id'),
        state,
      }),
    ]);
    expect(state).toMatchObject({ status: 'active' });
  });

  it('takes no other key with it', async () => {
    const bystander = await colleague('user');

    await revoke();

    expect(await isAdmitted(bystander)).toBe(true);
    expect(await isAdmitted(client)).toBe(true);
    expect(await statusOf(bystander)).toBe('active');
  });

  it('costs a warm isolate one batch, and after the answer a KV delete', async () => {
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'DELETE', `/api/api-keys/${target.key_id}`, { bindings });

    expect(calls).toEqual(['DB.batch']);
    await answer.settle();
    expect(calls).toEqual(['DB.batch', 'KEY_CACHE.delete']);
  });
});

describe('who revokes whom', () => {
  it.each([
    ['admin', 'admin'],
    ['admin', 'agent_manager'],
    ['admin', 'user'],
    ['agent_manager', 'agent_manager'],
    ['agent_manager', 'user'],
  ] as const)('%s revokes %s', async (own, role) => {
    const [by, of] = [await colleague(own), await colleague(role)];

    expect((await revoke(of, by)).status).toBe(200);
    expect(await statusOf(of)).toBe('revoked');
    expect(await isAdmitted(of)).toBe(false);
  });

  it('agent_manager does not revoke admin, who lives on', async () => {
    const manager = await colleague('agent_manager');
    const before = await everythingStored();

    const { status, body } = await revoke(target, manager);

    expect(status).toBe(403);
    expect(body).toMatchObject({ code: 'permission_denied', required_permission: 'api_keys:revoke', exceeds: 'role' });
    expect(await everythingStored()).toEqual(before);
    expect(await isAdmitted(target)).toBe(true);
    await createIntegration(target);
  });

  it('agent_manager does not revoke admin even where it is revoked already', async () => {
    const manager = await colleague('agent_manager');
    await revoke();

    expect(await revoke(target, manager)).toMatchObject({ status: 403, body: { exceeds: 'role' } });
  });

  it.each(['admin', 'agent_manager'] as const)('a key of role %s revokes itself', async (role) => {
    const own = await colleague(role);

    expect(await revoke(own, own)).toMatchObject({ status: 200, body: { data: { status: 'revoked' } } });

    expect(await isAdmitted(own)).toBe(false);
    expect(await actionsOn(own.key_id)).toEqual(['api_key.created', 'api_key.revoked']);
  });

  it('an expired key is revoked as any other', async () => {
    await changeKey(target, 'expires_at = unixepoch() - 60');

    expect(await revoke()).toMatchObject({ status: 200, body: { data: { status: 'revoked' } } });
    expect(await statusOf(target)).toBe('revoked');
  });

  it('is one and the same 404 for a key that is missing and for another organization’s, which lives on', async () => {
    const stranger = await newClient();
    await call(stranger, 'GET', '/api/nothing');
    const before = await everythingStored();

    const foreign = await revoke(target, stranger);
    const missing = await revoke({ ...target, key_id: 'apikey_000000000000' }, stranger);

    expect(foreign).toMatchObject({ status: 404, body: { code: 'api_key_not_found' } });
    const withoutRequestId = (text: string) => text.replace(/"request_id":"[^"]*"/, '');
    expect(withoutRequestId(foreign.text)).toBe(withoutRequestId(missing.text));
    expect(await everythingStored()).toEqual(before);
    expect(await isAdmitted(target)).toBe(true);
  });

  it.each(['apikey_', 'apikey_A1B2C3D4E5F6', 'intg_000000000000'])(
    'is a 422 for the malformed id %s',
    async (key_id) => {
      expect(await revoke({ ...target, key_id })).toMatchObject({
        status: 422,
        body: { errors: [{ path: 'key_id' }] },
      });
    },
  );

  it.each(keyChanges)('is nobody by a key that, cached as alive, %s', async (_, assignment, status, code) => {
    await changeKey(client, assignment);
    const before = await everythingStored();

    const { body, ...answer } = await revoke();

    expect(answer.status).toBe(status);
    expect(body).toMatchObject({ code });
    expect(body).not.toHaveProperty('exceeds');
    expect(await everythingStored()).toEqual(before);
    expect(await isAdmitted(target)).toBe(true);
  });

  it('is judged by the caller’s role as D1 has it, not as it is cached', async () => {
    await changeKey(client, `role = 'agent_manager'`);

    expect(await revoke()).toMatchObject({ status: 403, body: { exceeds: 'role' } });
    expect(await statusOf(target)).toBe('active');
  });

  it('is judged by the target’s role as it is now', async () => {
    const manager = await colleague('agent_manager');
    await changeKey(target, `role = 'user'`);

    expect((await revoke(target, manager)).status).toBe(200);
  });
});

describe('simultaneous calls', () => {
  it('revoke a key once: twelve 200, one event', async () => {
    const answers = await Promise.all(Array.from({ length: 12 }, () => revoke()));

    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 12 }, () => 200));
    expect(await actionsOn(target.key_id)).toEqual(['api_key.created', 'api_key.revoked']);
  });

  it('of two keys that revoke each other leave one', async () => {
    const answers = await Promise.all([revoke(target, client), revoke(client, target)]);

    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 401]));
    expect(new Set([await statusOf(client), await statusOf(target)])).toEqual(new Set(['active', 'revoked']));
  });
});
