import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { revokeAllKeys } from '../../../src/operator/api-keys/revoke-all.ts';
import { countedBindings, interceptedBindings } from '../../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
  eventsOn,
  everythingKept,
  fillKeys,
  newClient,
  resources,
  rowOf,
  rows,
  twilio,
} from '../../fixtures.ts';
import type { Client } from '../../fixtures.ts';

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

const revokeAll = (database = env.DB) => revokeAllKeys(database, client.organization_id);

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
    const { key_hash: _, ended_at: _ended, ...state } = await rowOf('api_keys', client.key_id);

    await revokeAll();

    expect((await eventsOn(client.key_id)).slice(1)).toEqual([
      expect.objectContaining({ action: 'api_key.revoked', actor_key_id: null, state }),
    ]);
    expect(state).toMatchObject({ status: 'active' });
    await assertRevoked();
  });

  it('are all of them in one batch, the expired too', async () => {
    await fillKeys(client, FILLED);
    const { bindings, calls } = countedBindings();

    expect(await revokeAll(bindings.DB)).toBe(FILLED + 2);

    expect(calls).toEqual(['DB.batch']);
    await assertRevoked();
  });

  it('are those too that a thief makes in each round trip, and it makes no more of them', async () => {
    const mint = () => call(client, 'POST', '/api/api-keys', { body: { name: 'Late', role: 'admin' } });
    const made: number[] = [];
    const { DB } = interceptedBindings(async (_, carryOut) => {
      made.push((await mint()).status);
      const result = await carryOut();
      made.push((await mint()).status);
      return result;
    });

    expect(await revokeAll(DB)).toBe(3);

    expect(made).toEqual([201, 401]);
    await assertRevoked();
  });

  it('are not those that ended before, which stay as they are', async () => {
    await changeKey(colleague, 'expires_at = 1, ended_at = 1');
    const before = await rowOf('api_keys', colleague.key_id);

    expect(await revokeAll()).toBe(1);

    expect(await rowOf('api_keys', colleague.key_id)).toEqual(before);
    expect(await actionsOn(colleague.key_id)).toEqual(['api_key.created']);
  });

  it('are revoked once: a second time does nothing', async () => {
    await revokeAll();
    const before = await everythingKept();

    expect(await revokeAll()).toBe(0);

    expect(await everythingKept()).toEqual(before);
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
    const before = await everythingKept();

    expect(await revokeAllKeys(env.DB, 'org_nobody')).toBe(0);

    expect(await everythingKept()).toEqual(before);
  });
});

describe('a revocation of many keys', () => {
  it.each(['before', 'after'])('killed %s the commit is finished by a second one', async (when) => {
    await fillKeys(client, FILLED);
    const { DB } = interceptedBindings(async (_, carryOut) => {
      if (when === 'after') await carryOut();
      throw new Error('SQLITE_ABORT: this test ends here what D1 would be asked again');
    });
    await expect(revokeAll(DB)).rejects.toThrow('this test ends here');

    await revokeAll();

    await assertRevoked();
  });

  it('whose answer is lost after its commit has each key on record once, and tells how many they are', async () => {
    let batches = 0;
    const { DB } = interceptedBindings(async (_, carryOut) => {
      const result = await carryOut();
      if ((batches += 1) === 1) throw new Error(LOST);
      return result;
    });

    expect(await revokeAll(DB)).toBe(2);

    await assertRevoked();
  });

  it('one try of which is late leaves the keys that an operator has made since', async () => {
    let land = async (): Promise<unknown> => undefined;
    const { DB } = interceptedBindings((_, carryOut) => {
      land = carryOut;
      return carryOut();
    });
    await revokeAll(DB);
    const successor = await newClient({ organization_id: client.organization_id });
    const before = await everythingKept();

    await land();

    expect(await everythingKept()).toEqual(before);
    await createIntegration(successor);
  });

  it('that found none, with a try under way that may yet find some, says that its outcome is unknown', async () => {
    await revokeAll();
    let land = async (): Promise<unknown> => undefined;
    let batches = 0;
    const { DB } = interceptedBindings((_, carryOut) => {
      if ((batches += 1) > 1) return carryOut();
      land = carryOut;
      throw new Error(LOST);
    });

    await expect(revokeAll(DB)).rejects.toMatchObject({
      code: 'temporarily_unavailable',
      members: { outcome: 'unknown' },
    });

    const successor = await newClient({ organization_id: client.organization_id });
    await land();
    expect(await rowOf('api_keys', successor.key_id)).toMatchObject({ status: 'revoked' });
  });

  it('are counted by the command that revoked them, not by another at the same time', async () => {
    await fillKeys(client, 5);

    const counts = await Promise.all([revokeAll(), revokeAll(), revokeAll()]);

    expect(new Set(counts)).toEqual(new Set([0, 7]));
    expect(counts.reduce((sum, count) => sum + count)).toBe(7);
  });

  it('records their events under ids that begin alike, and end as the keys’ but for the first, which decides', async () => {
    await fillKeys(client, 5);

    await revokeAll();

    const events = (await rows('audit_events'))
      .filter(
        ({ organization_id, action }) => organization_id === client.organization_id && action === 'api_key.revoked',
      )
      .toSorted((one, other) => Number(one['sequence']) - Number(other['sequence']));
    const ids = events.map(({ event_id }) => String(event_id));
    expect(new Set(ids.map((id) => id.slice(0, 24))).size).toBe(1);
    const [, ...endings] = ids.map((id) => id.slice(24));
    const [, ...targets] = events.map(({ target_id }) => String(target_id).slice(-12));
    expect(endings).toEqual(targets);
    expect(new Set(events.map(({ request_id }) => request_id)).size).toBe(1);
  });
});
