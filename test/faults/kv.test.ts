/** KV that is stale, late, or out of reach. */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { forgetKey } from '../../src/worker/callers/caller.ts';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { interceptedBindings } from '../bindings.ts';
import { call, createIntegration, newClient, openCredentials, rowOf, start, twilio } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { assertInvariants } from './invariants.ts';
import { failureOf, reads, rememberingCache } from './kv.ts';

/** The same each time: kv.exhaustive.test.ts tries many others. */
const RUNS = 40;
const SEED = 20_261_127;

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

afterEach(() => {
  vi.useRealTimers();
});

describe('a revoked key', () => {
  it(
    `changes nothing, and reads nothing 61 s later, however fills, revocation and stale answers interleave (${RUNS} runs)`,
    { timeout: 600_000 },
    async () => {
      expect(await failureOf({ numRuns: RUNS, seed: SEED })).toBeUndefined();
    },
  );
});

describe('a stale answer of the key cache', () => {
  it('that there is no such key, when there is, costs a look at D1 and refuses nobody', async () => {
    const bindings = rememberingCache(() => null);
    forgetKey(await hashKey(client.raw_key));

    expect(await reads(client, bindings)).toBe(true);
  });

  it('of a role that the key has lost admits it to what D1 then refuses', async () => {
    const manager = await newClient({ organization_id: client.organization_id, role: 'agent_manager' });
    let known: string | null = null;
    const bindings = rememberingCache((past) => (known = past.findLast((value) => value !== null) ?? null));
    await reads(manager, bindings);
    forgetKey(await hashKey(manager.raw_key));
    await env.DB.prepare(`UPDATE api_keys SET role = 'user' WHERE key_id = ?`).bind(manager.key_id).run();

    const { status, body } = await call(manager, 'DELETE', '/api/integrations/intg_000000000000', { bindings });

    expect(known).not.toBeNull();
    expect(status).toBe(403);
    expect(body).toMatchObject({ code: 'permission_denied', required_permission: 'integrations:delete' });
  });

  it('is overtaken by no fill that lands late: the deadline is that of its own read of D1', async () => {
    let land: (() => Promise<unknown>) | undefined;
    const bindings = interceptedBindings((name, carryOut) => {
      if (name !== 'KEY_CACHE.put') return carryOut();
      land = carryOut;
      return Promise.resolve(undefined);
    });
    const hash = await hashKey(client.raw_key);
    forgetKey(hash);
    await env.KEY_CACHE.delete(hash);
    await reads(client, bindings);
    await env.DB.prepare(`UPDATE api_keys SET status = 'revoked' WHERE key_id = ?`).bind(client.key_id).run();

    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 61_000 });
    await land?.();
    forgetKey(hash);

    expect(await env.KEY_CACHE.get(hash)).not.toBeNull();
    expect(await reads(client, env)).toBe(false);
  });
});

describe('KV that throws', () => {
  it.each(['KEY_CACHE', 'CREDENTIALS'] as const)('in all of %s keeps no reader out', async (namespace) => {
    const bindings = interceptedBindings((name, carryOut) =>
      name.startsWith(namespace) ? Promise.reject(new Error('KV is down')) : carryOut(),
    );
    forgetKey(await hashKey(client.raw_key));

    expect((await call(client, 'GET', '/api/integrations', { bindings })).status).toBe(200);
  });

  it('keeps no integration from being deleted: its data key is gone, and the outbox names its ciphertext', async () => {
    const integration_id = await createIntegration(client);
    const bindings = interceptedBindings((name, carryOut) =>
      name.startsWith('DB') ? carryOut() : Promise.reject(new Error('KV is down')),
    );
    forgetKey(await hashKey(client.raw_key));

    const { status } = await call(client, 'DELETE', `/api/integrations/${integration_id}`, { bindings });

    expect(status).toBe(200);
    await assertInvariants(client.organization_id);
    const { results } = await env.DB.prepare('SELECT kv_key FROM credential_purges WHERE organization_id = ?')
      .bind(client.organization_id)
      .all();
    expect(results).toHaveLength(1);
  });
});

describe('a ciphertext that an edge still has', () => {
  it('of an older version opens with no data key that is left, and is never taken for the newer one', async () => {
    const integration_id = await createIntegration(client);
    const old = String((await rowOf('integrations', integration_id))['credentials_version']);
    const kv_key = `v1/${client.organization_id}/${integration_id}/${old}`;
    const stale = await env.CREDENTIALS.get(kv_key, 'arrayBuffer');

    const replacement = { ...twilio, auth_token: 'plaintext-replacement' };
    const answer = await start(client, 'PUT', `/api/integrations/${integration_id}`, {
      body: { credentials: replacement },
    });
    await answer.settle();
    await env.CREDENTIALS.put(kv_key, stale ?? '');

    expect(await openCredentials(integration_id)).toEqual(replacement);
    const row = await rowOf('integrations', integration_id);
    expect(row['credentials_version']).not.toBe(old);
    // Put under the new version's key, the old bytes do not open: both keys are bound to their own.
    await env.CREDENTIALS.put(kv_key.replace(old, String(row['credentials_version'])), stale ?? '');
    await expect(openCredentials(integration_id)).rejects.toThrow(/./);
  });
});
