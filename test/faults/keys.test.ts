/** The making and the revocation of API keys, when bindings fail: before they act, after they did, or by acting late. */
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { failingBindings, interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
  emptyStorage,
  everythingKept,
  newClient,
  rowOf,
  rows,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { withoutBackOff } from './every-call.ts';

const LOST = 'D1_ERROR: Network connection lost.';
const OVERLOADED = 'D1_ERROR: D1 DB is overloaded. Requests queued for too long.';

let client: Client;

const warm = (by: Client) => call(by, 'GET', '/api/nothing');

beforeEach(withoutBackOff);

beforeEach(async () => {
  await emptyStorage();
  client = await newClient();
  await warm(client);
});

/** Bindings whose first batch is not carried out, but kept for later; `meanwhile` happens in between. */
function withLateTry(meanwhile: () => Promise<unknown> = () => Promise.resolve()) {
  let late: (() => Promise<unknown>) | undefined;
  const bindings = interceptedBindings(async (name, carryOut) => {
    if (name !== 'DB.batch' || late) return carryOut();
    late = carryOut;
    await meanwhile();
    throw new Error(LOST);
  });
  const land = async () => {
    expect(late).toBeDefined();
    await late?.();
  };
  return { bindings, land };
}

/** Bindings whose first batch is carried out, and then something else happens, and its answer is lost. */
function withLostAnswer(meanwhile: () => Promise<unknown>) {
  let losses = 1;
  return interceptedBindings(async (name, carryOut) => {
    const result = await carryOut();
    if (name !== 'DB.batch' || (losses -= 1) < 0) return result;
    await meanwhile();
    throw new Error(LOST);
  });
}

const isAdmitted = async (by: Client) => (await call(by, 'GET', '/api/integrations')).status === 200;

const statusOf = async ({ key_id }: Client) => (await rowOf('api_keys', key_id))['status'];

describe('a new API key', () => {
  const create = (bindings = env) =>
    call(client, 'POST', '/api/api-keys', { body: { name: 'CI', role: 'agent_manager' }, bindings });

  const answered = z.object({ data: z.object({ raw_key: z.string(), key: z.object({ key_id: z.string() }) }) });
  const holderOf = (text: string): Client => {
    const { raw_key, key } = answered.parse(JSON.parse(text)).data;
    return { organization_id: client.organization_id, key_id: key.key_id, raw_key };
  };

  const others = async () =>
    (await rows('api_keys')).filter(
      (row) => row['organization_id'] === client.organization_id && row['key_id'] !== client.key_id,
    );

  it.each(['before', 'after'] as const)('is made once, and works, where D1 fails once, %s it commits', async (when) => {
    const { bindings } = failingBindings('DB.batch', { when, message: LOST, times: 1 });

    const { status, text } = await create(bindings);

    expect(status).toBe(201);
    const holder = holderOf(text);
    expect(await others()).toEqual([
      expect.objectContaining({ key_id: holder.key_id, key_hash: await hashKey(holder.raw_key) }),
    ]);
    expect(await actionsOn(holder.key_id)).toEqual(['api_key.created']);
    await createIntegration(holder);
  });

  it.each([
    [OVERLOADED, 'not_done'],
    [LOST, 'unknown'],
  ])('is not made where D1 stays away: %s', async (message, outcome) => {
    const before = await everythingKept();
    const { bindings } = failingBindings('DB.batch', { when: 'before', message });

    const { status, body, text } = await create(bindings);

    expect(status).toBe(503);
    expect(body).toMatchObject({ code: 'temporarily_unavailable', outcome });
    expect(text).not.toContain('bk_');
    expect(await everythingKept()).toEqual(before);
  });

  it('is wholly made, or not at all, where every answer is lost; it is then listed, to be revoked', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST });

    const { status, body, text } = await create(bindings);

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'unknown' });
    expect(text).not.toContain('bk_');
    const [made, ...more] = await others();
    expect(more).toEqual([]);
    expect(await actionsOn(String(made?.['key_id']))).toEqual(['api_key.created']);
    expect((await call(client, 'DELETE', `/api/api-keys/${String(made?.['key_id'])}`)).status).toBe(200);
  });

  it('is not alive again where its first try lands late, after its revocation', async () => {
    const { bindings, land } = withLateTry();
    const { status, text } = await create(bindings);
    expect(status).toBe(201);
    const holder = holderOf(text);
    expect((await call(client, 'DELETE', `/api/api-keys/${holder.key_id}`)).status).toBe(200);
    const before = await everythingKept();

    await land();

    expect(await everythingKept()).toEqual(before);
    expect(await statusOf(holder)).toBe('revoked');
    expect(await isAdmitted(holder)).toBe(false);
  });

  it('is not made again where its row is gone by the time of the retry', async () => {
    const bindings = withLostAnswer(async () => {
      await env.DB.prepare('DELETE FROM api_keys WHERE organization_id = ? AND key_id <> ?')
        .bind(client.organization_id, client.key_id)
        .run();
    });

    expect((await create(bindings)).status).toBe(201);

    expect(await others()).toEqual([]);
  });

  it('is answered as made where the caller’s key dies between the commit and the retry', async () => {
    const bindings = withLostAnswer(() => changeKey(client, `status = 'revoked'`));

    const { status, text } = await create(bindings);

    expect(status).toBe(201);
    expect(await isAdmitted(holderOf(text))).toBe(true);
    expect(await actionsOn(holderOf(text).key_id)).toEqual(['api_key.created']);
  });

  it.each([
    ['revoked', `status = 'revoked'`, `status = 'active'`],
    ['downgraded', `role = 'user'`, `role = 'admin'`],
    ['shortened', 'expires_at = unixepoch() - 1', 'expires_at = NULL'],
  ])('is in doubt where the caller’s key is %s while an earlier try is under way', async (_, dies, lives) => {
    const { bindings, land } = withLateTry(() => changeKey(client, dies));

    const { status, body, text } = await create(bindings);
    await changeKey(client, lives);
    await land();

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'unknown' });
    expect(text).not.toContain('bk_');
    expect(await others()).toHaveLength(1);
  });

  it('is a 500, asked once, where the SQL itself fails', async () => {
    const before = await everythingKept();
    const message = 'D1_ERROR: UNIQUE constraint failed: secret_table.secret_column: SQLITE_CONSTRAINT';
    const { bindings, calls } = failingBindings('DB.batch', { when: 'before', message });

    const { status, text } = await create(bindings);

    expect(status).toBe(500);
    expect(text).not.toMatch(/secret|bk_/);
    expect(calls).toEqual(['DB.batch']);
    expect(await everythingKept()).toEqual(before);
  });
});

