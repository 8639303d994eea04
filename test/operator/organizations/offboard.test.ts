import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { createKeyByCommand } from '../../../src/operator/api-keys/create.ts';
import { offboardOrganization } from '../../../src/operator/organizations/offboard.ts';
import { suspendOrganization } from '../../../src/operator/organizations/suspend.ts';
import worker from '../../../src/worker/index.ts';
import { failingBindings, interceptedBindings } from '../../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  emptyStorage,
  eventsOn,
  everythingKept,
  everythingStored,
  fillKeys,
  fillNumbers,
  importNumber,
  newClient,
  openCredentials,
  twilio,
  unusedNumber,
} from '../../fixtures.ts';
import type { Client } from '../../fixtures.ts';

const LOST = 'D1_ERROR: Network connection lost.';
const FILLED_NUMBERS = 230;
const FILLED_KEYS = 120;

let client: Client;
let integration_ids: string[];
let bystander: Client;
let bystanders: string;

beforeEach(async () => {
  await emptyStorage();
  client = await newClient();
  bystander = await newClient();
  bystanders = await createIntegration(bystander);
  await importNumber(bystander, bystanders, unusedNumber());
  integration_ids = [await createIntegration(client), await createIntegration(client)];
  const [used = ''] = integration_ids;
  const phone_number_id = await importNumber(client, used, unusedNumber());
  await call(client, 'PUT', `/api/phone-numbers/${phone_number_id}`, {
    body: { assigned_agent_id: 'agent_a1b2c3d4e5f6' },
  });
  await call(client, 'POST', '/api/phone-numbers', {
    body: {
      phone_number: unusedNumber(),
      provider: 'sip',
      sip_username: 'user',
      sip_password: 'plaintext-password',
      inbound_pin: '1234',
    },
  });
  await fillNumbers(client, used, FILLED_NUMBERS);
  await fillKeys(client, FILLED_KEYS);
});

const NUMBERS = FILLED_NUMBERS + 2;
const KEYS = FILLED_KEYS + 1;

const offboard = (database = env.DB, onProgress?: Parameters<typeof offboardOrganization>[2]) =>
  offboardOrganization(database, client.organization_id, onProgress);

const tables = z.record(z.string(), z.array(z.record(z.string(), z.unknown())));

/** The rows of an organization in every table, and its ciphertext. */
async function belongings({ organization_id }: Client) {
  const { d1, CREDENTIALS } = await everythingStored();
  const own = Object.entries(tables.parse(d1)).map(
    ([table, all]) => [table, all.filter((row) => row['organization_id'] === organization_id)] as const,
  );
  return {
    d1: Object.fromEntries(own),
    ciphertexts: Object.keys(CREDENTIALS).filter((key) => key.startsWith(`v1/${organization_id}/`)),
  };
}

type Belongings = Awaited<ReturnType<typeof belongings>>;

const column = ({ d1 }: Belongings, table: string, name: string) => d1[table]?.map((row) => row[name]).toSorted();

const recorded = ({ d1 }: Belongings, action: string) =>
  d1['audit_events']
    ?.filter((event) => event['action'] === action)
    .map(({ target_id }) => target_id)
    .toSorted();

/** Nothing is left of it, everything that was is on record once, and what KV still has is in the outbox. */
async function assertOffboarded(before: Belongings) {
  const after = await belongings(client);
  expect(after.d1).toMatchObject({ organizations: [{ status: 'offboarded' }], integrations: [], phone_numbers: [] });
  expect(new Set(column(after, 'api_keys', 'status'))).toEqual(new Set(['revoked']));
  expect(after.ciphertexts).toEqual(before.ciphertexts);
  expect(column(after, 'credential_purges', 'kv_key')).toEqual(before.ciphertexts.toSorted());
  expect(recorded(after, 'organization.offboarded')).toEqual([client.organization_id]);
  expect(recorded(after, 'integration.deleted')).toEqual(column(before, 'integrations', 'integration_id'));
  expect(recorded(after, 'phone_number.deleted')).toEqual(column(before, 'phone_numbers', 'phone_number_id'));
  expect(recorded(after, 'api_key.revoked')).toEqual(column(before, 'api_keys', 'key_id'));
}

