/** Who calls, by the word of a replica. The local D1 has none: its answers are made to say that they are one's. */
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { forgetKey } from '../../src/worker/callers/caller.ts';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import type { Bindings } from '../../src/worker/env.ts';
import { countedBindings, interceptedBindings } from '../bindings.ts';
import { call, changeKey, createIntegration, newClient, newOperator, start } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { setStatus } from '../operations.ts';

let client: Client;
let hash: string;
let path: string;

beforeEach(async () => {
  client = await newClient();
  hash = await hashKey(client.raw_key);
  path = `/api/integrations/${await createIntegration(client, undefined, '?verify=false')}`;
  await cool();
});

/** Neither this isolate nor KV knows the key any longer. */
async function cool(): Promise<void> {
  forgetKey(hash);
  await env.KEY_CACHE.delete(hash);
}

const beatSecondsAgo = (seconds: number) =>
  env.DB.prepare('UPDATE heartbeats SET beat_at = unixepoch() - ?').bind(seconds).run();

/**
 * Bindings whose nearest copy is a replica.
 *
 * @param asIfBefore what the replica does not know yet: `changed` is undone while it answers
 */
function replicatedBindings(asIfBefore?: { changed: () => Promise<unknown>; undone: () => Promise<unknown> }) {
  const asked: string[] = [];
  let isReplica = false;
  let tokens = 0;
  const intercepted = interceptedBindings(async (name, carryOut) => {
    if (name !== 'DB.batch' || !isReplica) return carryOut();
    await asIfBefore?.undone();
    const results = await carryOut();
    await asIfBefore?.changed();
    if (!Array.isArray(results)) throw new Error('no results');
    return results.map((result: D1Result) => ({ ...result, meta: { ...result.meta, served_by_primary: false } }));
  });
  const DB = new Proxy(intercepted.DB, {
    get(database, name) {
      if (name !== 'withSession') return Reflect.get(database, name);
      return (constraint: string) => {
        asked.push(constraint);
        isReplica = constraint !== 'first-primary';
        return database.withSession(constraint);
      };
    },
  });
  const IP_LIMIT: RateLimit = {
    limit: async () => {
      tokens += 1;
      return { success: true };
    },
  };
  const bindings: Bindings = { ...intercepted, DB, IP_LIMIT };
  return { bindings, asked, tokens: () => tokens };
}

const NEAR = ['first-unconstrained'];
const NEAR_AND_PRIMARY = ['first-unconstrained', 'first-primary'];

async function read(bindings: Bindings, at = path) {
  const { status, headers } = await call(client, 'GET', at, { bindings });
  return { status, bookmark: headers.has('X-D1-Bookmark') };
}

describe('a read with a key that no cache knows', () => {
  it.each([0, 30, 50])('is answered by a replica whose heartbeat is %i s old', async (age) => {
    await beatSecondsAgo(age);
    const { bindings, asked } = replicatedBindings();

    expect(await read(bindings)).toEqual({ status: 200, bookmark: true });
    expect(asked).toEqual(NEAR);
  });

  it.each([
    ['is 57 s old', 57],
    ['is from the future, which no clock of ours is', -10],
  ])('is answered by the primary if the replica’s heartbeat %s', async (_, age) => {
    await beatSecondsAgo(age);
    const { bindings, asked, tokens } = replicatedBindings();

    expect(await read(bindings)).toEqual({ status: 200, bookmark: true });
    expect(asked).toEqual(NEAR_AND_PRIMARY);
    // One for each network of the address, for both questions.
    expect(tokens()).toBe(2);
  });

  it('is believed until 56 s after the heartbeat, not after the answer', async () => {
    await beatSecondsAgo(30);
    const { beat_at } = (await env.DB.prepare('SELECT beat_at FROM heartbeats').first<{ beat_at: number }>()) ?? {};

    await read(replicatedBindings().bindings);

    const entry = await env.KEY_CACHE.get<{ deadline: number }>(hash, 'json');
    expect(entry?.deadline).toBe((beat_at ?? 0) + 56);
  });

  it('is answered by the primary if the replica does not know the key yet', async () => {
    const table = { changed: `UPDATE api_keys SET key_hash = ?1 WHERE key_id = ?2`, undone: 'unknown' };
    const setHash = (value: string) => env.DB.prepare(table.changed).bind(value, client.key_id).run();
    const { bindings, asked } = replicatedBindings({ changed: () => setHash(hash), undone: () => setHash('unknown') });

    expect(await read(bindings)).toEqual({ status: 200, bookmark: true });
    expect(asked).toEqual(NEAR_AND_PRIMARY);
  });

  it('is answered by the primary if the replica does not know yet that the organization was resumed', async () => {
    const { organization_id } = client;
    const { bindings, asked } = replicatedBindings({
      changed: () => setStatus(organization_id, 'active'),
      undone: () => setStatus(organization_id, 'suspended'),
    });

    expect(await read(bindings)).toEqual({ status: 200, bookmark: true });
    expect(asked).toEqual(NEAR_AND_PRIMARY);
  });

  it('is refused by the primary’s word alone, and reads nothing', async () => {
    await changeKey(client, `status = 'revoked'`);
    const { bindings, asked } = replicatedBindings();

    expect(await read(bindings)).toEqual({ status: 401, bookmark: false });
    expect(asked).toEqual(NEAR_AND_PRIMARY);
    expect(await env.KEY_CACHE.get(hash)).toBeNull();
  });

  it('is not refused by a replica that is too old, if KV knows the key', async () => {
    await read(env);
    expect(await env.KEY_CACHE.get(hash)).not.toBeNull();
    forgetKey(hash);
    await beatSecondsAgo(57);
    const { bindings, asked } = replicatedBindings();
    // KV answers first, as it does from the edge.
    const DB = new Proxy(bindings.DB, {
      get(database, name) {
        if (name !== 'withSession') return Reflect.get(database, name);
        return (constraint: string) => {
          const session = database.withSession(constraint);
          const late = async (statements: D1PreparedStatement[]) => {
            await new Promise((resolve) => setTimeout(resolve, 100));
            return session.batch(statements);
          };
          return Object.assign(Object.create(session), {
            prepare: (sql: string) => session.prepare(sql),
            batch: late,
            getBookmark: () => session.getBookmark(),
          });
        };
      },
    });

    expect(await read({ ...bindings, DB })).toEqual({ status: 200, bookmark: true });
    expect(asked).toEqual(NEAR);
  });

  it('of whoami without X-Organization-Id is one trip too', async () => {
    const { bindings, asked } = replicatedBindings();

    const { status, body } = await call(client, 'GET', '/api/whoami', {
      headers: { 'X-Organization-Id': null },
      bindings,
    });

    expect({ status, body }).toMatchObject({
      status: 200,
      body: { data: { key: { key_id: client.key_id } } },
    });
    expect(asked).toEqual(NEAR);
  });
});

