import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { drainPurges, purge } from '../../src/worker/credentials/drain.ts';
import { countedBindings, failingBindings, interceptedBindings } from '../bindings.ts';
import { rows } from '../fixtures.ts';

const MINUTE = 60;
const now = () => Math.floor(Date.now() / 1000);

const drain = (bindings = env) => drainPurges(bindings);
const later = (seconds: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + seconds * 1000 });

/** Garbage in KV, and the outbox row that names it, of the organization that the KV key names. */
async function enqueue(kv_key: string, due_at = now(), attempts = 0, first_due_at = due_at): Promise<void> {
  const [, organization_id] = kv_key.split('/');
  await env.CREDENTIALS.put(kv_key, 'ciphertext');
  await env.DB.prepare(
    `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, first_due_at) VALUES (?, ?, ?, ?, ?)`,
  )
    .bind(kv_key, organization_id, due_at, attempts, first_due_at)
    .run();
}

/** Many outbox rows at once, without ciphertext: the i-th of them from 0 is due at `due_at`, an SQL expression of i. */
const enqueueMany = (count: number, due_at: string, organization_id = 'org_a') =>
  env.DB.prepare(
    `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ${count})
     INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, first_due_at)
       SELECT 'v1/' || ?1 || '/intg_' || i || '/many', ?1, ${due_at}, 0, ${due_at} FROM n`,
  )
    .bind(organization_id)
    .run();

const refusing = (times?: number) =>
  failingBindings('CREDENTIALS.delete', { when: 'before', message: 'KV DELETE failed', ...(times && { times }) })
    .bindings;

/** What a drain writes to the log, by level. */
async function logged(bindings = env) {
  const lines = { info: vi.spyOn(console, 'info'), error: vi.spyOn(console, 'error') };
  for (const spy of Object.values(lines)) spy.mockReset().mockImplementation(() => {});
  await drain(bindings);
  const parsed = (level: keyof typeof lines): unknown[] =>
    lines[level].mock.calls.map(([line]) => JSON.parse(String(line)));
  return { info: parsed('info'), error: parsed('error') };
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

describe('a purge behind its answer', () => {
  const keys = Array.from({ length: 20 }, (_, index) => `v1/org_a/intg_${index}/gone`);
  const purgeAll = (bindings = env) => Promise.allSettled(keys.map((kv_key) => purge(bindings, kv_key)));

  beforeEach(async () => {
    for (const kv_key of keys) await enqueue(kv_key);
  });

  it('removes the ciphertext, then the row, and touches no other', async () => {
    const { bindings, calls } = countedBindings();
    const [gone = '', ...others] = keys;

    await purge(bindings, gone);

    expect(calls).toEqual(['CREDENTIALS.delete', 'DB.batch']);
    expect(new Set(await outbox())).toEqual(new Set(others));
    expect(new Set(await stored())).toEqual(new Set(others));
  });

  it('leaves the row where KV refused the removal', async () => {
    await purgeAll(refusing(3));

    expect(await outbox()).toHaveLength(3);
    expect(new Set(await outbox())).toEqual(new Set(await stored()));
  });

  it('leaves the row to the cron where D1 refuses to delete it', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'before', message: 'D1 DB is overloaded.' });

    await purgeAll(bindings);
    expect(await outbox()).toHaveLength(20);

    await drain();
    expect(await outbox()).toEqual([]);
  });
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

    await drain(refusing(1));
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

    expect(error.mock.calls).toEqual([[expect.stringMatching(/"purge_failed".*KV DELETE failed/)]]);
  });

  it('waits longer after each failure, up to about an hour', async () => {
    const waits: number[] = [];
    for (const attempts of [0, 1, 2, 6, 50]) {
      await env.DB.prepare('DELETE FROM credential_purges').run();
      await enqueue('v1/org_a/intg_1/stuck', now(), attempts);
      const start = now();
      await drain(refusing());
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

  it('loses nothing to another that takes over after its lease while it is stuck', async () => {
    await enqueue('v1/org_a/intg_1/slow');
    const { promise: stuck, resolve: goOn } = Promise.withResolvers<void>();
    const { promise: reached, resolve: reach } = Promise.withResolvers<void>();
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'CREDENTIALS.delete') {
        reach();
        await stuck;
        throw new Error('KV DELETE failed');
      }
      return carryOut();
    });

    const slow = drain(bindings);
    await reached;
    later(MINUTE + 1);
    await drain();
    goOn();
    await slow;

    expect(await outbox()).toEqual([]);
    expect(await stored()).toEqual([]);
  });

  it('does not forget, by what it has purged, what has come back since', async () => {
    const kv_key = 'v1/org_a/intg_1/back';
    await enqueue(kv_key);
    let batches = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'DB.batch' && (batches += 1) === 2) {
        await env.DB.prepare('DELETE FROM credential_purges').run();
        await enqueue(kv_key, now() + 3600, 1);
      }
      return carryOut();
    });

    await drain(bindings);

    expect(await outbox()).toEqual([kv_key]);
    expect(await stored()).toEqual([kv_key]);
  });

  it('takes turns until nothing is due', async () => {
    await enqueueMany(501, 'unixepoch()');

    await drain();

    expect(await outbox()).toEqual([]);
  });

  it('comes back in none of its turns for what KV has refused', async () => {
    await enqueueMany(501, 'unixepoch()');
    const { bindings, calls } = failingBindings('CREDENTIALS.delete', {
      when: 'before',
      message: 'KV DELETE failed',
      times: 20,
    });

    await drain(bindings);

    expect(calls.filter((name) => name === 'CREDENTIALS.delete')).toHaveLength(501);
    expect(await outbox()).toHaveLength(20);
  });

  it('makes 800 KV calls and no more, for the oldest first', async () => {
    await enqueueMany(801, '1000 - i');
    const { bindings, calls } = countedBindings();

    await drain(bindings);

    expect(calls.filter((name) => name === 'CREDENTIALS.delete')).toHaveLength(800);
    expect(await outbox()).toEqual(['v1/org_a/intg_0/many']);
  });

  it('begins no turn when 25 seconds are over, and leaves nothing claimed', async () => {
    await enqueueMany(500, 'unixepoch()');
    let deletes = 0;
    const bindings = interceptedBindings((name, carryOut) => {
      if (name === 'CREDENTIALS.delete' && (deletes += 1) === 1) later(26);
      return carryOut();
    });

    await drain(bindings);

    expect(deletes).toBe(150);
    expect(await rows('credential_purges')).toEqual(
      Array.from({ length: 350 }, () => expect.objectContaining({ attempts: 0 })),
    );
  });

  it('has at most six KV calls under way', async () => {
    await enqueueMany(30, 'unixepoch()');
    let underWay = 0;
    let most = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name !== 'CREDENTIALS.delete') return carryOut();
      most = Math.max(most, (underWay += 1));
      await carryOut();
      underWay -= 1;
      return undefined;
    });

    await drain(bindings);

    expect(most).toBe(6);
  });
});

