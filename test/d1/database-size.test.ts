/** A database that fills. */
import { createScheduledController } from 'cloudflare:test';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
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

  it('is read by a dry run, and lets go of many numbers', async () => {
    const integration_id = await createIntegration(client);
    const phone_number_ids = [await importNumber(client, integration_id, unusedNumber())];
    await see(9.6 * GIGABYTE);
    const send = (path: string, body: object) => call(client, 'POST', `/api/phone-numbers/${path}`, { body, bindings });

    const statuses = [
      await send('bulk-update?dry_run=true', { phone_number_ids, set: { supports_inbound: true } }),
      await send('bulk-update?dry_run=false', { phone_number_ids, set: { supports_inbound: true } }),
      await send('bulk-delete?dry_run=true', { phone_number_ids }),
      await send('bulk-delete', { phone_number_ids }),
    ].map(({ status }) => status);

    expect(statuses).toEqual([200, 503, 200, 200]);
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
