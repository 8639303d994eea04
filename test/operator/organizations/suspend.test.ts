import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createKeyByCommand } from '../../../src/operator/api-keys/create.ts';
import { offboardOrganization } from '../../../src/operator/organizations/offboard.ts';
import { readOrganization } from '../../../src/operator/organizations/read.ts';
import { resumeOrganization, suspendOrganization } from '../../../src/operator/organizations/suspend.ts';
import { forgetKey } from '../../../src/worker/callers/caller.ts';
import { hashKey } from '../../../src/worker/callers/raw-key.ts';
import { failingBindings, interceptedBindings } from '../../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  eventsOn,
  everythingKept,
  everythingStored,
  importNumber,
  newClient,
  page,
  resources,
  twilio,
  unusedNumber,
} from '../../fixtures.ts';
import type { Client } from '../../fixtures.ts';
import { setStatus } from '../../operations.ts';

const LOST = 'D1_ERROR: Network connection lost.';

let client: Client;

beforeEach(async () => {
  client = await newClient();
  await call(client, 'GET', '/api/nothing');
});

afterEach(() => vi.useRealTimers());

const suspend = (database = env.DB) => suspendOrganization(database, client.organization_id);
const resume = (database = env.DB) => resumeOrganization(database, client.organization_id);
const statusNow = async () => (await readOrganization(env.DB, client.organization_id))?.status;
const reads = async (by = client) => (await call(by, 'GET', '/api/integrations')).status;
const secondsLater = (seconds: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + seconds * 1000 });

