import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { forgetKey } from '../../src/worker/callers/caller.ts';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import type { Role } from '../../src/worker/core/vocabulary.ts';
import { failingBindings } from '../bindings.ts';
import { actionsOn, call, changeKey, createIntegration, eventsOn, newClient, rowOf, rows } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const HOUR = 3600;

const rotated = z.object({
  data: z.object({
    raw_key: z.string(),
    key: z.looseObject({ key_id: z.string() }),
    previous_key: z.looseObject({ key_id: z.string() }),
  }),
});

let client: Client;
let old: Client;

const colleague = (role: Role, expires_at: number | null = null) =>
  newClient({ organization_id: client.organization_id, role, expires_at });

beforeEach(async () => {
  client = await newClient();
  old = await colleague('agent_manager');
});

const rotate = (overlap_seconds: unknown = HOUR, of: { key_id: string } = old, by = client, bindings = env) =>
  call(by, 'POST', `/api/api-keys/${of.key_id}/rotate`, { body: { overlap_seconds }, bindings });

async function successorOf(answer: Awaited<ReturnType<typeof rotate>>): Promise<Client> {
  const { raw_key, key } = rotated.parse(answer.body).data;
  return { organization_id: client.organization_id, raw_key, key_id: key.key_id };
}

const now = () => Math.floor(Date.now() / 1000);
const iso = (seconds: number) => new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');

/** Keys of an organization that have not ended, as its quota counts them. */
async function livingKeys(): Promise<unknown> {
  const all = await rows('organizations');
  return all.find(({ organization_id }) => organization_id === client.organization_id)?.['api_key_count'];
}

const expiryOf = async ({ key_id }: { key_id: string }) => (await rowOf('api_keys', key_id))['expires_at'];

const mutates = async (by: Client) => (await call(by, 'DELETE', '/api/integrations/intg_000000000000')).status === 404;

