import { env } from 'cloudflare:workers';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { exportEvents, whyNotCovered } from '../../../src/operator/recovery/export.ts';
import type { AuditEventRow } from '../../../src/operator/recovery/export.ts';
import { interceptedBindings } from '../../bindings.ts';
import { call, createIntegration, importNumber, newClient, rows, unusedNumber } from '../../fixtures.ts';
import { exportedSince } from './restore.ts';

const SINCE = 1_700_000_000;
const A_DAY_BEFORE = SINCE - 86_400;

async function exported(since: number, database = env.DB): Promise<AuditEventRow[][]> {
  const pages: AuditEventRow[][] = [];
  for await (const page of exportEvents(database, since)) pages.push(page);
  return pages;
}

/** Events of an organization, one a second from a time on. */
const addEvents = (organization_id: string, from: number, count: number) =>
  env.DB.batch(
    Array.from({ length: count }, (_, index) =>
      env.DB.prepare(
        `INSERT INTO audit_events (organization_id, event_id, action, target_id, actor_key_id, request_id, state, created_at, sequence) VALUES (?1, ?2, 'integration.deleted', 'intg_000000000000', NULL, 'request', '{}', ?3, ?4)`,
      ).bind(organization_id, crypto.randomUUID(), from + index, index + 1),
    ),
  );

let busy: string;
let other: string;

beforeAll(async () => {
  ({ organization_id: busy } = await newClient());
  ({ organization_id: other } = await newClient());
  await env.DB.prepare('DELETE FROM audit_events').run();
  await addEvents(busy, A_DAY_BEFORE - 300, 550);
  await addEvents(other, A_DAY_BEFORE - 1, 2);
});

it('gives every organization’s events since a day before the time, in their order, whole', async () => {
  const all = (await rows('audit_events')).toSorted(
    (one, next) => Number(one['created_at']) - Number(next['created_at']),
  );

  const events = (await exported(SINCE)).flat();

  const since = all.filter(({ created_at }) => Number(created_at) >= A_DAY_BEFORE);
  expect(events).toEqual([
    ...since.filter(({ organization_id }) => organization_id === busy),
    ...since.filter(({ organization_id }) => organization_id === other),
  ]);
  expect(events).toHaveLength(251);
});

it('gives them in pages of at most 100', async () => {
  expect((await exported(SINCE)).map(({ length }) => length)).toEqual([100, 100, 51]);
});

it('goes through more organizations than a page has', async () => {
  await env.DB.prepare(
    `WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 349)
     INSERT INTO organizations (organization_id, tier, created_at) SELECT 'org_many_' || i, 'pro', 0 FROM n`,
  ).run();
  await addEvents('org_many_349', SINCE, 1);

  expect((await exported(SINCE)).flat()).toContainEqual(expect.objectContaining({ organization_id: 'org_many_349' }));
});

it('asks D1 for the pages it gives alone, however many organizations have none, and reads what it gives', async () => {
  const pages: number[] = [];
  const { DB } = interceptedBindings(async (_, carryOut) => {
    const answers = z.array(z.object({ meta: z.object({ rows_read: z.number() }) }).loose()).parse(await carryOut());
    pages.push(answers.reduce((sum, { meta }) => sum + meta.rows_read, 0));
    return answers;
  });
  const { length: organizations } = await rows('organizations');

  const given = (await exported(SINCE, DB)).flat().length;

  expect(pages).toHaveLength(3);
  // The first goes past those without events, too.
  expect(pages[1]).toBeLessThanOrEqual(210);
  expect(pages.reduce((sum, read) => sum + read, 0)).toBeLessThan(2 * (given + organizations));
});

describe('an export since a time', () => {
  const DAY = 86_400;
  const now = () => Math.floor(Date.now() / 1000);

  it.each([0, DAY, 30 * DAY - 60])('of %i s ago is covered', async (ago) => {
    expect(await whyNotCovered(env.DB, now() - ago)).toBeUndefined();
  });

  it('of more than 30 days ago is not: what ended then may have been forgotten', async () => {
    expect(await whyNotCovered(env.DB, now() - 30 * DAY - 60)).toContain('more than 30 days ago');
  });

  it('that is yet to come is not, by D1’s clock, whatever the operator’s says', async () => {
    expect(await whyNotCovered(env.DB, now() + 60)).toBe('is in the future');
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + DAY * 1000 });
    try {
      expect(await whyNotCovered(env.DB, now())).toBe('is in the future');
    } finally {
      vi.useRealTimers();
    }
  });

  it('has where the updated phone numbers are now, and the removals that are owed, of which none is a secret', async () => {
    const client = await newClient();
    const [first, second] = [await createIntegration(client), await createIntegration(client)];
    const phone_number_id = await importNumber(client, first, unusedNumber());
    const body = { integration_id: second };
    await call(client, 'PUT', `/api/phone-numbers/${phone_number_id}?verify=false`, { body });
    const { organization_id } = client;
    const removal = (kv_key: string, state: string) =>
      env.DB.prepare(
        'INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, state) VALUES (?, ?, 1, 1, ?)',
      )
        .bind(kv_key, organization_id, state)
        .run();
    await removal('v1/owed', 'owed');
    await removal('v1/intended', 'intended');

    const all = await exportedSince(now());

    expect(all).toContainEqual({ organization_id, phone_number_id, integration_id: second });
    expect(all.filter((row) => 'kv_key' in row)).toMatchObject([{ kv_key: 'v1/owed' }]);
    expect(JSON.stringify(all)).not.toMatch(/data_key|auth_token|bk_live_\w{50}/);
  });
});
