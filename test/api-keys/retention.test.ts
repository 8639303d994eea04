import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { forgetEndedKeys } from '../../src/worker/api-keys/retention.ts';
import worker from '../../src/worker/index.ts';
import { countedBindings, interceptedBindings } from '../bindings.ts';
import { actionsOn, call, changeKey, fillKeys, newClient, page, rowOf, rows } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const DAY = 24 * 60 * 60;
const now = () => Math.floor(Date.now() / 1000);

let client: Client;
let logged: unknown[];

beforeEach(async () => {
  await env.DB.prepare('DELETE FROM api_keys').run();
  client = await newClient();
  logged = [];
  vi.spyOn(console, 'info').mockImplementation((line) => void logged.push(JSON.parse(String(line))));
});

afterEach(() => vi.restoreAllMocks());

const colleague = () => newClient({ organization_id: client.organization_id });

/** A key with this in its row; times are days from now. */
async function keyWith(assignment: string): Promise<Client> {
  const key = await colleague();
  await changeKey(
    key,
    assignment.replaceAll(/(-?\d+) days/g, (_, days) => String(now() + Number(days) * DAY)),
  );
  return key;
}

const exists = async ({ key_id }: Client) => (await rows('api_keys')).some((row) => row['key_id'] === key_id);

async function livingKeys(): Promise<unknown> {
  const all = await rows('organizations');
  return all.find(({ organization_id }) => organization_id === client.organization_id)?.['api_key_count'];
}

/** The rows that all statements of a turn read. */
async function rowsRead(): Promise<number> {
  let count = 0;
  const bindings = interceptedBindings(async (_, carryOut) => {
    const result = await carryOut();
    if (Array.isArray(result)) for (const { meta } of result) count += meta.rows_read;
    return result;
  });
  await forgetEndedKeys(bindings);
  return count;
}

describe('an expired key', () => {
  it('has ended when it expired, stays listed, and makes room for another', async () => {
    const expired = await keyWith('expires_at = -1 days');
    const living = await keyWith('expires_at = 1 days');
    expect(await livingKeys()).toBe(3);

    await worker.scheduled(createScheduledController(), env);

    const { ended_at, expires_at } = await rowOf('api_keys', expired.key_id);
    expect(ended_at).toBe(expires_at);
    expect(await rowOf('api_keys', living.key_id)).toMatchObject({ ended_at: null });
    expect(await rowOf('api_keys', client.key_id)).toMatchObject({ ended_at: null });
    expect(await livingKeys()).toBe(2);
    expect((await page(client, '/api/api-keys')).data).toHaveLength(3);
  });

  it('that was revoked before ended then', async () => {
    const revoked = await keyWith(`status = 'revoked', ended_at = -3 days, expires_at = -1 days`);
    const before = await rowOf('api_keys', revoked.key_id);

    await forgetEndedKeys(env);

    expect(await rowOf('api_keys', revoked.key_id)).toEqual(before);
  });

  it('that expired 90 days ago is forgotten at once', async () => {
    const expired = await keyWith('expires_at = -91 days');

    await forgetEndedKeys(env);

    expect(await exists(expired)).toBe(false);
    expect(await livingKeys()).toBe(1);
  });
});

describe('a key that ended 90 days ago', () => {
  it('is forgotten by the cron, and no other; its audit events stay', async () => {
    const old = await keyWith(`status = 'revoked', ended_at = -90 days`);
    const younger = await keyWith(`status = 'revoked', ended_at = -89 days`);

    await worker.scheduled(createScheduledController(), env);

    expect(await exists(old)).toBe(false);
    expect(await exists(younger)).toBe(true);
    expect(await exists(client)).toBe(true);
    expect(await actionsOn(old.key_id)).toEqual(['api_key.created']);
    expect(await livingKeys()).toBe(1);
    expect(logged).toContainEqual({ event: 'api_keys_forgotten', count: 1 });
  });

  it('is still named by those that it made, which it can no longer be revoked with', async () => {
    const old = await keyWith(`status = 'revoked', ended_at = -91 days`);
    const made = await keyWith(`created_by = '${old.key_id}'`);

    await forgetEndedKeys(env);

    const { status } = await call(client, 'DELETE', `/api/api-keys/${old.key_id}?descendants=true`);
    expect(status).toBe(404);
    expect(await rowOf('api_keys', made.key_id)).toMatchObject({ status: 'active' });
  });
});

describe('a turn', () => {
  it('takes as many statements of at most 5,000 keys as it needs', async () => {
    await fillKeys(client, 14_000);
    const { bindings, calls } = countedBindings();

    await forgetEndedKeys(bindings);

    // 7,000 have expired, in 1970.
    expect(await rows('api_keys')).toHaveLength(7_001);
    expect(await livingKeys()).toBe(7_001);
    expect(calls).toEqual(Array.from({ length: 4 }, () => 'DB.batch'));
    expect(logged).toEqual([{ event: 'api_keys_forgotten', count: 7_000 }]);
  });

  it('with nothing to do reads no key, and says nothing', async () => {
    await fillKeys(client, 1_000);
    await forgetEndedKeys(env);
    await env.DB.prepare('UPDATE api_keys SET expires_at = unixepoch() + 60 WHERE key_id <> ?')
      .bind(client.key_id)
      .run();
    logged = [];

    expect(await rowsRead()).toBeLessThan(10);

    expect(logged).toEqual([]);
  });
});