describe('a rotated key', () => {
  it('has a successor of the same name, user and role, which acts at once', async () => {
    const answer = await rotate();

    expect(answer.status).toBe(201);
    expect(answer.body).toMatchObject({
      success: true,
      message: 'API key rotated successfully',
      data: {
        raw_key: expect.stringMatching(/^bk_live_[0-9A-Za-z]{56}$/),
        key: { name: 'Test', role: 'agent_manager', user_id: 'user_operator', status: 'active', expires_at: null },
        previous_key: { key_id: old.key_id, status: 'active' },
      },
    });
    expect(await mutates(await successorOf(answer))).toBe(true);
  });

  it('lives on for the overlap', async () => {
    const before = now();

    const { body } = await rotate(HOUR);

    const ends = Number(await expiryOf(old));
    expect(ends).toBeGreaterThanOrEqual(before + HOUR);
    expect(ends).toBeLessThanOrEqual(now() + HOUR);
    expect(rotated.parse(body).data.previous_key['expires_at']).toBe(iso(ends));
    expect(await mutates(old)).toBe(true);
  });

  it('changes nothing once the overlap is over', async () => {
    await rotate(HOUR);
    await changeKey(old, `expires_at = unixepoch()`);

    expect(await mutates(old)).toBe(false);
  });

  it('changes nothing from then on where there is no overlap, though a cache admits it', async () => {
    await rotate(0);
    // As in an isolate that has not heard of it.
    await changeKey(old, 'expires_at = NULL');
    await call(old, 'GET', '/api/nothing');
    await changeKey(old, 'expires_at = unixepoch()');

    expect((await call(old, 'GET', '/api/integrations')).status).toBe(200);
    expect(await mutates(old)).toBe(false);
  });

  it('is gone from the isolate’s cache and from KV', async () => {
    await call(old, 'GET', '/api/nothing');

    await rotate(0);

    expect(await env.KEY_CACHE.get(await hashKey(old.raw_key))).toBeNull();
    expect((await call(old, 'GET', '/api/integrations')).status).toBe(401);
  });

  it('ends no later than it would have, and its successor neither', async () => {
    const ends = now() + 60;
    const expiring = await colleague('user', ends);

    const answer = await rotate(HOUR, expiring);

    expect(await expiryOf(expiring)).toBe(ends);
    expect(await expiryOf(await successorOf(answer))).toBe(ends);
  });

  it('that ends later than the overlap has a successor that ends when it would have', async () => {
    const ends = now() + 10 * HOUR;
    const expiring = await colleague('user', ends);

    const answer = await rotate(HOUR, expiring);

    expect(await expiryOf(await successorOf(answer))).toBe(ends);
    expect(Number(await expiryOf(expiring))).toBeLessThanOrEqual(now() + HOUR);
  });

  it('reads nothing any more where it ended itself by its very first call', async () => {
    const cold = await colleague('admin');

    await rotate(0, cold, cold);

    expect(await env.KEY_CACHE.get(await hashKey(cold.raw_key))).toBeNull();
    expect((await call(cold, 'GET', '/api/integrations')).status).toBe(401);
  });

  it('has ended, for the quota too, where there is no overlap, and has not where there is one', async () => {
    const before = await livingKeys();

    await rotate(0);

    expect(await livingKeys()).toBe(before);
    const { ended_at, expires_at } = await rowOf('api_keys', old.key_id);
    expect(ended_at).toBe(expires_at);
    const other = await colleague('user');
    await rotate(1, other);
    expect(await rowOf('api_keys', other.key_id)).toMatchObject({ ended_at: null });
  });

  it('may be another user’s, whose key its successor is, where the caller is an admin', async () => {
    await changeKey(old, `user_id = 'user_colleague'`);

    const answer = await rotate();

    expect(answer).toMatchObject({ status: 201, body: { data: { key: { user_id: 'user_colleague' } } } });
    expect((await successorOf(answer)).key_id).not.toBe(old.key_id);
  });

  it('may be another one of the caller’s user, where the caller is none', async () => {
    const manager = await colleague('agent_manager');

    expect((await rotate(HOUR, old, manager)).status).toBe(201);
  });

  it('has the calling key on record as the maker of its successor', async () => {
    const { key_id } = await successorOf(await rotate());

    expect(await rowOf('api_keys', key_id)).toMatchObject({ created_by: client.key_id });
  });

  it('may be the caller’s own', async () => {
    const answer = await rotate(0, client);

    expect(answer.status).toBe(201);
    expect(await mutates(client)).toBe(false);
    expect(await mutates(await successorOf(answer))).toBe(true);
  });

  it('is on record with its state before, and its successor with its creation', async () => {
    const answer = await rotate();

    const { key_id } = await successorOf(answer);
    expect(await eventsOn(old.key_id)).toMatchObject([
      { action: 'api_key.created' },
      { action: 'api_key.rotated', state: { key_id: old.key_id, expires_at: null, role: 'agent_manager' } },
    ]);
    expect(await actionsOn(key_id)).toEqual(['api_key.created']);
  });

  it('has one successor where the commit’s answer was lost and the batch was tried again', async () => {
    const before = await rows('api_keys');
    await call(client, 'GET', '/api/nothing');
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: 'Network connection lost.', times: 1 });

    const answer = await rotate(HOUR, old, client, bindings);

    expect(answer.status).toBe(201);
    expect(await rows('api_keys')).toHaveLength(before.length + 1);
    expect(await mutates(await successorOf(answer))).toBe(true);
  });
});

