/** A create, and an import with SIP credentials, whose bindings fail at each of their three steps: intent, put, batch. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { drainPurges } from '../../src/worker/credentials/drain.ts';
import worker from '../../src/worker/index.ts';
import { failingBindings, interceptedBindings } from '../bindings.ts';
import { call, emptyStorage, newClient, resources, rows, twilio, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { withoutBackOff } from './every-call.ts';
import { assertInvariants } from './invariants.ts';

const LOST = 'D1_ERROR: Network connection lost.';
const TWO_HOURS = 2 * 3600 * 1000;

let client: Client;

beforeEach(withoutBackOff);

beforeEach(async () => {
  await emptyStorage();
  client = await newClient();
  // The key is in the caches from here on.
  await call(client, 'DELETE', '/api/integrations/intg_000000000000');
});

afterEach(() => {
  vi.useRealTimers();
});

describe.each([
  ['/api/integrations', { name: 'Twilio Production', credentials: twilio }, 'integrations'],
  [
    '/api/phone-numbers',
    { provider: 'sip', sip_username: 'user', sip_password: 'plaintext-password' },
    'phone_numbers',
  ],
] as const)('POST %s', (path, fields, table) => {
  const post = (bindings = env) => {
    const body = table === 'phone_numbers' ? { ...fields, phone_number: unusedNumber() } : fields;
    return call(client, 'POST', path, { body, bindings });
  };

  /** The cron, when every intent of now is due. */
  const drainLater = async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + TWO_HOURS });
    await worker.scheduled(createScheduledController(), env);
  };

  it('leaves an intact row, its ciphertext and an empty outbox when nothing fails', async () => {
    expect((await post()).status).toBe(201);

    await drainLater();
    const stored = await resources();
    expect(stored[table]).toHaveLength(1);
    expect(Object.keys(stored.CREDENTIALS)).toHaveLength(1);
    expect(stored.credential_purges).toEqual([]);
  });

  it('has done nothing when the ciphertext cannot be stored, and the outbox ends empty', async () => {
    const faults = failingBindings('CREDENTIALS.put', { when: 'after', message: 'KV PUT failed: 500' });

    const { status, body } = await post(faults.bindings);

    expect(status).toBe(503);
    expect(body).toMatchObject({ code: 'temporarily_unavailable', outcome: 'not_done' });
    expect(faults.calls.filter((name) => name === 'CREDENTIALS.put')).toHaveLength(3);
    expect(await rows(table)).toEqual([]);
    // Each put was of a version of its own.
    expect(await rows('credential_purges')).toHaveLength(3);
    await drainLater();
    expect(await resources()).toMatchObject({ credential_purges: [], CREDENTIALS: {} });
  });

  it.each([
    ['has taken its intent', () => worker.scheduled(createScheduledController(), env)],
    [
      'has claimed its intent',
      () => env.DB.prepare('UPDATE credential_purges SET due_at = due_at + 120, attempts = 1').run(),
    ],
    ['has not seen its intent', async () => {}],
  ])(
    'leaves a ciphertext that was late, and whose answer was lost, in the outbox for an hour where a purge %s',
    async (_, happened) => {
      let puts = 0;
      const bindings = interceptedBindings(async (name, carryOut) => {
        if (name !== 'CREDENTIALS.put' || (puts += 1) !== 1) return carryOut();
        vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 61 * 60 * 1000 });
        await happened();
        await carryOut();
        throw new Error('KV PUT failed: 500');
      });

      expect((await post(bindings)).status).toBe(201);

      expect(Object.keys((await resources()).CREDENTIALS)).toHaveLength(2);
      const [late, ...others] = await rows('credential_purges');
      expect(others).toEqual([]);
      const hour = Math.floor(Date.now() / 1000) + 3600;
      expect(late).toEqual({ ...late, due_at: hour, first_due_at: hour });
      await assertInvariants(client.organization_id);
      await drainLater();
      expect(Object.keys((await resources()).CREDENTIALS)).toHaveLength(1);
    },
  );

  it('has done nothing when the intent cannot be recorded, even where its commit is in doubt', async () => {
    const faults = failingBindings('DB.batch', { when: 'after', message: LOST });

    const { status, body } = await post(faults.bindings);

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'not_done' });
    expect(await rows(table)).toEqual([]);
    expect(faults.calls).not.toContain('CREDENTIALS.put');
    await drainLater();
    expect(await rows('credential_purges')).toEqual([]);
  });

  it.each(['before', 'after'] as const)(
    'is done once when the answer to its batch is lost once, %s the commit',
    async (when) => {
      let batches = 0;
      const bindings = interceptedBindings(async (name, carryOut) => {
        if (name !== 'DB.batch' || (batches += 1) !== 2) return carryOut();
        if (when === 'after') await carryOut();
        throw new Error(LOST);
      });

      const { status } = await post(bindings);

      expect(status).toBe(201);
      expect(await rows(table)).toHaveLength(1);
      expect(await rows('credential_purges')).toEqual([]);
    },
  );

  it('does not come back when it is deleted between a commit and the retry of its batch', async () => {
    let batches = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name !== 'DB.batch' || (batches += 1) !== 2) return carryOut();
      await carryOut();
      await env.DB.prepare(`DELETE FROM ${table}`).run();
      throw new Error(LOST);
    });

    await post(bindings);

    expect(await rows(table)).toEqual([]);
  });

  describe('of which every batch arrives at D1 once more, late', () => {
    /** Notes every batch of a post, to be carried out again. */
    async function postNoted() {
      const late: (() => Promise<unknown>)[] = [];
      const bindings = interceptedBindings((name, carryOut) => {
        if (name === 'DB.batch') late.push(carryOut);
        return carryOut();
      });
      expect((await post(bindings)).status).toBe(201);
      return async () => {
        for (const carryOut of late) await carryOut();
      };
    }

    it('is done once, and its ciphertext stays', async () => {
      const replay = await postNoted();
      const before = await resources();

      await replay();

      expect(await resources()).toEqual(before);
      await drainLater();
      expect(await resources()).toEqual(before);
    });

    it('does not bring back what was deleted meanwhile', async () => {
      const replay = await postNoted();
      await env.DB.prepare(`DELETE FROM ${table}`).run();

      await replay();

      expect(await rows(table)).toEqual([]);
      expect(await rows('credential_purges')).toEqual([]);
    });
  });

  it('is not done by a caller whose key dies before the intent', async () => {
    await env.DB.prepare(`UPDATE api_keys SET status = 'revoked' WHERE key_id = ?`).bind(client.key_id).run();

    expect((await post()).status).toBe(401);

    expect(await resources()).toEqual({ integrations: [], phone_numbers: [], credential_purges: [], CREDENTIALS: {} });
  });

  const change = (assignment: string) =>
    env.DB.prepare(`UPDATE api_keys SET ${assignment} WHERE key_id = ?`).bind(client.key_id).run();

  it('is not done by a caller whose key dies between the intent and the batch; its ciphertext goes when it is due', async () => {
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'CREDENTIALS.put') await change(`status = 'revoked'`);
      return carryOut();
    });

    expect((await post(bindings)).status).toBe(401);

    expect(await rows(table)).toEqual([]);
    expect(await rows('credential_purges')).toHaveLength(1);
    await drainLater();
    expect(await resources()).toEqual({ integrations: [], phone_numbers: [], credential_purges: [], CREDENTIALS: {} });
  });

  it('is in doubt where it is refused while an earlier try is under way, and that try can do nothing any more', async () => {
    let late: (() => Promise<unknown>) | undefined;
    let batches = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name !== 'DB.batch' || (batches += 1) !== 2) return carryOut();
      late = carryOut;
      await change(`role = 'user'`);
      throw new Error(LOST);
    });

    const { status, body } = await post(bindings);
    await change(`role = 'admin'`);
    await late?.();

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'unknown' });
    expect(late).toBeDefined();
    expect(await rows(table)).toEqual([]);
    await drainLater();
    expect(await resources()).toEqual({ integrations: [], phone_numbers: [], credential_purges: [], CREDENTIALS: {} });
  });

  it('leaves no ciphertext where a put lands late, after the refusal', async () => {
    let late: (() => Promise<unknown>) | undefined;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name !== 'CREDENTIALS.put' || late) return carryOut();
      late = carryOut;
      await change(`status = 'revoked'`);
      throw new Error('KV PUT failed: 500');
    });

    expect((await post(bindings)).status).toBe(401);
    await late?.();

    await drainLater();
    expect(await resources()).toEqual({ integrations: [], phone_numbers: [], credential_purges: [], CREDENTIALS: {} });
  });

  it('leaves no ciphertext where a put lands late, after another one was made live and has been deleted', async () => {
    let late: (() => Promise<unknown>) | undefined;
    const bindings = interceptedBindings((name, carryOut) => {
      if (name !== 'CREDENTIALS.put' || late) return carryOut();
      late = carryOut;
      throw new Error('KV PUT failed: 500');
    });

    const { status, body } = await post(bindings);
    const [row] = await rows(table);
    const id = String(row?.['phone_number_id'] ?? row?.['integration_id']);
    expect((await call(client, 'DELETE', `${path}/${id}`)).status).toBe(200);
    await late?.();

    expect(status).toBe(201);
    expect(body).toMatchObject({ success: true });
    await assertInvariants(client.organization_id);
    await drainLater();
    expect(await resources()).toEqual({ integrations: [], phone_numbers: [], credential_purges: [], CREDENTIALS: {} });
  });

  it('leaves no ciphertext where its put lands while a drain that has claimed it is under way', async () => {
    let putLands: (() => void) | undefined;
    const landed = new Promise<void>((resolve) => (putLands = resolve));
    const drained = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      // It has removed what was not there yet, and has yet to forget it.
      if (name === 'CREDENTIALS.delete') await landed;
      return result;
    });
    let draining: Promise<void> | undefined;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name !== 'CREDENTIALS.put') return carryOut();
      await env.DB.prepare('UPDATE credential_purges SET due_at = 0').run();
      draining = drainPurges(drained);
      await vi.waitUntil(async () => (await rows('credential_purges')).some((purge) => purge['attempts'] === 1), {
        timeout: 60_000,
      });
      return carryOut();
    });

    const { status } = await post(bindings);
    putLands?.();
    await draining;

    expect(status).toBe(503);
    await assertInvariants(client.organization_id);
    await drainLater();
    expect(await resources()).toEqual({ integrations: [], phone_numbers: [], credential_purges: [], CREDENTIALS: {} });
  });

  it('is not done while the cron, having claimed its ciphertext, has yet to remove it', async () => {
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'CREDENTIALS.put') await env.DB.prepare('UPDATE credential_purges SET attempts = 1').run();
      return result;
    });

    expect((await post(bindings)).status).toBe(503);

    expect(await rows(table)).toEqual([]);
  });

  it('is not done when the cron has claimed its ciphertext meanwhile', async () => {
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'CREDENTIALS.put') await drainLater();
      return result;
    });

    const { status, body } = await post(bindings);

    expect(status).toBe(503);
    expect(body).toMatchObject({ outcome: 'not_done' });
    const { credential_purges, ...left } = await resources();
    expect(left).toEqual({ integrations: [], phone_numbers: [], CREDENTIALS: {} });
    // The put may have been later than the purge: it is owed again.
    expect(credential_purges).toMatchObject([{ attempts: 1 }]);
    await drainLater();
    expect(await rows('credential_purges')).toEqual([]);
  });
});
