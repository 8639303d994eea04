import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { forgetKey } from '../../src/worker/callers/caller.ts';
import { hashKey, newRawKey } from '../../src/worker/callers/raw-key.ts';
import { countedBindings, failingBindings, interceptedBindings } from '../bindings.ts';
import { call, newClient, rowOf, rows, start } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;
let hash: string;

beforeEach(async () => {
  // Time stands still but where a test lets it pass, however slow the machine is.
  secondsLater(0);
  client = await newClient();
  hash = await hashKey(client.raw_key);
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** Calls that need nothing of D1 but, at most, the caller's key: an unknown path under /api. */
const admitted = async (bindings = env) => (await call(client, 'GET', '/api/nothing', { bindings })).status === 404;

const unlimited: RateLimit = { limit: async () => ({ success: true }) };

const secondsLater = (seconds: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + seconds * 1000 });

const revoke = () =>
  env.DB.prepare(`UPDATE api_keys SET status = 'revoked' WHERE key_id = ?`).bind(client.key_id).run();

describe('the key cache', () => {
  it('knows a key by its hash alone, with what a call needs and a deadline 56 s from the read, for other clocks', async () => {
    const before = Math.floor(Date.now() / 1000);
    await admitted();
    const after = Math.floor(Date.now() / 1000);

    const entry = await env.KEY_CACHE.get<Record<string, unknown>>(hash, 'json');
    expect(entry).toEqual({
      key_id: client.key_id,
      name: 'Test',
      key_hash: hash,
      organization_id: client.organization_id,
      tier: 'enterprise',
      user_id: 'user_operator',
      role: 'admin',
      expires_at: null,
      deadline: expect.any(Number),
    });
    expect(entry?.['deadline']).toBeGreaterThanOrEqual(before + 56);
    expect(entry?.['deadline']).toBeLessThanOrEqual(after + 56);
  });

  it('notes the use of a key once for each fill', async () => {
    await admitted();
    const row = (await rows('api_keys')).find((found) => found['key_id'] === client.key_id);

    expect(row?.['last_used_at']).toBeGreaterThan(Date.now() / 1000 - 5);
    const { bindings, calls } = countedBindings();
    await admitted(bindings);
    expect(calls).toEqual([]);
  });

  it('admits a revoked key to reads until the deadline, and no longer', async () => {
    await admitted();
    await revoke();

    secondsLater(58);
    expect(await admitted()).toBe(true);
    secondsLater(3);
    expect(await admitted()).toBe(false);
  });

  it('heeds the deadline of an entry that KV keeps for too long, and of one that the isolate keeps', async () => {
    await admitted();
    const stale = await env.KEY_CACHE.get(hash);
    await revoke();

    secondsLater(61);
    await env.KEY_CACHE.put(hash, stale ?? '');
    expect(await admitted()).toBe(false);
    forgetKey(hash);
    expect(await admitted()).toBe(false);
  });

  it.each([
    ['whose deadline is further off than any is given', { deadline: Date.now() }],
    ['that is of another key', { key_hash: 'f'.repeat(64) }],
    ['without a deadline', { deadline: undefined }],
  ])('does not believe an entry %s: it asks D1', async (_, wrong) => {
    await admitted();
    const entry = await env.KEY_CACHE.get<object>(hash, 'json');
    await revoke();
    forgetKey(hash);
    await env.KEY_CACHE.put(hash, JSON.stringify({ ...entry, ...wrong }));

    expect(await admitted()).toBe(false);
  });

  it('is not believed beyond its deadline by a call that waits for another’s look-up', async () => {
    await admitted();
    const entry = await env.KEY_CACHE.get<{ deadline: number }>(hash, 'json');
    await revoke();
    forgetKey(hash);
    const goesOn = Promise.withResolvers<void>();
    let asked = 0;
    // Of a replica that is too old, and so leaves the answer to KV's entry.
    const bindings = interceptedBindings(async (name, carryOut, { statements }) => {
      if (name !== 'DB.batch') return carryOut();
      asked += 1;
      if (asked > 1) return carryOut();
      await goesOn.promise;
      const row = { ...entry, is_alive: 1, beat_at: (entry?.deadline ?? 0) - 80 };
      return statements.map((_, index) => ({ results: index === 0 ? [row] : [], meta: { served_by_primary: false } }));
    });

    secondsLater(55);
    const first = start(client, 'GET', '/api/integrations', { bindings });
    await vi.waitUntil(async () => env.KEY_CACHE.get(hash));
    await new Promise((resolve) => setTimeout(resolve, 50));
    secondsLater(2);
    const second = call(client, 'GET', '/api/integrations');
    goesOn.resolve();

    expect([(await first).status, (await second).status]).toEqual([401, 401]);
    expect(asked).toBe(2);
  });

  it('heeds the key’s own expiry within an entry', async () => {
    client = await newClient({ expires_at: Math.floor(Date.now() / 1000) + 30 });
    hash = await hashKey(client.raw_key);
    expect(await admitted()).toBe(true);

    secondsLater(28);
    expect(await admitted()).toBe(true);
    secondsLater(3);
    expect(await admitted()).toBe(false);
  });

  it('forgets a key in this isolate when D1 says that it is dead', async () => {
    await admitted();
    await revoke();
    await env.KEY_CACHE.delete(hash);

    const { status } = await call(client, 'DELETE', '/api/integrations/intg_000000000000');

    expect(status).toBe(401);
    expect(await admitted()).toBe(false);
  });

  it('takes an entry of another form as none', async () => {
    await env.KEY_CACHE.put(hash, JSON.stringify({ organization_id: client.organization_id, role: 'owner' }));

    expect(await admitted()).toBe(true);
  });

  it.each(['KEY_CACHE.get', 'KEY_CACHE.put'] as const)('is done without when %s fails: D1 answers', async (failing) => {
    const { bindings } = failingBindings(failing, { when: 'before', message: 'KV is down' });

    expect(await admitted(bindings)).toBe(true);
  });

  it('is read with KV’s shortest cache at the edge', async () => {
    const get = vi.spyOn(env.KEY_CACHE, 'get');

    await admitted();

    expect(get.mock.calls).toEqual([[hash, { type: 'json', cacheTtl: 30 }]]);
  });

  it('is filled once by calls that miss it at the same time', async () => {
    const { bindings, calls } = countedBindings();

    await Promise.all(Array.from({ length: 20 }, () => admitted(bindings)));

    expect(calls.filter((name) => name === 'KEY_CACHE.put')).toHaveLength(1);
  });

  it('stores nothing about a key that is unknown', async () => {
    const { bindings, calls } = countedBindings();

    await call(client, 'GET', '/api/nothing', { headers: { 'X-API-Key': newRawKey() }, bindings });

    expect(calls).toEqual(['KEY_CACHE.get', 'DB.batch']);
  });

  it('holds the 1,000 keys in an isolate that were used last', async () => {
    const keys = Array.from({ length: 1001 }, () => newRawKey());
    const copied = await rowOf('api_keys', client.key_id);
    for (let from = 0; from < keys.length; from += 100) {
      const inserts = keys.slice(from, from + 100).map(async (raw_key, index) => {
        const row = { ...copied, key_id: `apikey_${from + index}`, key_hash: await hashKey(raw_key) };
        const places = Object.keys(row).map(() => '?');
        return env.DB.prepare(`INSERT INTO api_keys VALUES (${places.join()})`).bind(...Object.values(row));
      });
      await env.DB.batch(await Promise.all(inserts));
    }
    const { bindings: counted, calls } = countedBindings();
    const bindings = { ...counted, IP_LIMIT: unlimited };
    const callsWith = async (raw_key = '') => {
      calls.length = 0;
      const answer = await start(client, 'GET', '/api/nothing', { headers: { 'X-API-Key': raw_key }, bindings });
      const before = [...calls];
      await answer.settle();
      return { status: answer.status, calls: before };
    };
    for (const raw_key of keys) await callsWith(raw_key);

    expect(await callsWith(keys.at(-1000))).toEqual({ status: 404, calls: [] });
    expect(await callsWith(keys[0])).toEqual({ status: 404, calls: ['KEY_CACHE.get', 'DB.batch'] });
  });
});

describe('a well-formed key that is unknown', () => {
  const refused = async (raw_key: string, bindings = env) =>
    (await call(client, 'GET', '/api/nothing', { headers: { 'X-API-Key': raw_key }, bindings })).status === 401;

  it('costs nothing for 5 s from its first refusal, and is asked about again then', async () => {
    const raw_key = newRawKey();
    const { bindings, calls } = countedBindings();
    expect(await refused(raw_key, bindings)).toBe(true);
    expect(calls).toEqual(['KEY_CACHE.get', 'DB.batch']);

    secondsLater(4);
    expect(await refused(raw_key, bindings)).toBe(true);
    expect(calls).toHaveLength(2);

    secondsLater(1);
    expect(await refused(raw_key, bindings)).toBe(true);
    expect(calls).toEqual(['KEY_CACHE.get', 'DB.batch', 'KEY_CACHE.get', 'DB.batch']);
  });

  it('evicts no caller, however many there are', async () => {
    await admitted();
    for (let count = 0; count < 1001; count += 1) {
      await refused(newRawKey(), { ...env, IP_LIMIT: unlimited });
    }

    const { bindings, calls } = countedBindings();
    expect(await admitted(bindings)).toBe(true);
    expect(calls).toEqual([]);
  });

  it('is told from one that is dead: that may come to life again, with its organization', async () => {
    await env.DB.prepare(`UPDATE organizations SET status = 'suspended' WHERE organization_id = ?`)
      .bind(client.organization_id)
      .run();
    expect(await admitted()).toBe(false);

    await env.DB.prepare(`UPDATE organizations SET status = 'active' WHERE organization_id = ?`)
      .bind(client.organization_id)
      .run();
    expect(await admitted()).toBe(true);
  });
});

describe('many calls of one key at the same time', () => {
  const AT_ONCE = 300;

  it('look it up once where what the isolate knows is too old, and take no token of their address', async () => {
    await admitted();
    secondsLater(61);
    const { bindings: counted, calls } = countedBindings();
    let tokens = 0;
    const limiter: RateLimit = { limit: async () => ({ success: (tokens += 1) < 0 }) };
    const bindings = { ...counted, IP_LIMIT: limiter };

    const answers = await Promise.all(
      Array.from({ length: AT_ONCE }, () => call(client, 'GET', '/api/integrations?page_size=1', { bindings })),
    );

    expect(answers.filter(({ status }) => status === 200)).toHaveLength(AT_ONCE);
    expect(calls.filter((name) => name === 'KEY_CACHE.get')).toHaveLength(1);
    expect(tokens).toBe(0);
    // A list for each, the first with the look-up; and the note of the key's use.
    expect(calls.filter((name) => name === 'DB.batch')).toHaveLength(AT_ONCE + 1);
  });

  it('look it up once where nothing is known of it', async () => {
    const { bindings, calls } = countedBindings();

    const answers = await Promise.all(
      Array.from({ length: AT_ONCE }, () => call(client, 'GET', '/api/nothing', { bindings })),
    );

    expect(answers.filter(({ status }) => status === 404)).toHaveLength(AT_ONCE);
    expect(calls.filter((name) => name === 'KEY_CACHE.get')).toHaveLength(1);
  });

  it('do not wait for one that never ends, but then each takes a token of its address', async () => {
    await admitted();
    secondsLater(61);
    const stuck = interceptedBindings((name, carryOut) => (name === 'DB.batch' ? new Promise(() => {}) : carryOut()));
    void start(client, 'GET', '/api/nothing', { bindings: stuck });
    vi.useFakeTimers({
      toFake: ['setTimeout', 'clearTimeout', 'Date'],
      now: Date.now(),
      shouldAdvanceTime: true,
      advanceTimeDelta: 100,
    });
    let tokens = 0;
    const limiter: RateLimit = { limit: async () => ({ success: (tokens += 1) > 0 }) };

    const waiting = admitted({ ...env, IP_LIMIT: limiter });
    await vi.advanceTimersByTimeAsync(5000);

    expect(await waiting).toBe(true);
    expect(tokens).toBeGreaterThan(0);
  });

  it('are refused as one is: a limit that another met is not theirs', async () => {
    let asked = 0;
    const limiter: RateLimit = { limit: async () => ({ success: (asked += 1) > 1 }) };
    const bindings = { ...env, IP_LIMIT: limiter };

    const answers = await Promise.all([
      call(client, 'GET', '/api/nothing', { headers: { 'CF-Connecting-IP': '203.0.113.1' }, bindings }),
      call(client, 'GET', '/api/nothing', { headers: { 'CF-Connecting-IP': '203.0.113.2' }, bindings }),
    ]);

    expect(answers.map(({ status }) => status)).toEqual([429, 404]);
  });
});

describe('a key that is in use', () => {
  it('is asked about shortly before its time, behind an answer, so that no call waits', async () => {
    await admitted();
    secondsLater(57);
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'GET', '/api/nothing', { bindings });
    expect(calls).toEqual([]);
    await answer.settle();
    expect(calls.toSorted()).toEqual(['DB.batch', 'DB.batch', 'KEY_CACHE.put']);

    secondsLater(8);
    calls.length = 0;
    expect(await admitted(bindings)).toBe(true);
    expect(calls).toEqual([]);
  });

  it('takes tokens again once it was found dead', async () => {
    await admitted();
    await revoke();
    secondsLater(61);
    let tokens = 0;
    const limiter: RateLimit = {
      limit: async () => {
        tokens += 1;
        return { success: true };
      },
    };
    const bindings = { ...env, IP_LIMIT: limiter };

    await admitted(bindings);
    expect(tokens).toBe(0);
    await admitted(bindings);
    expect(tokens).toBeGreaterThan(0);
  });
});