describe('an offboarded organization', () => {
  it('has no integration, no number and no living key left, each on record once, its ciphertext in the outbox', async () => {
    const before = await belongings(client);

    expect(await offboard()).toEqual({ webhook_endpoints: 0, phone_numbers: NUMBERS, integrations: 2, keys: KEYS });

    expect(before.ciphertexts).toHaveLength(3);
    await assertOffboarded(before);
  });

  it('has no ciphertext in KV once the cron had its turn, and keeps its audit trail', async () => {
    await offboard();

    await worker.scheduled(createScheduledController(), env);

    const after = await belongings(client);
    expect(after.ciphertexts).toEqual([]);
    expect(after.d1['credential_purges']).toEqual([]);
    for (const integration_id of integration_ids) {
      expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.deleted']);
    }
  });

  it('changes nothing from the first commit on, though a cache still admits its key', async () => {
    await call(client, 'GET', '/api/nothing');
    let batches = 0;
    const { DB } = interceptedBindings((_, carryOut) => {
      if ((batches += 1) > 2) throw new Error('killed');
      return carryOut();
    });
    await expect(offboard(DB)).rejects.toThrow('temporarily_unavailable');
    const before = await belongings(client);

    const { status } = await call(client, 'POST', '/api/integrations', { body: { name: 'x', credentials: twilio } });

    expect(status).toBe(401);
    expect(await belongings(client)).toEqual(before);
  });

  it('has events of an operator, with the states just before and no secret', async () => {
    const { organization_id } = client;
    await offboard();

    const [offboarded] = await eventsOn(organization_id);
    const [, deleted] = await eventsOn(integration_ids[0] ?? '');

    expect(offboarded).toMatchObject({ action: 'organization.offboarded', actor_key_id: null });
    expect(offboarded?.state).toEqual({
      organization_id,
      tier: 'enterprise',
      status: 'active',
      created_at: expect.any(Number),
      name: null,
      metadata: '{}',
    });
    expect(deleted).toMatchObject({ actor_key_id: null, state: { name: 'Twilio Production', status: 'active' } });
    expect(Object.keys(Object(deleted?.state))).not.toContain('data_key');
  });

  it('takes nothing of another organization with it', async () => {
    const before = await belongings(bystander);

    await offboard();
    await worker.scheduled(createScheduledController(), env);

    expect(await belongings(bystander)).toEqual(before);
    expect(await openCredentials(bystanders)).toMatchObject({ auth_token: 'plaintext-auth-token' });
  });

  it('may have been suspended', async () => {
    const before = await belongings(client);
    await suspendOrganization(env.DB, client.organization_id);

    await offboard();

    await assertOffboarded(before);
    expect(await actionsOn(client.organization_id)).toEqual(['organization.suspended', 'organization.offboarded']);
  });

  it('is offboarded once: a second time does nothing', async () => {
    await offboard();
    const before = await everythingKept();

    expect(await offboard()).toEqual({ webhook_endpoints: 0, phone_numbers: 0, integrations: 0, keys: 0 });

    expect(await everythingKept()).toEqual(before);
  });

  it.each(['pro', undefined] as const)('gets no key from an operator, and keeps its tier (%s)', async (tier) => {
    await offboard();
    const before = await everythingKept();
    const { organization_id } = client;

    await expect(
      createKeyByCommand(env.DB, { organization_id, tier, role: 'admin', name: 'Late', expires_at: null }),
    ).rejects.toThrow(`${organization_id} is offboarded, for good`);

    expect(await everythingKept()).toEqual(before);
  });

  it('goes on a second time where its first answer is lost', async () => {
    await offboard();
    const { bindings } = failingBindings('DB.batch', { when: 'before', message: LOST, times: 1 });

    const ended = await offboardOrganization(bindings.DB, client.organization_id);

    expect(ended).toEqual({ webhook_endpoints: 0, phone_numbers: 0, integrations: 0, keys: 0 });
  });

  it('is none that there is not', async () => {
    const before = await everythingKept();

    expect(await offboardOrganization(env.DB, 'org_nobody')).toBeUndefined();

    expect(await everythingKept()).toEqual(before);
  });
});

