/** Bindings that never answer. */
import { createExecutionContext, createScheduledController, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { forgetKey } from '../../src/worker/callers/caller.ts';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { withDeadlines } from '../../src/worker/core/deadlines.ts';
import type { Bindings } from '../../src/worker/env.ts';
import worker from '../../src/worker/index.ts';
import { interceptedBindings } from '../bindings.ts';
import type { Interceptor } from '../bindings.ts';
import {
  call,
  createIntegration,
  newClient,
  openCredentials,
  resources,
  rowOf,
  rows,
  start,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Answer, Client } from '../fixtures.ts';

const { setTimeout: realTimeout } = globalThis;
const realTurn = () => new Promise((resolve) => realTimeout(resolve, 0));

let client: Client;
let logged: string[];
/** Calls that the bindings themselves are carrying out. */
const underway = new Set<Promise<unknown>>();

beforeEach(async () => {
  client = await newClient();
  await call(client, 'GET', '/api/nothing');
  logged = [];
  vi.spyOn(console, 'error').mockImplementation((line) => void logged.push(String(line)));
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** Lets time pass, as long as the promise is open, and no call that is carried out is late: the machine may be slow. */
async function passing<Result>(promise: Promise<Result>, milliseconds = 60_000): Promise<Result> {
  const state = { open: true };
  const settled = promise.finally(() => (state.open = false));
  settled.catch(() => {});
  for (let passed = 0; state.open && passed < milliseconds; passed += 500) {
    do await realTurn();
    while (underway.size > 0);
    await vi.advanceTimersByTimeAsync(500);
  }
  if (state.open) throw new Error(`is open after ${milliseconds} ms`);
  return settled;
}

/** Bindings whose calls may be made to hang; {@link passing} waits for the others. */
function bindingsWith(intercept: Interceptor): Bindings {
  return interceptedBindings((name, carryOut, sent) => {
    const carriedOut = () => {
      const carried = carryOut();
      underway.add(carried);
      return carried.finally(() => underway.delete(carried));
    };
    return intercept(name, carriedOut, sent);
  });
}

const healthy = () => bindingsWith((_, carryOut) => carryOut());

/** One call of a binding, by its number, does not answer before it is let go; it may be carried out nevertheless. */
function hanging(hung: string, which = 1, carriesOut = false) {
  const { promise, resolve: letGo } = Promise.withResolvers<void>();
  let calls = 0;
  const bindings = bindingsWith(async (name, carryOut) => {
    if (name !== hung || (calls += 1) !== which) return carryOut();
    if (carriesOut) await carryOut();
    return promise;
  });
  return { bindings, calls: () => calls, letGo };
}

/** What runs after the answer meets a call that hangs, for longer than its deadline. */
async function settledLate(answer: Answer, letGo: () => void): Promise<void> {
  const settled = answer.settle();
  await passing(new Promise((resolve) => setTimeout(resolve, 10_000)));
  letGo();
  await passing(settled);
}

const creation = { name: 'Twilio Production', credentials: twilio };

describe('a call of D1 that never answers', () => {
  it.each([false, true])(
    'makes a deletion answer "unknown" after one try, whether or not it was carried out: %s',
    async (carriesOut) => {
      vi.useRealTimers();
      const integration_id = await createIntegration(client);
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
      const { bindings, calls } = hanging('DB.batch', 1, carriesOut);

      const { status, body } = await passing(
        start(client, 'DELETE', `/api/integrations/${integration_id}`, { bindings }),
      );

      expect(status).toBe(503);
      expect(body).toMatchObject({ code: 'temporarily_unavailable', outcome: 'unknown' });
      expect(calls()).toBe(1);
      const left = (await resources()).integrations.map((row) => row['integration_id']);
      expect(left.includes(integration_id)).toBe(!carriesOut);
    },
  );

  it('is kept from its start, so that a client that goes leaves no batch that counts as at D1', () => {
    const kept: Promise<unknown>[] = [];
    const bindings = { DB: { batch: () => new Promise(() => {}), other: () => new Promise(() => {}) } };
    const { DB } = withDeadlines(bindings, (promise) => kept.push(promise), 5000);

    void DB.batch();
    void DB.other();

    expect(kept).toHaveLength(1);
  });

  it('makes a read answer "not_done"', async () => {
    const { bindings, calls } = hanging('DB.batch');

    const { status, body } = await passing(start(client, 'GET', '/api/integrations', { bindings }));

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'not_done' });
    expect(calls()).toBe(1);
  });

  it('makes a creation answer "not_done" where it is the first batch, and "unknown" where it is the deciding one', async () => {
    const intent = await passing(
      start(client, 'POST', '/api/integrations', { body: creation, bindings: hanging('DB.batch', 1).bindings }),
    );
    const decision = await passing(
      start(client, 'POST', '/api/integrations', { body: creation, bindings: hanging('DB.batch', 2).bindings }),
    );

    expect([intent, decision]).toMatchObject([
      { status: 503, body: { outcome: 'not_done' } },
      { status: 503, body: { outcome: 'unknown' } },
    ]);
  });

  it('makes a mutation answer "unknown" also where the batch looks up the API key', async () => {
    forgetKey(await hashKey(client.raw_key));
    await env.KEY_CACHE.delete(await hashKey(client.raw_key));

    const { status, body } = await passing(
      start(client, 'DELETE', '/api/integrations/intg_000000000000', { bindings: hanging('DB.batch').bindings }),
    );

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'unknown' });
  });

  it.each([
    ['DELETE', 'unknown'],
    ['GET', 'not_done'],
  ])('is the last try, also where an earlier one failed: a %s is %s', async (method, outcome) => {
    let calls = 0;
    const bindings = bindingsWith((name, carryOut) => {
      if (name !== 'DB.batch') return carryOut();
      calls += 1;
      return calls === 1 ? Promise.reject(new Error('SQLITE_BUSY')) : new Promise(() => {});
    });

    const { status, body } = await passing(start(client, method, '/api/integrations/intg_000000000000', { bindings }));

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome });
    expect(calls).toBe(2);
  });

  it('does not keep a repeat under the same Idempotency-Key from telling what was carried out', async () => {
    const headers = { 'Idempotency-Key': crypto.randomUUID() };
    const path = '/api/api-keys';
    const body = { name: 'New', role: 'user' };
    const { bindings } = hanging('DB.batch', 1, true);

    const unknown = await passing(start(client, 'POST', path, { body, headers, bindings }));
    const repeated = await passing(start(client, 'POST', path, { body, headers, bindings: healthy() }));

    expect(unknown).toMatchObject({ status: 503, body: { outcome: 'unknown' } });
    expect(repeated.status).toBe(201);
    expect(repeated.headers.get('Idempotency-Replayed')).toBe('true');
    const made = (await rows('api_keys')).filter((row) => row['organization_id'] === client.organization_id);
    expect(made).toHaveLength(2);
  });

  it('makes /health answer 503', async () => {
    const { bindings } = hanging('DB.batch');

    const { status, body } = await passing(start(client, 'GET', '/health', { bindings }));

    expect(status).toBe(503);
    expect(body).toMatchObject({ status: 'unavailable', database: 'unavailable' });
  });

  it('does not keep the cron from its other chores, but fails the run', async () => {
    const { bindings, calls } = hanging('DB.batch');

    await expect(passing(worker.scheduled(createScheduledController(), bindings), 90_000)).rejects.toThrow();

    expect(calls()).toBeGreaterThan(1);
    expect(logged.join()).toContain('drain_failed');
  });

  it('has 30 s in the cron, whose batches may do much', async () => {
    let calls = 0;
    const bindings = bindingsWith(async (name, carryOut) => {
      if (name === 'DB.batch' && (calls += 1) === 1) await new Promise((resolve) => setTimeout(resolve, 20_000));
      return carryOut();
    });

    await passing(worker.scheduled(createScheduledController(), bindings));

    expect(logged).toEqual([]);
  });
});

