import { beforeEach, describe, expect, it, vi } from 'vitest';
import { retry, spread } from '../../src/worker/core/retry.ts';
import type { OfClient } from '../../src/worker/core/retry.ts';
import { batch } from '../../src/worker/d1/batch.ts';
import { query } from '../../src/worker/d1/query.ts';
import { organizations } from '../../src/worker/d1/schema.ts';
import { failingBindings, interceptedBindings } from '../bindings.ts';
import type { BindingCall } from '../bindings.ts';
import { withoutBackOff } from '../faults/every-call.ts';
import { call, createIntegration, newClient, twilio } from '../fixtures.ts';

const BUDGET = 100;
const binding: OfClient = {};

beforeEach(withoutBackOff);

const failing = () => vi.fn<() => Promise<string>>(() => Promise.reject(new Error('down')));
const succeed = () => Promise.resolve('done');

/** How often operations are tried that fail, one after the other. */
async function triesOf(operations: number, ofBinding: OfClient | null = binding, maxTries = 2): Promise<number> {
  const attempt = failing();
  for (let done = 0; done < operations; done += 1) {
    await expect(retry(attempt, () => maxTries, ofBinding ?? undefined)).rejects.toThrow('down');
  }
  return attempt.mock.calls.length;
}

const spendBudget = () => triesOf(BUDGET);

describe('an operation', () => {
  it('is tried as often as its error permits, and fails with the last one', async () => {
    const errors = [new Error('first'), new Error('second'), new Error('last')];
    const attempt = failing();
    for (const error of errors) attempt.mockRejectedValueOnce(error);

    await expect(retry(attempt, (error) => (error === errors[2] ? 3 : 9))).rejects.toBe(errors[2]);
    expect(attempt).toHaveBeenCalledTimes(3);
  });

  it('ends with the first try that succeeds', async () => {
    const attempt = failing().mockRejectedValueOnce(new Error('down')).mockResolvedValueOnce('done');

    expect(await retry(attempt, () => 9)).toBe('done');
    expect(attempt).toHaveBeenCalledTimes(2);
  });
});

describe('the budget for the retries of an isolate', () => {
  it('is 100 retries of whatever calls a binding; then each operation is tried once', async () => {
    expect(await triesOf(BUDGET + 20)).toBe(2 * BUDGET + 20);
  });

  it('gains one retry by ten operations that succeed', async () => {
    await spendBudget();

    for (let done = 0; done < 10; done += 1) await retry(succeed, () => 2, binding);

    expect(await triesOf(5)).toBe(5 + 1);
  });

  it('holds no more than in the beginning, however long all went well', async () => {
    for (let done = 0; done < 100; done += 1) await retry(succeed, () => 2, binding);

    expect(await triesOf(BUDGET + 20)).toBe(2 * BUDGET + 20);
  });

  it('is neither spent nor asked nor filled by what begins again though no binding failed', async () => {
    await triesOf(BUDGET + 20, null);
    expect(await triesOf(BUDGET + 20)).toBe(2 * BUDGET + 20);

    for (let done = 0; done < 100; done += 1) await retry(succeed, () => 2);
    expect(await triesOf(5)).toBe(5);
    expect(await triesOf(5, null)).toBe(10);
  });

  it('is not spent by an error that permits no retry', async () => {
    await triesOf(BUDGET + 20, binding, 1);

    expect(await triesOf(BUDGET)).toBe(2 * BUDGET);
  });
});

describe('a batch whose retry the budget refuses', () => {
  const insert = query((db) =>
    db.insert(organizations).values({ organization_id: 'org_budget', tier: 'pro', created_at: 1, status: 'active' }),
  );

  it.each([
    ['D1_ERROR: Network connection lost.', 'unknown'],
    ['D1_ERROR: D1 DB is overloaded. Too many requests queued.', 'not_done'],
  ])('fails as after its last try: “%s” is %s', async (message, outcome) => {
    await spendBudget();
    const { bindings, calls } = failingBindings('DB.batch', { when: 'before', message });

    await expect(batch(bindings.DB, [insert.bind({})])).rejects.toMatchObject({
      code: 'temporarily_unavailable',
      members: { outcome },
    });
    expect(calls).toEqual(['DB.batch']);
  });
});

describe('a client that has gone', () => {
  const LOST = 'D1_ERROR: Network connection lost.';

  /** A client that goes while one call of a binding is under way, which fails `times` times. */
  function goingDuring(name: BindingCall, message: string, times: number) {
    const client = new AbortController();
    let calls = 0;
    const bindings = interceptedBindings(async (called, carryOut) => {
      if (called !== name) return carryOut();
      client.abort();
      calls += 1;
      if (calls > times) return carryOut();
      throw new Error(message);
    });
    return { bindings, signal: client.signal, calls: () => calls };
  }

  it.each([
    ['a read', 'GET', '/api/integrations', undefined],
    ['a write', 'POST', '/api/integrations?verify=false', { name: 'Twilio', credentials: twilio }],
  ] as const)('has no further try made for it: %s whose first batch fails', async (_, method, path, body) => {
    const client = await newClient();
    await call(client, 'GET', '/api/whoami');
    const { calls, ...going } = goingDuring('DB.batch', LOST, Infinity);

    const { status } = await call(client, method, path, { body, ...going });

    expect(status).toBe(503);
    expect(calls()).toBe(1);
  });

  it('has no second put made for it; its version is left to the outbox', async () => {
    const client = await newClient();
    const { calls, ...going } = goingDuring('CREDENTIALS.put', 'KV PUT failed: 500', Infinity);

    const body = { name: 'Twilio', credentials: twilio };
    const answer = await call(client, 'POST', '/api/integrations?verify=false', { body, ...going });

    expect(answer).toMatchObject({ status: 503, body: { outcome: 'not_done' } });
    expect(calls()).toBe(1);
  });

  it('has what it began carried out to the end, if nothing fails', async () => {
    const client = await newClient();
    const integration_id = await createIntegration(client);
    const { calls, ...going } = goingDuring('DB.batch', LOST, 0);

    const answer = await call(client, 'DELETE', `/api/integrations/${integration_id}`, going);

    expect(answer.status).toBe(200);
    expect(calls()).toBeGreaterThan(0);
  });

  it('costs the budget nothing', async () => {
    await triesOf(BUDGET + 20, { client: AbortSignal.abort() });

    expect(await triesOf(BUDGET)).toBe(2 * BUDGET);
  });
});

describe('the seconds that clients are told to wait', () => {
  it('are drawn from six whole numbers, the given one first, so that clients spread', () => {
    const draws = [0, 0.2, 0.4, 0.6, 0.8, 0.999_999];
    const random = vi.spyOn(Math, 'random');
    for (const draw of draws) random.mockReturnValueOnce(draw);

    expect(draws.map(() => spread(10))).toEqual([10, 11, 12, 13, 14, 15]);
  });
});