describe('a suspended organization', () => {
  it('changes nothing from then on by any call, though every cache still admits its key', async () => {
    const integration_id = await createIntegration(client);
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    const spare = await createIntegration(client);
    await suspend();
    const before = await resources();
    const { api_keys } = (await everythingStored()).d1;
    const mutations: [string, string, object?][] = [
      ['POST', '/api/integrations', { name: 'x', credentials: twilio }],
      ['PUT', `/api/integrations/${integration_id}`, { name: 'x' }],
      ['PUT', `/api/integrations/${integration_id}`, { credentials: twilio }],
      ['DELETE', `/api/integrations/${spare}`],
      ['POST', '/api/phone-numbers?verify=false', { phone_number: unusedNumber(), provider: 'twilio', integration_id }],
      [
        'POST',
        '/api/phone-numbers',
        { phone_number: unusedNumber(), provider: 'sip', sip_username: 'user', sip_password: 'p' },
      ],
      ['PUT', `/api/phone-numbers/${phone_number_id}`, { supports_inbound: true }],
      ['DELETE', `/api/phone-numbers/${phone_number_id}`],
      ['POST', '/api/api-keys', { name: 'x', role: 'user' }],
      ['DELETE', `/api/api-keys/${client.key_id}`],
    ];

    for (const [method, path, body] of mutations) {
      // As in an isolate that has not heard of it.
      await setStatus(client.organization_id, 'active');
      expect(await reads()).toBe(200);
      await setStatus(client.organization_id, 'suspended');
      const answer = await call(client, method, path, { body });
      expect(answer, `${method} ${path}`).toMatchObject({ status: 401, body: { code: 'invalid_api_key' } });
    }

    expect(await resources()).toEqual(before);
    expect((await everythingStored()).d1['api_keys']).toEqual(api_keys);
  });

  it('reads nothing once the caches are past their deadline, 60 s later', async () => {
    await suspend();
    expect(await reads()).toBe(200);

    secondsLater(61);

    expect(await reads()).toBe(401);
  });

  it('keeps all that it has', async () => {
    await importNumber(client, await createIntegration(client), unusedNumber());
    const before = await resources();

    await suspend();

    expect(await resources()).toEqual(before);
    expect(await readOrganization(env.DB, client.organization_id)).toMatchObject({
      counts: { api_keys: 1, integrations: 1, phone_numbers: 1 },
    });
  });

  it('is read and written by its keys again once it is resumed', async () => {
    const integration_id = await createIntegration(client);
    await suspend();
    secondsLater(61);
    expect(await reads()).toBe(401);

    await resume();

    expect(await reads()).toBe(200);
    expect((await call(client, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(200);
  });

  it('gets a key from an operator, who is told, and the key works once it is resumed', async () => {
    await suspend();
    const { raw_key, key, suspended } = await createKeyByCommand(env.DB, {
      organization_id: client.organization_id,
      role: 'admin',
      name: 'Early',
      expires_at: null,
    });
    const early = { ...client, raw_key, key_id: key.key_id };

    expect(suspended).toBe(true);
    expect(await reads(early)).toBe(401);
    expect(await statusNow()).toBe('suspended');
    await resume();
    expect(await reads(early)).toBe(200);
  });

  it('has events of an operator, with its states just before, and its admin sees them', async () => {
    const { organization_id } = client;
    await suspend();
    await resume();

    expect(await eventsOn(organization_id)).toEqual([
      expect.objectContaining({
        action: 'organization.suspended',
        actor_key_id: null,
        state: {
          organization_id,
          tier: 'enterprise',
          status: 'active',
          created_at: expect.any(Number),
          name: null,
          metadata: '{}',
        },
      }),
      expect.objectContaining({
        action: 'organization.resumed',
        actor_key_id: null,
        state: expect.objectContaining({ status: 'suspended' }),
      }),
    ]);
    const { data } = await page(client, `/api/audit-events?target_id=${organization_id}`);
    expect(data).toMatchObject([
      { action: 'organization.suspended', state: { client_id: organization_id, status: 'active' } },
      { action: 'organization.resumed', state: { client_id: organization_id, status: 'suspended' } },
    ]);
  });

  it('is no other organization', async () => {
    const stranger = await newClient();

    await suspend();

    await createIntegration(stranger);
    forgetKey(await hashKey(stranger.raw_key));
    await env.KEY_CACHE.delete(await hashKey(stranger.raw_key));
    expect(await reads(stranger)).toBe(200);
  });
});

describe('a status that does not allow the change', () => {
  it.each([
    ['active', 'is not resumed', resume],
    ['suspended', 'is not suspended again', suspend],
    ['offboarded', 'is not suspended', suspend],
    ['offboarded', 'is not resumed', resume],
  ] as const)('%s %s, and stays as it is, with no event', async (status, _, change) => {
    await env.DB.prepare('UPDATE organizations SET status = ? WHERE organization_id = ?')
      .bind(status, client.organization_id)
      .run();
    const before = await everythingKept();

    expect(await change()).toBeUndefined();

    expect(await everythingKept()).toEqual(before);
  });

  it('is that of no organization at all: nothing is made', async () => {
    const before = await everythingKept();

    expect(await suspendOrganization(env.DB, 'org_nobody')).toBeUndefined();

    expect(await everythingKept()).toEqual(before);
  });
});

describe('a suspension whose answer is lost', () => {
  it('is tried again, and is on record once', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST, times: 1 });

    expect(await suspend(bindings.DB)).toMatchObject({ status: 'active' });

    expect(await statusNow()).toBe('suspended');
    expect(await actionsOn(client.organization_id)).toEqual(['organization.suspended']);
  });

  it('says that its outcome is unknown where D1 stays away', async () => {
    let batches = 0;
    const { DB } = interceptedBindings(async (_, carryOut) => {
      batches += 1;
      // It reads what the organization is, and can no more.
      if (batches === 1) return carryOut();
      throw new Error(LOST);
    });

    await expect(suspend(DB)).rejects.toMatchObject({ members: { outcome: 'unknown' } });

    expect(await statusNow()).toBe('active');
  });

  it('does not undo the resumption that an earlier try of it lands after', async () => {
    let batches = 0;
    let late: (() => Promise<unknown>) | undefined;
    const { DB } = interceptedBindings(async (_, carryOut) => {
      batches += 1;
      if (batches !== 2) return carryOut();
      late = carryOut;
      throw new Error(LOST);
    });
    await suspend(DB);
    await resume();
    expect(late).toBeDefined();

    await late?.();

    expect(await statusNow()).toBe('active');
    expect(await actionsOn(client.organization_id)).toEqual(['organization.suspended', 'organization.resumed']);
  });

  it('of which no try came in time does not undo what others have done since, however late it lands', async () => {
    let late: (() => Promise<unknown>) | undefined;
    const { DB } = interceptedBindings(async (_, carryOut, { statements }) => {
      if (!statements.some(({ sql }) => sql.startsWith('insert'))) return carryOut();
      late = carryOut;
      throw new Error(LOST);
    });
    await expect(suspend(DB)).rejects.toMatchObject({ members: { outcome: 'unknown' } });
    await suspend();
    await resume();

    await late?.();

    expect(await statusNow()).toBe('active');
    expect(await actionsOn(client.organization_id)).toEqual(['organization.suspended', 'organization.resumed']);
  });
});

describe('a clock that is an hour ahead of the others', () => {
  it('keeps no later command from its effect', async () => {
    await suspend();
    secondsLater(3600);
    await resume();
    vi.useRealTimers();

    expect(await suspend()).toMatchObject({ status: 'active' });
    expect(await resume()).toMatchObject({ status: 'suspended' });
    expect(await offboardOrganization(env.DB, client.organization_id)).toBeDefined();

    expect(await statusNow()).toBe('offboarded');
    expect(await actionsOn(client.organization_id)).toEqual([
      'organization.suspended',
      'organization.resumed',
      'organization.suspended',
      'organization.resumed',
      'organization.offboarded',
    ]);
  });
});