describe('the batches of an offboarding', () => {
  it('have at most 100 numbers or integrations each, and say how far it is', async () => {
    const told: unknown[] = [];

    await offboard(env.DB, (...progress) => told.push(progress));

    expect(told).toEqual([
      ['phone_numbers', 100, NUMBERS],
      ['phone_numbers', 200, NUMBERS],
      ['phone_numbers', NUMBERS, NUMBERS],
      ['integrations', 2, 2],
    ]);
  });

  it('are each an operation of its own, whose events have ids that begin alike and end as their targets’', async () => {
    await offboard();

    const events = (await belongings(client)).d1['audit_events'] ?? [];
    const deleted = events.filter(({ action }) => action === 'phone_number.deleted');
    const operations = Map.groupBy(deleted, ({ event_id }) => String(event_id).slice(0, 24));
    expect([...operations.values()].map(({ length }) => length).toSorted((one, other) => other - one)).toEqual([
      100,
      100,
      NUMBERS - 200,
    ]);
    for (const { event_id, target_id } of deleted) {
      expect(String(event_id).slice(24)).toBe(String(target_id).slice(-12));
    }
  });

  // The first, then for numbers and integrations a look, their batches and a last look, then the keys.
  const BATCHES = 1 + (1 + 3 + 1) + (1 + 1 + 1) + 1;

  const kills = Array.from({ length: BATCHES }, (_, index) => index + 1).flatMap((number) =>
    (['before', 'after'] as const).map((when) => ({ number, when })),
  );

  it.each(kills)(
    'may end with a kill $when the commit of number $number: a second run finishes the rest',
    async ({ number, when }) => {
      const before = await belongings(client);
      let batches = 0;
      const { DB } = interceptedBindings(async (_, carryOut) => {
        const killed = (batches += 1) === number;
        const result = killed && when === 'before' ? undefined : await carryOut();
        if (killed) throw new Error('SQLITE_ABORT: this test ends here what D1 would be asked again');
        return result;
      });
      await expect(offboard(DB)).rejects.toThrow('this test ends here');
      expect(batches).toBe(number);

      await offboard();

      await assertOffboarded(before);
    },
  );

  it('are each on record once where every answer is lost after its commit', async () => {
    const before = await belongings(client);
    let batches = 0;
    const { DB } = interceptedBindings(async (_, carryOut) => {
      const result = await carryOut();
      if ((batches += 1) % 2 === 1) throw new Error(LOST);
      return result;
    });

    expect(await offboard(DB)).toEqual({ webhook_endpoints: 0, phone_numbers: NUMBERS, integrations: 2, keys: KEYS });

    await assertOffboarded(before);
  });

  it('may be another operator’s at the same time: each row is on record once, and told by the one that did it', async () => {
    const before = await belongings(client);

    const ended = await Promise.all([offboard(), offboard(), offboard()]);

    const told = (what: 'phone_numbers' | 'integrations' | 'keys') =>
      ended.reduce((sum, counts) => sum + (counts?.[what] ?? 0), 0);
    expect([told('phone_numbers'), told('integrations'), told('keys')]).toEqual([NUMBERS, 2, KEYS]);
    await assertOffboarded(before);
  });

  it('leave D1 that stays away as it was', async () => {
    const before = await everythingKept();
    const { bindings } = failingBindings('DB.batch', { when: 'before', message: LOST });

    await expect(offboard(bindings.DB)).rejects.toMatchObject({ members: { outcome: 'not_done' } });

    expect(await everythingKept()).toEqual(before);
  });
});