describe('a turn of the drain', () => {
  /** Drains, and looks at the outbox between the first turn's claim and what follows its removals. */
  async function claimedFirst(): Promise<unknown[]> {
    let batches = 0;
    let claimed: unknown[] = [];
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'DB.batch' && (batches += 1) === 2) {
        claimed = (await rows('credential_purges')).filter(({ attempts }) => attempts === 1);
      }
      return carryOut();
    });
    await drain(bindings);
    return claimed;
  }

  const ofOrganization = (organization_id: string) => expect.objectContaining({ organization_id });

  it('has the one removal of an organization in it, whatever 3,000 older ones another has', async () => {
    await enqueueMany(3000, 'unixepoch() - 1000', 'org_a');
    await enqueue('v1/org_b/intg_1/due');

    expect(await claimedFirst()).toContainEqual(ofOrganization('org_b'));

    expect(await stored()).toEqual([]);
    expect(await outbox()).toHaveLength(3001 - 800);
  });

  it('is shared by organizations evenly, each with its oldest; what one does not need is the others’', async () => {
    await enqueueMany(400, 'unixepoch() - 1000 - i', 'org_a');
    await enqueueMany(300, 'unixepoch() - i', 'org_b');
    await enqueueMany(2, 'unixepoch() - i', 'org_c');

    const claimed = await claimedFirst();

    const nth = (organization_id: string, first: number, count: number) =>
      Array.from({ length: count }, (_, i) =>
        expect.objectContaining({ kv_key: `v1/${organization_id}/intg_${first - i}/many` }),
      );
    expect(claimed).toHaveLength(150);
    expect(claimed).toEqual(
      expect.arrayContaining([...nth('org_a', 399, 74), ...nth('org_b', 299, 74), ...nth('org_c', 1, 2)]),
    );
  });

  it('is for those that wait longest where there are more organizations than it has room for', async () => {
    for (let index = 0; index < 151; index += 1) await enqueueMany(1, String(2000 - index), `org_${index}`);

    const claimed = await claimedFirst();

    expect(claimed).toHaveLength(150);
    expect(claimed).not.toContainEqual(ofOrganization('org_0'));
  });
});

