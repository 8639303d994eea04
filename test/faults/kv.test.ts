/**
 * KV as the platform's is and the local one never is: stale, late, answering of the past and of what was not there yet. A
 * stand-in around the real namespaces answers any value that a key has ever had, or none, and lets writes land late.
 */
import { env } from 'cloudflare:workers';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { forgetKey } from '../../src/worker/callers/key-cache.ts';
import type { Bindings } from '../../src/worker/env.ts';
import { interceptedBindings } from '../bindings.ts';
import { call, createIntegration, newClient, openCredentials, rowOf, start, twilio } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { assertInvariants } from './invariants.ts';

const RUNS = 200;
const TEST_MILLISECONDS = 300_000;

let client: Client;

beforeEach(async () => {
  vi.spyOn(console, 'info').mockImplementation(() => {});
  vi.spyOn(console, 'error').mockImplementation(() => {});
  client = await newClient();
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** The bindings with a KEY_CACHE that answers what `recall` chooses among all that a key was ever given, and nothing. */
function rememberingCache(recall: (past: (string | null)[]) => string | null, real: Bindings = env) {
  const past: (string | null)[] = [null];
  const KEY_CACHE = new Proxy(real.KEY_CACHE, {
    get(target, name) {
      if (name === 'get') {
        return async () => {
          const text = recall(past);
          const value: unknown = text === null ? null : JSON.parse(text);
          return value;
        };
      }
      return (...parameters: unknown[]): unknown => {
        past.push(name === 'put' ? String(parameters[1]) : null);
        return Reflect.apply(Reflect.get(target, name), target, parameters);
      };
    },
  });
  return { ...real, KEY_CACHE };
}

/** The status of a call, from an address of its own: no limit on lookups may take the place of a refusal. */
async function statusOf(by: Client, method: string, path: string, bindings: Bindings): Promise<number> {
  const headers = { 'CF-Connecting-IP': `2001:db8:${(addresses += 1).toString(16)}::1` };
  return (await call(by, method, path, { bindings, headers })).status;
}

let addresses = 0;

async function isAdmitted(status: Promise<number>): Promise<boolean> {
  const told = await status;
  expect([401, 404]).toContain(told);
  return told === 404;
}

const reads = (by: Client, bindings: Bindings) => isAdmitted(statusOf(by, 'GET', '/api/nothing', bindings));

const mutates = (by: Client, bindings: Bindings) =>
  isAdmitted(statusOf(by, 'DELETE', '/api/integrations/intg_000000000000', bindings));

describe('a revoked key', () => {
  it(
    `changes nothing, and reads nothing 61 s later, however fills, revocation and stale answers interleave (${RUNS} runs)`,
    async () => {
      const admin = await newClient({ organization_id: client.organization_id });
      await fc.assert(
        fc.asyncProperty(
          fc.scheduler(),
          fc.infiniteStream(fc.nat()),
          fc.array(fc.constantFrom('read', 'mutate', 'new isolate'), { minLength: 4, maxLength: 10 }),
          async (scheduler, choices, steps) => {
            vi.useRealTimers();
            const target = await newClient({ organization_id: client.organization_id });
            const hash = hashKey(target.raw_key);
            const inFlight = new Set<Promise<unknown>>();
            const act = async (letGo: () => Promise<void>) => {
              await letGo();
              do {
                await new Promise((resolve) => setTimeout(resolve, 0));
                await Promise.allSettled(inFlight);
              } while (inFlight.size > 0);
            };
            const stepwise = interceptedBindings(async (name, carryOut) => {
              await scheduler.schedule(Promise.resolve(), name, undefined, act);
              const carried = carryOut();
              inFlight.add(carried);
              return carried.finally(() => inFlight.delete(carried));
            });
            const bindings = rememberingCache((past) => past[choices.next().value % past.length] ?? null, stepwise);

            let isRevoked = false;
            const changedAfterwards: boolean[] = [];
            const mutate = async () => {
              const began = isRevoked;
              const changed = await mutates(target, bindings);
              if (began) changedAfterwards.push(changed);
            };
            const revoke = async () => {
              const { status } = await call(admin, 'DELETE', `/api/api-keys/${target.key_id}`, { bindings: stepwise });
              expect(status).toBe(200);
              isRevoked = true;
            };
            const began = steps.map(async (step) => {
              await scheduler.schedule(Promise.resolve(), step, undefined, act);
              if (step === 'new isolate') forgetKey(hash);
              else await (step === 'read' ? reads(target, bindings) : mutate());
            });
            await scheduler.waitFor(Promise.all([...began, revoke()]), act);

            expect(changedAfterwards).not.toContain(true);
            const unscheduled = { ...bindings, DB: env.DB };
            expect(await mutates(target, unscheduled)).toBe(false);
            vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 61_000 });
            for (let attempt = 0; attempt < 4; attempt += 1) {
              if (attempt % 2 === 1) forgetKey(hash);
              expect(await reads(target, unscheduled)).toBe(false);
            }
          },
        ),
        { numRuns: RUNS, endOnFailure: true },
      );
    },
    TEST_MILLISECONDS,
  );
});

describe('a stale answer of the key cache', () => {
  it('that there is no such key, when there is, costs a look at D1 and refuses nobody', async () => {
    const bindings = rememberingCache(() => null);
    forgetKey(hashKey(client.raw_key));

    expect(await reads(client, bindings)).toBe(true);
  });

  it('of a role that the key has lost admits it to what D1 then refuses', async () => {
    const manager = await newClient({ organization_id: client.organization_id, role: 'agent_manager' });
    let known: string | null = null;
    const bindings = rememberingCache((past) => (known = past.findLast((value) => value !== null) ?? null));
    await reads(manager, bindings);
    forgetKey(hashKey(manager.raw_key));
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
    const hash = hashKey(client.raw_key);
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
    forgetKey(hashKey(client.raw_key));

    expect((await call(client, 'GET', '/api/integrations', { bindings })).status).toBe(200);
  });

  it('keeps no integration from being deleted: its data key is gone, and the outbox names its ciphertext', async () => {
    const integration_id = await createIntegration(client);
    const bindings = interceptedBindings((name, carryOut) =>
      name.startsWith('DB') ? carryOut() : Promise.reject(new Error('KV is down')),
    );
    forgetKey(hashKey(client.raw_key));

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