describe('a rotation is refused', () => {
  /** Nothing but the audit trail may have changed. */
  async function untouched(refused: () => ReturnType<typeof rotate>) {
    await call(client, 'GET', '/api/nothing');
    const before = await rows('api_keys');
    const answer = await refused();
    const lastSeen = (row: Record<string, unknown>) => ({ ...row, last_used_at: null });
    expect((await rows('api_keys')).map(lastSeen)).toEqual(before.map(lastSeen));
    return answer;
  }

  it('by 404 where there is no such key', async () => {
    const { status, body } = await untouched(() => rotate(HOUR, { key_id: 'apikey_000000000000' }));

    expect(status).toBe(404);
    expect(body).toMatchObject({ code: 'api_key_not_found' });
  });

  it('by 403 where the key’s role is above the caller’s', async () => {
    const admin = await colleague('admin');
    const manager = await colleague('agent_manager');

    const { status, body } = await untouched(() => rotate(HOUR, admin, manager));

    expect(status).toBe(403);
    expect(body).toMatchObject({ required_permission: 'api_keys:rotate', exceeds: 'role' });
  });

  it('by 403 where the key is another user’s and the caller no admin, lest it act in that user’s name', async () => {
    const manager = await colleague('agent_manager');
    await changeKey(old, `user_id = 'user_colleague'`);

    const { status, body } = await untouched(() => rotate(HOUR, old, manager));

    expect(status).toBe(403);
    expect(body).toMatchObject({
      code: 'permission_denied',
      required_permission: 'api_keys:rotate',
      exceeds: 'user',
      detail: 'An API key can rotate only keys of its own user, unless its role is admin.',
    });
  });

  it('by 403 where the caller was an admin when it was cached', async () => {
    await changeKey(old, `user_id = 'user_colleague'`);
    await call(client, 'GET', '/api/nothing');
    await changeKey(client, `role = 'agent_manager'`);

    expect(await untouched(() => rotate())).toMatchObject({ status: 403, body: { exceeds: 'user' } });
  });

  it('by 403 where the key ends later than the caller’s, lest the caller outlive its own end', async () => {
    const expiring = await colleague('admin', now() + HOUR);

    const { status, body } = await untouched(() => rotate(HOUR, old, expiring));

    expect(status).toBe(403);
    expect(body).toMatchObject({ required_permission: 'api_keys:rotate', exceeds: 'expires_at' });
  });

  it.each([
    ['revoked', `status = 'revoked'`],
    ['expired', 'expires_at = unixepoch()'],
  ])('by 409 where the key is %s', async (_, assignment) => {
    await changeKey(old, assignment);

    const { status, body } = await untouched(() => rotate());

    expect(status).toBe(409);
    expect(body).toMatchObject({ code: 'api_key_inactive' });
  });

  it.each([-1, 604_801, 0.5, '60', null])('by 422 where the overlap is %j', async (overlap_seconds) => {
    const { status, body } = await untouched(() => rotate(overlap_seconds));

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: 'validation_failed', errors: [{ path: 'overlap_seconds' }] });
  });

  it('by 401 where the caller’s key is dead in D1, whatever a cache says', async () => {
    await call(client, 'GET', '/api/nothing');
    await changeKey(client, `status = 'revoked'`);

    expect((await untouched(() => rotate())).status).toBe(401);
    forgetKey(await hashKey(client.raw_key));
  });

  it('never of a longer overlap than 7 days, which is admitted', async () => {
    expect((await rotate(604_800)).status).toBe(201);
  });
});

it('a rotation of one organization’s key leaves those of others alone', async () => {
  const stranger = await newClient();
  const integration_id = await createIntegration(stranger);

  await rotate(0);

  expect((await call(stranger, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(200);
});

describe('a key that is rotated once more, because the answer of its rotation was lost', () => {
  it.each([
    ['does not expire', null],
    ['expires in a day', now() + 24 * HOUR],
  ])('and that %s has a successor that lives as long, not as long as the first overlap', async (_, expires_at) => {
    old = await colleague('agent_manager', expires_at);
    await rotate(60);

    const answer = await rotate(HOUR);

    expect(answer.status).toBe(201);
    expect(await expiryOf(await successorOf(answer))).toBe(expires_at);
    expect(Number(await expiryOf(old))).toBeLessThanOrEqual(now() + 60);
  });

  it('and a third time, has the same life still', async () => {
    await rotate(HOUR);
    await rotate(60);

    expect(await expiryOf(await successorOf(await rotate(0)))).toBeNull();
  });

  it('may do so itself, as long as it lives', async () => {
    await rotate(60, old, old);

    const successor = await successorOf(await rotate(HOUR, old, old));

    expect(await expiryOf(successor)).toBeNull();
    expect(await mutates(successor)).toBe(true);
  });

  it('has no life beyond its overlap once a successor is used: that answer was not lost', async () => {
    const successor = await successorOf(await rotate(60));
    expect(await mutates(successor)).toBe(true);

    const stolen = await successorOf(await rotate(HOUR, old, old));

    expect(Number(await expiryOf(stolen))).toBeLessThanOrEqual(now() + 60);
  });

  it('is refused for its life, not for a quota that is full too', async () => {
    const ending = await colleague('admin', now() + HOUR);
    await rotate(60);
    await env.DB.prepare('UPDATE organizations SET max_api_keys = 0 WHERE organization_id = ?')
      .bind(client.organization_id)
      .run();

    expect(await rotate(HOUR, old, ending)).toMatchObject({ status: 403, body: { exceeds: 'expires_at' } });
  });

  it('gives no other key in its overlap a life beyond that key’s own', async () => {
    const ending = await colleague('admin');
    await rotate(60, ending);

    expect(await rotate(HOUR, old, ending)).toMatchObject({ status: 403, body: { exceeds: 'expires_at' } });
  });

  it('is judged by its own life, not by what is left of it: a caller that ends before may not', async () => {
    const ending = await colleague('admin', now() + HOUR);
    await rotate(60);

    expect(await rotate(HOUR, old, ending)).toMatchObject({ status: 403, body: { exceeds: 'expires_at' } });
  });
});