describe('a call of KV that never answers', () => {
  it('makes a creation answer "not_done" after one try, and leaves its ciphertext to the outbox', async () => {
    const { bindings, calls } = hanging('CREDENTIALS.put', 1, true);

    const { status, body } = await passing(start(client, 'POST', '/api/integrations', { body: creation, bindings }));

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'not_done' });
    expect(calls()).toBe(1);
    const owed = (await rows('credential_purges')).filter((row) => row['organization_id'] === client.organization_id);
    expect(owed).toMatchObject([{ state: 'owed', attempts: 1 }]);
  });

  it('makes D1 answer about a key instead', async () => {
    forgetKey(await hashKey(client.raw_key));

    const { status } = await passing(
      start(client, 'GET', '/api/nothing', { bindings: hanging('KEY_CACHE.get').bindings }),
    );

    expect(status).toBe(404);
  });

  it('makes an update answer "not_done", and leaves the credentials as they were', async () => {
    vi.useRealTimers();
    const integration_id = await createIntegration(client);
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const before = await rowOf('integrations', integration_id);
    const body = { credentials: { ...twilio, auth_token: 'plaintext-replacement' } };
    const { bindings, calls } = hanging('CREDENTIALS.put');

    const answer = await passing(start(client, 'PUT', `/api/integrations/${integration_id}`, { body, bindings }));

    expect(answer).toMatchObject({ status: 503, body: { outcome: 'not_done' } });
    expect(calls()).toBe(1);
    expect(await rowOf('integrations', integration_id)).toEqual(before);
    expect(await openCredentials(integration_id)).toEqual(twilio);
  });

  it.each(['KEY_CACHE.put', 'DB.batch'])(
    'does not change an answer where it notes the use of the API key: %s',
    async (name) => {
      forgetKey(await hashKey(client.raw_key));
      await env.KEY_CACHE.delete(await hashKey(client.raw_key));
      // The look-up is a batch as well, the first.
      const { bindings, letGo } = hanging(name, name === 'DB.batch' ? 2 : 1);

      const answer = await passing(start(client, 'GET', '/api/nothing', { bindings }));
      await settledLate(answer, letGo);

      expect(answer.status).toBe(404);
      expect(logged.join()).toContain(`${name} did not answer in time`);
    },
  );

  it('does not undo a revocation', async () => {
    const { bindings, letGo } = hanging('KEY_CACHE.delete');

    const answer = await passing(start(client, 'DELETE', `/api/api-keys/${client.key_id}`, { bindings }));
    await settledLate(answer, letGo);

    expect(answer.status).toBe(200);
    expect(logged.join()).toContain('KEY_CACHE.delete did not answer in time');
    expect(await rowOf('api_keys', client.key_id)).toMatchObject({ status: 'revoked' });
  });

  it('does not change the answer to a deletion, and leaves the removal to the cron', async () => {
    vi.useRealTimers();
    const integration_id = await createIntegration(client);
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const { bindings, letGo } = hanging('CREDENTIALS.delete');

    const answer = await passing(start(client, 'DELETE', `/api/integrations/${integration_id}`, { bindings }));
    await settledLate(answer, letGo);

    expect(answer.status).toBe(200);
    expect(logged.join()).toContain('did not answer in time');
    const owed = (await rows('credential_purges')).filter((row) => row['organization_id'] === client.organization_id);
    expect(owed).toMatchObject([{ state: 'owed' }]);
  });

  it('holds the cron for 5 s each, and not for the 30 s of a batch', async () => {
    const kv_key = `v1/${client.organization_id}/x/y`;
    await env.DB.prepare(
      'INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, first_due_at) VALUES (?, ?, 0, 0, 0)',
    )
      .bind(kv_key, client.organization_id)
      .run();
    const bindings = bindingsWith((name, carryOut, { parameters }) =>
      name === 'CREDENTIALS.delete' && parameters[0] === kv_key ? new Promise(() => {}) : carryOut(),
    );

    await passing(worker.scheduled(createScheduledController(), bindings), 10_000);

    expect(logged.join()).toContain('CREDENTIALS.delete did not answer in time');
    expect(await rows('credential_purges')).toContainEqual(expect.objectContaining({ kv_key, attempts: 1 }));
  });
});

