/**
 * KV as the platform's is and the local one never is: stale, late, answering of the past and of what was not there yet. A
 * stand-in around the real namespace answers any value that a key has ever had, or none.
 */
import { env } from 'cloudflare:workers';
import * as fc from 'fast-check';
import { expect, vi } from 'vitest';
import { forgetKey } from '../../src/worker/callers/caller.ts';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import type { Bindings } from '../../src/worker/env.ts';
import { interceptedBindings } from '../bindings.ts';
import { call, newClient } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

/** The bindings with a KEY_CACHE that answers what `recall` chooses among all that a key was ever given, and nothing. */
export function rememberingCache(recall: (past: (string | null)[]) => string | null, real: Bindings = env) {
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

export const reads = (by: Client, bindings: Bindings) => isAdmitted(statusOf(by, 'GET', '/api/nothing', bindings));

const mutates = (by: Client, bindings: Bindings) =>
  isAdmitted(statusOf(by, 'DELETE', '/api/integrations/intg_000000000000', bindings));

const steps = ['read', 'mutate', 'new isolate'] as const;
type Step = (typeof steps)[number];

async function assertRefused(
  admin: Client,
  scheduler: fc.Scheduler,
  choices: Iterator<number>,
  taken: Step[],
): Promise<void> {
  vi.useRealTimers();
  const target = await newClient({ organization_id: admin.organization_id });
  const hash = await hashKey(target.raw_key);
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
  const began = taken.map(async (step) => {
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
}

/** What breaks where fills of the key cache, a revocation and stale answers interleave: nothing where no key outlives it. */
export async function failureOf(parameters: { numRuns: number; seed?: number }) {
  const admin = await newClient();
  const { failed, counterexample, errorInstance, seed } = await fc.check(
    fc.asyncProperty(
      fc.scheduler(),
      fc.infiniteStream(fc.nat()),
      fc.array(fc.constantFrom(...steps), { minLength: 4, maxLength: 10 }),
      (...run) => assertRefused(admin, ...run),
    ),
    { ...parameters, endOnFailure: true },
  );
  return failed ? { counterexample, errorInstance, seed } : undefined;
}
