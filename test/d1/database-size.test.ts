/** A database that fills. */
import { applyD1Migrations, createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { createOperatorKey } from '../../src/operator/api-keys/create.ts';
import { databaseOf } from '../../src/worker/d1/databases.ts';
import worker from '../../src/worker/index.ts';
import { interceptedBindings } from '../bindings.ts';
import { call, createIntegration, importNumber, newClient, resources, twilio, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { mutations } from '../mutations.ts';

const GIGABYTE = 1e9;

const answers = z.array(z.looseObject({ meta: z.looseObject({}) }));

let bytes = 0;

/** The pool's own, whose D1 says that it is of the size of now. */
const bindings = interceptedBindings(async (name, carryOut) => {
  const result = await carryOut();
  if (name !== 'DB.batch') return result;
  return answers.parse(result).map((answer) => ({ ...answer, meta: { ...answer.meta, size_after: bytes } }));
});

let client: Client;

/** Lets the isolate see a size. */
async function see(size: number): Promise<void> {
  bytes = size;
  await call(client, 'GET', '/api/integrations', { bindings });
}

beforeEach(async () => {
  client = await newClient();
});

afterEach(async () => {
  await see(1);
  vi.restoreAllMocks();
});

const growing = mutations.filter(({ name }) => !/^the (deletion|revocation)/.test(name));

describe('a database of more than 9.5 GB', () => {
  it.each(growing)('takes no more: $name', async ({ prepare }) => {
    const { method, path, body } = await prepare(client);
    await see(9.6 * GIGABYTE);
    const before = await resources();

    const answer = await call(client, method, path, { body, bindings });

    expect(answer).toMatchObject({ status: 503, body: { code: 'temporarily_unavailable', outcome: 'not_done' } });
    expect(await resources()).toEqual(before);
  });

  it('is read, and lets go of what it has', async () => {
    const integration_id = await createIntegration(client);
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    await see(9.6 * GIGABYTE);

    const statuses = [];
    for (const [method, path] of [
      ['GET', `/api/integrations/${integration_id}`],
      ['DELETE', `/api/phone-numbers/${phone_number_id}`],
      ['DELETE', `/api/integrations/${integration_id}`],
      ['DELETE', `/api/api-keys/${client.key_id}`],
    ] as const) {
      statuses.push((await call(client, method, path, { bindings })).status);
    }

    expect(statuses).toEqual([200, 200, 200, 200]);
  });

  it('takes more again once it is seen to be smaller', async () => {
    await see(9.6 * GIGABYTE);
    await see(9.4 * GIGABYTE);

    const body = { name: 'New', credentials: twilio };
    expect((await call(client, 'POST', '/api/integrations', { body, bindings })).status).toBe(201);
  });
});

describe('a database beside one that is nearly full', () => {
  it('takes more', async () => {
    await applyD1Migrations(env.DB_1, env.MIGRATIONS);
    const spread = { ...bindings, DATABASES: 'DB,DB_1' };
    const clientOf = async (database: D1Database) => {
      const organization_id =
        Array.from({ length: 100 }, () => `org_${crypto.randomUUID()}`).find(
          (id) => databaseOf(spread, id) === database,
        ) ?? '';
      const made = { organization_id, role: 'admin', tier: 'pro', name: 'Test', expires_at: null } as const;
      const { raw_key, key } = await createOperatorKey(database, made);
      return { organization_id, raw_key, key_id: key.key_id };
    };
    const [crowded, roomy] = [await clientOf(spread.DB), await clientOf(spread.DB_1)];
    await see(9.6 * GIGABYTE);

    const statuses = [];
    for (const one of [roomy, crowded, roomy]) {
      const body = { name: 'New', credentials: twilio };
      statuses.push((await call(one, 'POST', '/api/integrations', { body, bindings: spread })).status);
    }

    expect(statuses).toEqual([201, 503, 201]);
  });
});

describe('the cron', () => {
  const alertsOf = async (size: number) => {
    bytes = size;
    const error = vi.spyOn(console, 'error').mockImplementation(() => {});
    await worker.scheduled(createScheduledController(), bindings);
    return error.mock.calls.flat().map((line) => z.unknown().parse(JSON.parse(String(line))));
  };

  it('alerts from 70 % of 10 GB on', async () => {
    expect(await alertsOf(7.2 * GIGABYTE)).toEqual([{ event: 'database_filling', bytes: 7.2 * GIGABYTE, percent: 72 }]);
  });

  it('says nothing of less', async () => {
    expect(await alertsOf(6.9 * GIGABYTE)).toEqual([]);
  });
});