describe('a rate limiter that never answers', () => {
  it.each(['ENTERPRISE_LIMIT', 'ENTERPRISE_MUTATIONS_LIMIT'])('lets every request through: %s', async (name) => {
    const limiter: RateLimit = { limit: () => new Promise(() => {}) };
    const body = { phone_number: unusedNumber(), provider: 'sip' };

    const { status } = await passing(
      start(client, 'POST', '/api/phone-numbers', { body, bindings: { ...healthy(), [name]: limiter } }),
    );

    expect(status).toBe(201);
  });
});

describe('a rate limiter of networks that never answers', () => {
  const bindings = { ...healthy(), IP_LIMIT: { limit: () => new Promise<never>(() => {}) } };

  it('admits the look-up of a key', async () => {
    forgetKey(await hashKey(client.raw_key));

    expect(await passing(start(client, 'GET', '/api/nothing', { bindings }))).toMatchObject({ status: 404 });
  });

  it('admits a call of /health', async () => {
    expect(await passing(start(client, 'GET', '/health', { bindings }))).not.toMatchObject({ status: 429 });
  });
});

describe('a call that is late', () => {
  it('is kept alive behind the answer, and its failure is nobody’s', async () => {
    let fail: (reason: Error) => void = () => {};
    const bindings = bindingsWith((name, carryOut) =>
      name === 'DB.batch' ? new Promise((_, reject) => (fail = reject)) : carryOut(),
    );
    const context = createExecutionContext();
    const kept = vi.spyOn(context, 'waitUntil');
    const request = new Request<unknown, IncomingRequestCfProperties>('https://patchbay.test/api/integrations', {
      headers: { 'X-API-Key': client.raw_key, 'X-Organization-Id': client.organization_id },
    });

    const answer = await passing(Promise.resolve(worker.fetch(request, bindings, context)));

    expect(answer.status).toBe(503);
    expect(kept).toHaveBeenCalled();
    fail(new Error('too late'));
    await passing(waitOnExecutionContext(context));
  });
});
