import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { forgetOldEvents, forgetReads, forgetRefusals } from '../../src/worker/audit/retention.ts';
import { endingActions } from '../../src/worker/core/vocabulary.ts';
import worker from '../../src/worker/index.ts';
import { countedBindings, interceptedBindings } from '../bindings.ts';
import { newClient, rows } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const DAY = 24 * 60 * 60;
const now = () => Math.floor(Date.now() / 1000);

let client: Client;
let other: Client;
let logged: unknown[];

beforeEach(async () => {
  await env.DB.prepare('DELETE FROM audit_events').run();
  client = await newClient();
  other = await newClient();
  await env.DB.prepare('DELETE FROM audit_events').run();
  logged = [];
  vi.spyOn(console, 'info').mockImplementation((line) => void logged.push(JSON.parse(String(line))));
});

afterEach(() => vi.restoreAllMocks());

/** Events of one second, days ago; `seconds` makes them younger. */
async function record(
  { organization_id }: Client,
  count: number,
  daysAgo: number,
  seconds = 0,
  action = 'integration.created',
): Promise<void> {
  const time = now() - daysAgo * DAY + seconds;
  await env.DB.prepare(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
     INSERT INTO audit_events (organization_id, event_id, action, target_id, actor_key_id, request_id, state, created_at, sequence) SELECT ?1, hex(randomblob(16)), ?5, ?3, NULL, 'request', '{}', ?4,
       (SELECT last_sequence FROM organizations WHERE organization_id = ?1) + i FROM n`,
  )
    .bind(organization_id, count, `${daysAgo} days`, time, action)
    .run();
}

const forget = (days?: string, bindings = env) =>
  forgetOldEvents(days === undefined ? bindings : { ...bindings, AUDIT_RETENTION_DAYS: days });

const left = async ({ organization_id }: Client) =>
  (await rows('audit_events'))
    .filter((event) => event['organization_id'] === organization_id)
    .toSorted((one, next) => Number(one['created_at']) - Number(next['created_at']))
    .map(({ target_id }) => target_id);

/** The rows that all statements of a turn read. */
async function rowsRead(days?: string): Promise<number> {
  let count = 0;
  const bindings = interceptedBindings(async (_, carryOut) => {
    const result = await carryOut();
    if (Array.isArray(result)) for (const { meta } of result) count += meta.rows_read;
    return result;
  });
  await forget(days, bindings);
  return count;
}

describe('the retention of audit events', () => {
  it('is 400 days: it deletes what is older, of every organization, and nothing else', async () => {
    for (const owner of [client, other]) {
      await record(owner, 2, 401);
      await record(owner, 1, 399);
      await record(owner, 1, 0);
    }

    await forget();

    for (const owner of [client, other]) expect(await left(owner)).toEqual(['399 days', '0 days']);
    expect(logged).toEqual([{ event: 'audit_events_forgotten', count: 4 }]);
  });

  it('is as many days as are set, to the second', async () => {
    await record(client, 1, 7, -1);
    await record(client, 1, 7, 30);

    await forget('8');
    expect(await left(client)).toHaveLength(2);
    await forget('7');
    expect(await left(client)).toHaveLength(1);
  });

  it.each(endingActions)('keeps what a restore of D1 could undo for 31 days, whatever is set: %s', async (action) => {
    await record(client, 1, 31, -1, action);
    await record(client, 1, 31, 30, action);
    await record(client, 1, 2, 0, action);
    await record(client, 1, 2);

    await forget('1');

    expect(await left(client)).toEqual(['31 days', '2 days']);
    expect(logged).toEqual([{ event: 'audit_events_forgotten', count: 2 }]);
  });

  it('reads no event that it keeps where few days are set', async () => {
    await record(client, 2_000, 2, 0, 'integration.deleted');
    await record(client, 10, 2);

    expect(await rowsRead('1')).toBeLessThan(20 * (await rows('organizations')).length + 100);
    expect(await left(client)).toHaveLength(2_000);
  });

  it('is the cron’s to keep', async () => {
    await record(client, 1, 401);

    await worker.scheduled(createScheduledController(), env);

    expect(await left(client)).toEqual([]);
  });

  it('takes as many statements of at most 5,000 events as it needs', async () => {
    await record(client, 3_500, 500);
    await record(other, 3_500, 500);
    const { bindings, calls } = countedBindings();

    await forget(undefined, bindings);

    expect([...(await left(client)), ...(await left(other))]).toEqual([]);
    expect(calls).toEqual(['DB.batch', 'DB.batch']);
    expect(logged).toMatchObject([{ count: 7000 }]);
  });

  it('costs one statement, says nothing where nothing is old, and reads no event that it keeps', async () => {
    await record(client, 5_000, 1);
    const { bindings, calls } = countedBindings();

    await forget(undefined, bindings);

    expect(calls).toEqual(['DB.batch']);
    expect(logged).toEqual([]);
    expect(await rowsRead()).toBeLessThanOrEqual(3 * (await rows('organizations')).length);
  });

  it('reads events in proportion to those that it deletes', async () => {
    await record(client, 100, 500);
    await record(client, 5_000, 1);

    expect(await rowsRead()).toBeLessThan(1_000);
    expect(await left(client)).toHaveLength(5_000);
  });

  it.each(['', '0', '-1', '1.5', '1e3', '400 days', '10000', 'x', ' 400'])(
    'is not guessed from the setting "%s": nothing is deleted',
    async (days) => {
      await record(client, 1, 5_000);

      await expect(forget(days)).rejects.toThrow('AUDIT_RETENTION_DAYS must be a whole number from 1 to 9999');

      expect(await left(client)).toHaveLength(1);
    },
  );

  it('that is set wrong keeps the cron from no other chore, and is in the log', async () => {
    const error = vi.spyOn(console, 'error').mockImplementation(() => {});
    await env.CREDENTIALS.put('v1/org_a/intg_1/due', 'ciphertext');
    await env.DB.prepare(
      `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts) VALUES ('v1/org_a/intg_1/due', 'org_a', 1, 0)`,
    ).run();

    await expect(worker.scheduled(createScheduledController(), { ...env, AUDIT_RETENTION_DAYS: 'x' })).rejects.toThrow(
      'AUDIT_RETENTION_DAYS',
    );

    expect(await rows('credential_purges')).toEqual([]);
    expect(error.mock.calls).toEqual([[expect.stringMatching(/"audit_retention_failed".*AUDIT_RETENTION_DAYS/)]]);
  });
});

describe.each([
  ['integration.delete_refused', forgetRefusals, 'refusals_forgotten'],
  ['phone_number.delete_refused', forgetRefusals, 'refusals_forgotten'],
  ['credentials.read', forgetReads, 'reads_forgotten'],
] as const)('events %s', (action, forgetThem, logs) => {
  const limitEvents = ({ organization_id }: Client, most: number) =>
    env.DB.prepare('UPDATE organizations SET max_audit_events = ? WHERE organization_id = ?')
      .bind(most, organization_id)
      .run();

  it('are kept for 30 days, of every organization, and what was done for longer', async () => {
    for (const owner of [client, other]) {
      await record(owner, 2, 31, 0, action);
      await record(owner, 1, 32);
      await record(owner, 1, 29, 0, action);
    }

    await worker.scheduled(createScheduledController(), env);

    for (const owner of [client, other]) expect(await left(owner)).toEqual(['32 days', '29 days']);
    expect(logged).toContainEqual({ event: logs, count: 4 });
  });

  it('that are more than a tenth of the quota of events go early, the oldest first, and nothing that was done', async () => {
    await limitEvents(client, 30);
    await record(client, 1, 10);
    await record(client, 1, 9, 0, action);
    await record(client, 1, 8, 0, action);
    await record(client, 3, 7, 0, action);
    await record(other, 5, 9, 0, action);

    await forgetThem(env);

    expect(await left(client)).toEqual(['10 days', '7 days', '7 days', '7 days']);
    expect(await left(other)).toHaveLength(5);
  });

  it('of the last hour stay, however many they are', async () => {
    await limitEvents(client, 30);
    await record(client, 10, 0, -3500, action);
    await record(client, 2, 0, -3700, action);

    await forgetThem(env);

    expect(await left(client)).toHaveLength(10);
  });

  it('that are kept are not read', async () => {
    await record(client, 5_000, 1, 0, action);
    let count = 0;
    const bindings = interceptedBindings(async (_, carryOut) => {
      const result = await carryOut();
      if (Array.isArray(result)) for (const { meta } of result) count += meta.rows_read;
      return result;
    });

    await forgetThem(bindings);

    expect(count).toBeLessThanOrEqual(8 * (await rows('organizations')).length);
  });
});