describe('the statements of a turn', () => {
  /** Drains, and tells how many rows the claim of each turn has read. */
  async function rowsReadByClaims(): Promise<number[]> {
    const read: number[] = [];
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'DB.batch' && Array.isArray(result)) read.push(result[1].meta.rows_read);
      return result;
    });
    await drain(bindings);
    return read;
  }

  it('do not read what is not due, however much an organization has of it', async () => {
    await enqueueMany(10_000, 'unixepoch() + 3000');
    await enqueue('v1/org_a/intg_x/due');

    expect(Math.max(...(await rowsReadByClaims()))).toBeLessThanOrEqual(20);
  });

  it('read a few rows for each one that is claimed, however many are due at the same second', async () => {
    await enqueueMany(10_000, 'unixepoch()');

    expect(Math.max(...(await rowsReadByClaims()))).toBeLessThanOrEqual(150 * 12);
  });

  it('read a few rows for each organization that has any', async () => {
    for (let index = 0; index < 100; index += 1) await enqueueMany(100, 'unixepoch() + 3000', `org_${index}`);

    expect(Math.max(...(await rowsReadByClaims()))).toBeLessThanOrEqual(100 * 5);
  });

  it('are index seeks, every one', async () => {
    await enqueue('v1/org_a/intg_1/due');
    const seen: { sql: string; parameters: unknown[] }[] = [];
    const DB: D1Database = new Proxy(env.DB, {
      get(database, name) {
        if (name === 'prepare') {
          return (sql: string) => ({
            bind(...parameters: unknown[]) {
              seen.push({ sql, parameters });
              return database.prepare(sql).bind(...parameters);
            },
          });
        }
        return (...parameters: unknown[]) => Reflect.apply(Reflect.get(database, name), database, parameters);
      },
    });

    await drain({ ...env, DB });

    const plans = await Promise.all(
      seen.map(({ sql, parameters }) =>
        env.DB.prepare(`EXPLAIN QUERY PLAN ${sql}`)
          .bind(...parameters)
          .all<{ detail: string }>(),
      ),
    );
    const steps = plans.flatMap(({ results }) => results.map(({ detail }) => detail));
    expect(steps).toContainEqual(
      expect.stringMatching(/^SEARCH credential_purges .*\(organization_id=\? AND \(due_at,kv_key\)>\(\?,\?\)/),
    );
    // What is scanned is what the searches themselves have found, and the claims that are forgotten.
    const scanned = steps.filter((step) => step.startsWith('SCAN')).map((step) => step.split(' ')[1]);
    expect(new Set(scanned)).toEqual(new Set(['holders', 'merged', 'json_each']));
  });
});

describe('the drain’s log', () => {
  it('counts what was purged, what failed, and what is left that is due', async () => {
    await enqueueMany(802, 'unixepoch()');
    await enqueue('v1/org_a/intg_x/later', now() + MINUTE);

    expect((await logged(refusing(3))).info).toEqual([{ event: 'purges_drained', purged: 797, failed: 3, left: 5 }]);
    expect((await logged()).info).toEqual([{ event: 'purges_drained', purged: 2, failed: 0, left: 3 }]);
    expect((await logged()).info).toEqual([{ event: 'purges_drained', purged: 0, failed: 0, left: 3 }]);
  });

  it('has no line when there is nothing to do', async () => {
    await enqueue('v1/org_a/intg_1/later', now() + MINUTE);

    expect(await logged()).toEqual({ info: [], error: [] });
  });

  it('alerts while a purge that KV refuses has been due for more than 15 minutes, and not before', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() });
    const due = now();
    await enqueue('v1/org_a/intg_1/stuck', due);
    const alerts: [number, unknown][] = [];
    const seconds = [0, 10 * MINUTE, 15 * MINUTE, 15 * MINUTE + 1, 30 * MINUTE];
    for (const late of seconds) {
      vi.setSystemTime((due + late) * 1000);
      const { error } = await logged(refusing());
      for (const line of error) if (!JSON.stringify(line).includes('purge_failed')) alerts.push([late, line]);
    }

    expect(alerts).toEqual([
      [15 * MINUTE + 1, { event: 'purges_overdue', oldest_seconds: 15 * MINUTE + 1 }],
      [30 * MINUTE, { event: 'purges_overdue', oldest_seconds: 30 * MINUTE }],
    ]);
  });

  it('alerts by what is oldest, wherever back-off has put it', async () => {
    await enqueue('v1/org_a/intg_1/younger', now() + MINUTE, 4, now() - 20 * MINUTE);
    await enqueue('v1/org_a/intg_2/oldest', now() + 60 * MINUTE, 7, now() - 40 * MINUTE);
    await enqueue('v1/org_a/intg_3/intent', now() + 30 * MINUTE);

    const [alert, ...others] = (await logged()).error;

    expect(others).toEqual([]);
    expect(alert).toEqual({ event: 'purges_overdue', oldest_seconds: expect.closeTo(40 * MINUTE, -1) });
  });

  it('does not alert for what it has just removed, however late, nor for the intent of a create under way', async () => {
    await enqueue('v1/org_a/intg_1/late', now() - 60 * MINUTE);
    await enqueue('v1/org_a/intg_2/intent', now() + 60 * MINUTE);

    expect((await logged()).error).toEqual([]);
  });

  it('looks at 10,000 rows of the backlog and no more', async () => {
    await enqueueMany(11_000, 'unixepoch() - 100000 + i');

    expect((await logged()).info).toEqual([{ event: 'purges_drained', purged: 800, failed: 0, left: 10_000 }]);
  });
});