describe('an operator’s read with a key that no cache knows', () => {
  it('is answered by a replica too', async () => {
    const operator = await newOperator();
    await beatSecondsAgo(30);
    const { bindings, asked } = replicatedBindings();

    const { status } = await call(operator, 'GET', `/operator/organizations/${client.organization_id}`, { bindings });

    expect(status).toBe(200);
    expect(asked).toEqual(NEAR);
  });
});

describe('the heartbeat', () => {
  const readBeat = async () =>
    (await env.DB.prepare('SELECT beat_at, unixepoch() AS now FROM heartbeats').first()) ?? {};

  it('is renewed by a mutation, once it is 5 s old', async () => {
    await read(env);
    await beatSecondsAgo(6);
    const { beat_at: before } = await readBeat();

    await call(client, 'PUT', path, { body: { name: 'New' } });

    expect(Number((await readBeat())['beat_at'])).toBeGreaterThanOrEqual(Number(before) + 6);
  });

  it('is left alone while it is younger, by the clock of D1', async () => {
    await read(env);
    // As far in the future as no slow machine makes it old.
    await env.DB.prepare('UPDATE heartbeats SET beat_at = unixepoch()').run();
    const { beat_at: before } = await readBeat();
    const young = interceptedBindings(
      (_, carryOut) => carryOut(),
      (sql) => sql.replaceAll('unixepoch() - 5 + 1', `unixepoch() - 100000`),
    );

    await call(client, 'PUT', path, { body: { name: 'New' }, bindings: young });

    expect((await readBeat())['beat_at']).toBe(before);
  });

  it('is renewed by a mutation that is refused, but not by a read', async () => {
    await beatSecondsAgo(60);
    const { beat_at: before } = await readBeat();
    await call(client, 'GET', '/api/whoami', { headers: { 'X-API-Key': 'malformed' } });
    expect((await readBeat())['beat_at']).toBe(before);

    await call(client, 'DELETE', '/api/integrations/intg_000000000000');
    expect((await readBeat())['beat_at']).not.toBe(before);
  });

  it('costs a mutation one row read', async () => {
    await read(env);
    await beatSecondsAgo(0);
    const { bindings } = countedBindings();
    let rowsRead = 0;
    const counted = interceptedBindings(async (_, carryOut, { statements }) => {
      const results = await carryOut();
      const index = statements.findIndex(({ sql }) => sql.includes('heartbeats'));
      if (Array.isArray(results) && index >= 0) rowsRead += results[index].meta.rows_read;
      return results;
    });
    const answer = await start(client, 'PUT', path, { body: { name: 'New' }, bindings: { ...bindings, ...counted } });

    expect(answer.status).toBe(200);
    expect(rowsRead).toBe(1);
    await answer.settle();
  });
});
