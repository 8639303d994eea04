import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { eventIdBeside } from '../../src/worker/core/ids.ts';
import type { Role } from '../../src/worker/core/vocabulary.ts';
import { countedBindings, interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
  eventsOn,
  everythingKept,
  fillKeys,
  importNumber,
  keyChanges,
  newClient,
  page,
  resources,
  rowOf,
  rows,
  start,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

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
        '"status":"revoked","created_at":"2024-01-15T10:30:00Z","last_used_at":null,"expires_at":null}}',
    );
    expect(await statusOf(target)).toBe('revoked');
  });

  it('is gone from the isolate’s cache and from KV, and reads nothing any more', async () => {
    const hash = await hashKey(target.raw_key);
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

    expect(await env.KEY_CACHE.get(await hashKey(cold.raw_key))).toBeNull();
    expect((await call(cold, 'GET', '/api/integrations')).status).toBe(401);
  });

  it('changes nothing from then on, wherever a cache still admits it', async () => {
    const integration_id = await createIntegration(client);
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    const spare = await createIntegration(client);
    await revoke();
    /** Its use is noted after the answer. */
    const keys = async () =>
      (await page(client, '/api/api-keys')).data.map((key) => ({ ...key, last_used_at: 'not compared' }));
    const before = await resources();
    const keysBefore = await keys();
    const mutations: [string, string, object?][] = [
      ['POST', '/api/integrations', { name: 'x', credentials: twilio }],
      ['PUT', `/api/integrations/${integration_id}`, { name: 'x' }],
      ['PUT', `/api/integrations/${integration_id}`, { credentials: twilio }],
      ['DELETE', `/api/integrations/${spare}`],
      ['POST', '/api/phone-numbers?verify=false', { phone_number: unusedNumber(), provider: 'twilio', integration_id }],
      [
        'POST',
        '/api/phone-numbers',
        { phone_number: unusedNumber(), provider: 'sip', sip_username: 'user', sip_password: 'p' },
      ],
      ['PUT', `/api/phone-numbers/${phone_number_id}`, { supports_inbound: true }],
      ['DELETE', `/api/phone-numbers/${phone_number_id}`],
      ['POST', '/api/api-keys', { name: 'x', role: 'user' }],
      ['DELETE', `/api/api-keys/${client.key_id}`],
      ['DELETE', `/api/api-keys/${target.key_id}`],
    ];

    for (const [method, path, body] of mutations) {
      // As in an isolate that has not heard of it.
      await changeKey(target, `status = 'active'`);
      expect(await isAdmitted(target)).toBe(true);
      await changeKey(target, `status = 'revoked'`);
      const answer = await call(target, method, path, { body });
      expect(answer).toMatchObject({ status: 401, body: { code: 'invalid_api_key' } });
    }

    expect(await resources()).toEqual(before);
    expect(await keys()).toEqual(keysBefore);
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
    const before = await everythingKept();

    const second = await revoke();

    expect(second.status).toBe(200);
    expect(second.text).toBe(first.text);
    expect(await everythingKept()).toEqual(before);
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
    const before = await everythingKept();

    const { status, body } = await revoke(target, manager);

    expect(status).toBe(403);
    expect(body).toMatchObject({ code: 'permission_denied', required_permission: 'api_keys:revoke', exceeds: 'role' });
    expect(await everythingKept()).toEqual(before);
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
    const before = await everythingKept();

    const foreign = await revoke(target, stranger);
    const missing = await revoke({ ...target, key_id: 'apikey_000000000000' }, stranger);

    expect(foreign).toMatchObject({ status: 404, body: { code: 'api_key_not_found' } });
    const withoutRequestId = (text: string) => text.replace(/"request_id":"[^"]*"/, '');
    expect(withoutRequestId(foreign.text)).toBe(withoutRequestId(missing.text));
    expect(await everythingKept()).toEqual(before);
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
    const before = await everythingKept();

    const { body, ...answer } = await revoke();

    expect(answer.status).toBe(status);
    expect(body).toMatchObject({ code });
    expect(body).not.toHaveProperty('exceeds');
    expect(await everythingKept()).toEqual(before);
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

describe('a key that is revoked with its descendants', () => {
  const made = z.object({ data: z.object({ raw_key: z.string(), key: z.object({ key_id: z.string() }) }) });
  const revoked = z.object({
    data: z.looseObject({ status: z.string(), revoked_descendants: z.array(z.looseObject({ key_id: z.string() })) }),
  });

  /** A key that another one makes, known to the caches. */
  async function madeBy(maker: Client, role: Role = 'admin'): Promise<Client> {
    const { body } = await call(maker, 'POST', '/api/api-keys', { body: { name: 'Made', role } });
    const { raw_key, key } = made.parse(body).data;
    const child = { organization_id: maker.organization_id, raw_key, key_id: key.key_id };
    await call(child, 'GET', '/api/nothing');
    return child;
  }

  async function rotatedBy(rotating: Client, of = rotating): Promise<Client> {
    const { body } = await call(rotating, 'POST', `/api/api-keys/${of.key_id}/rotate`, {
      body: { overlap_seconds: 0 },
    });
    const { raw_key, key } = made.parse(body).data;
    return { organization_id: of.organization_id, raw_key, key_id: key.key_id };
  }

  const path = (of: Client) => `/api/api-keys/${of.key_id}?descendants=true`;
  const revokeAll = (of = target, by = client, options: Parameters<typeof call>[3] = {}) =>
    call(by, 'DELETE', path(of), options);
  const descendantsIn = (body: unknown) => revoked.parse(body).data.revoked_descendants.map(({ key_id }) => key_id);
  const statuses = (...keys: Client[]) => Promise.all(keys.map(statusOf));

  it('takes those that it made, and those that they made, and no other', async () => {
    const child = await madeBy(target);
    const grandchild = await madeBy(child, 'user');
    const successor = await rotatedBy(await madeBy(child));
    const sibling = await madeBy(client);
    const stranger = await madeBy(await newClient());

    const { status, body } = await revokeAll();

    expect(status).toBe(200);
    expect(descendantsIn(body).toSorted()).toEqual(
      [child, grandchild, successor].map(({ key_id }) => key_id).toSorted(),
    );
    expect(await statuses(target, child, grandchild, successor)).toEqual(Array.from({ length: 4 }, () => 'revoked'));
    expect(await statuses(client, sibling, stranger)).toEqual(Array.from({ length: 3 }, () => 'active'));
    for (const key of [target, child, grandchild, successor]) {
      expect(await isAdmitted(key)).toBe(false);
      expect(await env.KEY_CACHE.get(await hashKey(key.raw_key))).toBeNull();
    }
  });

  it('is answered as without them, and with each as it is listed from then on', async () => {
    const { key_id } = await madeBy(target);
    await madeBy(target, 'user');

    const { data } = revoked.parse((await revokeAll()).body);

    const { data: listed } = await page(client, '/api/api-keys');
    const { revoked_descendants, ...key } = data;
    expect(key).toEqual(listed.find((other) => other['key_id'] === target.key_id));
    expect(revoked_descendants).toEqual(
      listed.filter((other) => other['key_id'] !== target.key_id && other['key_id'] !== client.key_id),
    );
    expect(revoked_descendants).toContainEqual(expect.objectContaining({ key_id, status: 'revoked' }));
  });

  it('has an event, and each of them one of its own, of the same operation and with the state just before', async () => {
    const child = await madeBy(target);
    const { key_hash: _, ended_at: _ended, ...state } = await rowOf('api_keys', child.key_id);

    const { headers } = await revokeAll();

    const events = (await rows('audit_events')).filter(
      ({ action, organization_id }) => action === 'api_key.revoked' && organization_id === client.organization_id,
    );
    const root = events.find(({ target_id }) => target_id === target.key_id);
    const own = events.find(({ target_id }) => target_id === child.key_id);
    expect(events).toHaveLength(2);
    expect(own).toMatchObject({
      event_id: eventIdBeside(String(root?.['event_id']), child.key_id),
      actor_key_id: client.key_id,
      request_id: headers.get('X-Request-Id'),
    });
    expect(JSON.parse(String(own?.['state']))).toEqual(state);
  });

  it.each([
    ['revoked', `status = 'revoked'`],
    ['expired', 'expires_at = 1'],
    ['over', 'expires_at = 1, ended_at = 1'],
  ])('reaches them through one that is %s, which stays as it was', async (_, assignment) => {
    const dead = await madeBy(target);
    const living = await madeBy(dead, 'user');
    await changeKey(dead, assignment);
    const before = await rowOf('api_keys', dead.key_id);

    const { body } = await revokeAll();

    expect(descendantsIn(body)).toEqual([living.key_id]);
    expect(await statusOf(living)).toBe('revoked');
    expect(await rowOf('api_keys', dead.key_id)).toEqual(before);
    expect(await actionsOn(dead.key_id)).toEqual(['api_key.created']);
  });

  it('may have been revoked before: they still are', async () => {
    const child = await madeBy(target);
    await revoke();

    const { status, body } = await revokeAll();

    expect(status).toBe(200);
    expect(descendantsIn(body)).toEqual([child.key_id]);
    expect(await statusOf(child)).toBe('revoked');
    expect(await actionsOn(target.key_id)).toEqual(['api_key.created', 'api_key.revoked', 'api_key.revoked']);
  });

  it('is revoked once: a second time is a 200 with none, and no event', async () => {
    await madeBy(target);
    await revokeAll();
    const before = await everythingKept();

    const { status, body } = await revokeAll();

    expect(status).toBe(200);
    expect(descendantsIn(body)).toEqual([]);
    expect(await everythingKept()).toEqual(before);
  });

  it('may be the caller, or have made it: the answer still tells', async () => {
    const child = await madeBy(target);

    const { status, body } = await revokeAll(target, child);

    expect(status).toBe(200);
    expect(descendantsIn(body)).toEqual([child.key_id]);
    expect(await isAdmitted(child)).toBe(false);
    expect(await revokeAll(client, client)).toMatchObject({ status: 200 });
    expect(await statusOf(client)).toBe('revoked');
  });

  describe.each([
    ['itself', async () => [target, client] as const],
    ['one that it made', async () => [await colleague('agent_manager'), await colleague('agent_manager')] as const],
  ])('and whose role, or that of %s, is above the caller’s', (who, prepare) => {
    it('is refused, all of it', async () => {
      const [of] = await prepare();
      const by = await colleague('agent_manager');
      const child = await madeBy(of, 'user');
      const promoted = await madeBy(of, 'user');
      if (who === 'one that it made') await changeKey(promoted, `role = 'admin'`);
      const before = await everythingKept();

      const { status, body } = await revokeAll(of, by);

      expect(status).toBe(403);
      expect(body).toMatchObject({
        code: 'permission_denied',
        required_permission: 'api_keys:revoke',
        exceeds: 'role',
      });
      expect(await everythingKept()).toEqual(before);
      expect(await statuses(of, child, promoted)).toEqual(['active', 'active', 'active']);
    });
  });

  it('is not refused for a dead one above the caller’s role', async () => {
    const [of, by] = [await colleague('agent_manager'), await colleague('agent_manager')];
    await changeKey(await madeBy(of, 'user'), `role = 'admin', expires_at = 1`);

    expect((await revokeAll(of, by)).status).toBe(200);
  });

  it('is the same 404 for a key that is missing and for another organization’s, whose keys live on', async () => {
    const child = await madeBy(target);
    const stranger = await newClient();
    await call(stranger, 'GET', '/api/nothing');
    const before = await everythingKept();

    for (const of of [target, { ...target, key_id: 'apikey_000000000000' }]) {
      expect(await revokeAll(of, stranger)).toMatchObject({ status: 404, body: { code: 'api_key_not_found' } });
    }

    expect(await everythingKept()).toEqual(before);
    expect(await statusOf(child)).toBe('active');
  });

  it('takes no key of another organization whose maker it is said to be', async () => {
    const stranger = await newClient();
    await changeKey(stranger, `created_by = '${target.key_id}'`);

    expect(descendantsIn((await revokeAll()).body)).toEqual([]);

    expect(await statusOf(stranger)).toBe('active');
  });

  it.each(keyChanges)('is nobody’s by a key that, cached as alive, %s', async (_, assignment, status) => {
    const child = await madeBy(target);
    await changeKey(client, assignment);

    expect((await revokeAll()).status).toBe(status);

    expect(await statuses(target, child)).toEqual(['active', 'active']);
  });

  it('is answered again under its Idempotency-Key, with the same descendants', async () => {
    await madeBy(await madeBy(target), 'user');
    const headers = { 'Idempotency-Key': 'once' };
    const first = await revokeAll(target, client, { headers });

    const again = await revokeAll(target, client, { headers });

    expect(again.headers.get('Idempotency-Replayed')).toBe('true');
    expect(again.text).toBe(first.text);
    expect(descendantsIn(again.body)).toHaveLength(2);
    expect(await call(client, 'DELETE', `/api/api-keys/${target.key_id}`, { headers })).toMatchObject({
      status: 422,
      body: { code: 'idempotency_key_reused' },
    });
  });

  it('takes them by one batch, no try of which undoes or adds anything later', async () => {
    const child = await madeBy(target);
    let land = async (): Promise<unknown> => undefined;
    let batches = 0;
    const bindings = interceptedBindings((name, carryOut) => {
      if (name !== 'DB.batch') return carryOut();
      batches += 1;
      land = carryOut;
      return carryOut();
    });
    await revokeAll(target, client, { bindings });
    expect(batches).toBe(1);
    expect(await statusOf(child)).toBe('revoked');
    const before = await everythingKept();

    await land();

    expect(await everythingKept()).toEqual(before);
  });

  it.each(['false', undefined])('takes them not where descendants is %s', async (descendants) => {
    const child = await madeBy(target);
    const query = descendants === undefined ? '' : `?descendants=${descendants}`;

    const { status, body } = await call(client, 'DELETE', `/api/api-keys/${target.key_id}${query}`);

    expect(status).toBe(200);
    expect(revoked.shape.data.partial().parse(Object(body).data)).not.toHaveProperty('revoked_descendants');
    expect(await isAdmitted(child)).toBe(true);
  });

  it.each(['descendants=1', 'descendants=', 'descendants=true&descendants=true', 'descendant=true'])(
    'is a 422 for ?%s, and lives on',
    async (query) => {
      expect(await call(client, 'DELETE', `/api/api-keys/${target.key_id}?${query}`)).toMatchObject({ status: 422 });
      expect(await statusOf(target)).toBe('active');
    },
  );

  it('reads rows in proportion to them, whatever else the organization has', async () => {
    await madeBy(target);
    await fillKeys(client, 5_000);
    let read = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'DB.batch' && Array.isArray(result)) for (const { meta } of result) read += meta.rows_read;
      return result;
    });

    await revokeAll(target, client, { bindings });

    expect(read).toBeLessThan(200);
  });
});
