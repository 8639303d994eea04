import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { revokeAllKeys } from '../../src/api-keys/revoke-all.ts';
import { interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  eventsOn,
  everythingStored,
  fillKeys,
  newClient,
  resources,
  rowOf,
  rows,
  twilio,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const FILLED = 230;
const LOST = 'D1_ERROR: Network connection lost.';

let client: Client;
let colleague: Client;

beforeEach(async () => {
  client = await newClient();
  colleague = await newClient({ organization_id: client.organization_id, role: 'user' });
  for (const key of [client, colleague]) await call(key, 'GET', '/api/nothing');
});

afterEach(() => vi.useRealTimers());

const revokeAll = (...[database = env.DB, onProgress]: Partial<[D1Database, (done: number, total: number) => void]>) =>
  revokeAllKeys(database, client.organization_id, onProgress);

const keysOf = async ({ organization_id }: Client) =>
  (await rows('api_keys')).filter((key) => key['organization_id'] === organization_id);

/** Every key of the organization is revoked, and on record for that once. */
async function assertRevoked() {
  for (const key of await keysOf(client)) {
    expect(key).toMatchObject({ status: 'revoked' });
    const actions = await actionsOn(String(key['key_id']));
    expect(actions.filter((action) => action === 'api_key.revoked')).toHaveLength(1);
  }
}

describe('the keys of an organization, revoked by an operator,', () => {
  it('change nothing from then on, though the caches still admit them, and read nothing 60 s later', async () => {
    const before = await resources();

    expect(await revokeAll()).toBe(2);

    const body = { name: 'x', credentials: twilio };
    expect((await call(client, 'GET', '/api/integrations')).status).toBe(200);
    expect((await call(client, 'POST', '/api/integrations', { body })).status).toBe(401);
    expect(await resources()).toEqual(before);
    expect((await call(colleague, 'GET', '/api/integrations')).status).toBe(200);
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 61_000 });
    expect((await call(colleague, 'GET', '/api/integrations')).status).toBe(401);
  });

  it('are each on record once, of an operator, with the state just before and no hash', async () => {
    const { key_hash: _, ...state } = await rowOf('api_keys', client.key_id);

    await revokeAll();

    expect((await eventsOn(client.key_id)).slice(1)).toEqual([
      expect.objectContaining({ action: 'api_key.revoked', actor_key_id: null, state }),
    ]);
    expect(state).toMatchObject({ status: 'active' });
    await assertRevoked();
  });

  it('are all of them, the expired too, at most 100 in a batch, and it is told how far it is', async () => {
    await fillKeys(client, FILLED);
    const told: number[][] = [];

    expect(await revokeAll(env.DB, (...progress) => told.push(progress))).toBe(FILLED + 2);

    expect(told).toEqual([
      [100, FILLED + 2],
      [200, FILLED + 2],
      [FILLED + 2, FILLED + 2],
    ]);
    await assertRevoked();
  });

  it('are those too that a living one makes meanwhile', async () => {
    await fillKeys(client, FILLED);
    let batches = 0;
    const { DB } = interceptedBindings(async (_, carryOut) => {
      // Two batches have looked and revoked the first 100; this one knows which it will revoke.
      if ((batches += 1) === 3) {
        await call(client, 'POST', '/api/api-keys', { body: { name: 'Late', role: 'admin' } });
      }
      return carryOut();
    });

    expect(await revokeAll(DB)).toBe(FILLED + 3);

    await assertRevoked();
  });

  it('are revoked once: a second time does nothing', async () => {
    await revokeAll();
    const before = await everythingStored();

    expect(await revokeAll()).toBe(0);

    expect(await everythingStored()).toEqual(before);
  });

  it('leave what the organization has, and the keys of others', async () => {
    const stranger = await newClient();
    const integration_id = await createIntegration(client);
    const before = [await resources(), await keysOf(stranger)];

    await revokeAll();

    expect([await resources(), await keysOf(stranger)]).toEqual(before);
    await createIntegration(stranger);
    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  });

  it('are none where there is no such organization', async () => {
    const before = await everythingStored();

    expect(await revokeAllKeys(env.DB, 'org_nobody')).toBe(0);

    expect(await everythingStored()).toEqual(before);
  });
});

describe('a revocation of many keys', () => {
  it.each(
    [1, 2, 3, 4].flatMap(
      (number) =>
        [
          { number, when: 'before' },
          { number, when: 'after' },
        ] as const,
    ),
  )('killed $when the commit of batch $number is finished by a second one', async ({ number, when }) => {
    await fillKeys(client, FILLED);
    let batches = 0;
    const { DB } = interceptedBindings(async (_, carryOut) => {
      const killed = (batches += 1) === number;
      const result = killed && when === 'before' ? undefined : await carryOut();
      if (killed) throw new Error('SQLITE_ABORT: this test ends here what D1 would be asked again');
      return result;
    });
    await expect(revokeAll(DB)).rejects.toThrow('this test ends here');

    await revokeAll();

    await assertRevoked();
  });

  it('whose every answer is lost after its commit has each key on record once', async () => {
    let batches = 0;
    const { DB } = interceptedBindings(async (_, carryOut) => {
      const result = await carryOut();
      if ((batches += 1) % 2 === 1) throw new Error(LOST);
      return result;
    });

    expect(await revokeAll(DB)).toBe(2);

    await assertRevoked();
  });
});

describe('the cost of a batch', () => {
  it('does not grow with the keys that are revoked already', async () => {
    await fillKeys(client, 1000);
    const read: number[] = [];
    const { DB } = interceptedBindings(async (_, carryOut) => {
      const answers = z.array(z.object({ meta: z.object({ rows_read: z.number() }) }).loose()).parse(await carryOut());
      read.push(answers.reduce((sum, { meta }) => sum + meta.rows_read, 0));
      return answers;
    });

    await revokeAll(DB);

    const batches = read.slice(1, -2);
    expect(batches).toHaveLength(10);
    expect(Math.max(...batches) - Math.min(...batches)).toBeLessThan(100);
  });
});