describe('a revocation', () => {
  let target: Client;

  beforeEach(async () => {
    target = await newClient({ organization_id: client.organization_id });
    await warm(target);
  });

  const revoke = (bindings = env, { by = client, of = target } = {}) =>
    call(by, 'DELETE', `/api/api-keys/${of.key_id}`, { bindings });

  it.each(['before', 'after'] as const)('is done once where D1 fails once, %s it commits', async (when) => {
    const { bindings } = failingBindings('DB.batch', { when, message: LOST, times: 1 });

    const { status, body } = await revoke(bindings);

    expect(status).toBe(200);
    expect(body).toMatchObject({ data: { key_id: target.key_id, status: 'revoked' } });
    expect(await actionsOn(target.key_id)).toEqual(['api_key.created', 'api_key.revoked']);
    expect(await isAdmitted(target)).toBe(false);
    expect(await env.KEY_CACHE.get(await hashKey(target.raw_key))).toBeNull();
  });

  it('of the caller’s own key is done once, and answered so, where the answer of D1 is lost', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST, times: 1 });

    const { status, body } = await revoke(bindings, { by: target });

    expect(status).toBe(200);
    expect(body).toMatchObject({ data: { status: 'revoked' } });
    expect(await actionsOn(target.key_id)).toEqual(['api_key.created', 'api_key.revoked']);
  });

  it.each([
    [OVERLOADED, 'not_done'],
    [LOST, 'unknown'],
  ])('is not done where D1 stays away: %s', async (message, outcome) => {
    const before = await everythingKept();
    const { bindings } = failingBindings('DB.batch', { when: 'before', message });

    expect(await revoke(bindings)).toMatchObject({
      status: 503,
      body: { code: 'temporarily_unavailable', outcome },
    });

    expect(await everythingKept()).toEqual(before);
    expect(await isAdmitted(target)).toBe(true);
  });

  it('is wholly done where every answer is lost: the key, still cached, changes nothing', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST });

    expect(await revoke(bindings)).toMatchObject({ status: 503, body: { outcome: 'unknown' } });

    expect(await statusOf(target)).toBe('revoked');
    expect(await actionsOn(target.key_id)).toEqual(['api_key.created', 'api_key.revoked']);
    const { status } = await call(target, 'POST', '/api/api-keys', { body: { name: 'Heir', role: 'user' } });
    expect(status).toBe(401);
    expect((await revoke()).status).toBe(200);
    expect(await isAdmitted(target)).toBe(false);
  });

  it('changes nothing more where its first try lands late', async () => {
    const { bindings, land } = withLateTry();
    expect((await revoke(bindings)).status).toBe(200);
    const before = await everythingKept();

    await land();

    expect(await everythingKept()).toEqual(before);
  });

  it('is answered as done where the caller’s key dies between the commit and the retry', async () => {
    const bindings = withLostAnswer(() => changeKey(client, `status = 'revoked'`));

    expect((await revoke(bindings)).status).toBe(200);
    expect(await statusOf(target)).toBe('revoked');
  });

  it('is in doubt where it is refused while an earlier try is under way', async () => {
    const { bindings, land } = withLateTry(() => changeKey(client, `role = 'agent_manager'`));

    const { status, body } = await revoke(bindings);
    await changeKey(client, `role = 'admin'`);
    await land();

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'unknown' });
    expect(await statusOf(target)).toBe('revoked');
    expect(await actionsOn(target.key_id)).toEqual(['api_key.created', 'api_key.revoked']);
  });

  it('is done where KV cannot forget the key, which changes nothing all the same', async () => {
    const { bindings } = failingBindings('KEY_CACHE.delete', { when: 'before', message: 'KV DELETE failed: 500' });

    expect((await revoke(bindings)).status).toBe(200);

    expect(await env.KEY_CACHE.get(await hashKey(target.raw_key))).not.toBeNull();
    expect((await revoke(env, { by: target, of: client })).status).toBe(401);
    expect(await statusOf(client)).toBe('active');
    expect((await revoke()).status).toBe(200);
    expect(await isAdmitted(target)).toBe(false);
  });
});
