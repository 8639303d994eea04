import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { drainPurges } from '../../src/credentials/purge.ts';
import worker from '../../src/index.ts';
import { countedBindings, failingBindings, interceptedBindings } from '../bindings.ts';
import { rows } from '../fixtures.ts';

const MINUTE = 60;
const now = () => Math.floor(Date.now() / 1000);

const drain = (bindings = env) => worker.scheduled(createScheduledController(), bindings);
const later = (seconds: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + seconds * 1000 });

/** Garbage in KV, and the outbox row that names it. */
async function enqueue(kv_key: string, due_at = now(), attempts = 0): Promise<void> {
  await env.CREDENTIALS.put(kv_key, 'ciphertext');
  await env.DB.prepare('INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts) VALUES (?, ?, ?, ?)')
    .bind(kv_key, 'org_a', due_at, attempts)
    .run();
}

const outbox = async () => (await rows('credential_purges')).map(({ kv_key }) => kv_key);
const stored = async () => (await env.CREDENTIALS.list()).keys.map(({ name }) => name);

beforeEach(async () => {
  await env.DB.prepare('DELETE FROM credential_purges').run();
  for (const name of await stored()) await env.CREDENTIALS.delete(name);
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

describe('the drain', () => {
  it('removes what is due, and leaves what is not', async () => {
    await enqueue('v1/org_a/intg_1/due');
    await enqueue('v1/org_a/intg_2/later', now() + MINUTE);

    await drain();

    expect(await outbox()).toEqual(['v1/org_a/intg_2/later']);
    expect(await stored()).toEqual(['v1/org_a/intg_2/later']);
  });

  it('costs one look at D1 when there is nothing to do', async () => {
    const { bindings, calls } = countedBindings();

    await drainPurges(bindings);

    expect(calls).toEqual(['DB.batch']);
  });

  it('removes a ciphertext that is gone already', async () => {
    await enqueue('v1/org_a/intg_1/gone');
    await env.CREDENTIALS.delete('v1/org_a/intg_1/gone');

    await drain();

    expect(await outbox()).toEqual([]);
  });

  it('keeps what KV refuses to delete, does the rest, and comes back for it after its lease', async () => {
    await enqueue('v1/org_a/intg_1/stuck');
    await enqueue('v1/org_a/intg_2/fine');
    const { bindings } = failingBindings('CREDENTIALS.delete', {
      when: 'before',
      message: 'KV DELETE failed',
      times: 1,
    });

    await drain(bindings);
    expect(await outbox()).toHaveLength(1);
    await drain();
    expect(await outbox()).toHaveLength(1);

    later(MINUTE + 1);
    await drain();
    expect(await outbox()).toEqual([]);
    expect(await stored()).toEqual([]);
  });

  it('says in the log what it cannot remove, even where it cannot tell the outbox of the rest', async () => {
    await enqueue('v1/org_a/intg_1/stuck');
    const error = vi.spyOn(console, 'error').mockImplementation(() => {});
    let batches = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'CREDENTIALS.delete') throw new Error('KV DELETE failed');
      if (name === 'DB.batch' && (batches += 1) > 1) throw new Error('D1 is away');
      return carryOut();
    });

    await expect(drain(bindings)).rejects.toThrow('temporarily_unavailable');

    const lines = error.mock.calls.map(([line]) => String(line));
    expect(lines.filter((line) => !line.includes('audit_retention_failed'))).toEqual([
      expect.stringMatching(/"purge_failed".*KV DELETE failed/),
      expect.stringMatching(/"drain_failed".*D1 is away/),
    ]);
  });

  it('waits longer after each failure, up to about an hour', async () => {
    const waits: number[] = [];
    for (const attempts of [0, 1, 2, 6, 50]) {
      await env.DB.prepare('DELETE FROM credential_purges').run();
      await enqueue('v1/org_a/intg_1/stuck', now(), attempts);
      const { bindings } = failingBindings('CREDENTIALS.delete', { when: 'before', message: 'KV DELETE failed' });
      const start = now();
      await drain(bindings);
      const [row] = await rows('credential_purges');
      waits.push(Math.round((Number(row?.['due_at']) - start) / MINUTE));
      expect(row?.['attempts']).toBe(attempts + 1);
    }

    expect(waits).toEqual([1, 2, 4, 64, 64]);
  });

  it('shares the work with another at the same time: each ciphertext is one drain’s', async () => {
    for (let index = 0; index < 20; index += 1) await enqueue(`v1/org_a/intg_${index}/due`);
    const first = countedBindings();
    const second = countedBindings();

    await Promise.all([drain(first.bindings), drain(second.bindings)]);

    const deletes = [...first.calls, ...second.calls].filter((name) => name === 'CREDENTIALS.delete');
    expect(deletes).toHaveLength(20);
    expect(await outbox()).toEqual([]);
    expect(await stored()).toEqual([]);
  });

  it('takes at most 500 at once, the oldest first', async () => {
    await env.DB.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
       INSERT INTO credential_purges SELECT 'v1/org_a/intg_' || i || '/due', 'org_a', 1000 - i, 0 FROM n`,
    ).run();
    const { bindings, calls } = countedBindings();

    await drain(bindings);

    expect(calls.filter((name) => name === 'CREDENTIALS.delete')).toHaveLength(500);
    expect(await outbox()).toEqual(['v1/org_a/intg_0/due']);
  });
});
