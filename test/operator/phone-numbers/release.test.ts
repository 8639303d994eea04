import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { findHeldPhoneNumber, releasePhoneNumber } from '../../../src/operator/phone-numbers/release.ts';
import worker from '../../../src/worker/index.ts';
import { failingBindings } from '../../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  eventsOn,
  everythingKept,
  importNumber,
  newClient,
  openCredentials,
  page,
  resources,
  rowOf,
  unusedNumber,
} from '../../fixtures.ts';
import type { Client } from '../../fixtures.ts';

let client: Client;
let integration_id: string;
let phone_number: string;
let phone_number_id: string;

beforeEach(async () => {
  client = await newClient();
  integration_id = await createIntegration(client);
  phone_number = unusedNumber();
  phone_number_id = await importNumber(client, integration_id, phone_number);
});

const release = (of = client, id = phone_number_id, database = env.DB) =>
  releasePhoneNumber(database, { organization_id: of.organization_id, phone_number_id: id });

const read = async (id = phone_number_id) => (await call(client, 'GET', `/api/phone-numbers/${id}`)).status;

const ciphertextsOf = async (id: string) =>
  Object.keys((await resources()).CREDENTIALS).filter((kv_key) => kv_key.includes(id));

async function importSip(): Promise<string> {
  const sip_number = unusedNumber();
  await call(client, 'POST', '/api/phone-numbers', {
    body: { provider: 'sip', phone_number: sip_number, sip_username: 'user', sip_password: 'plaintext-password' },
  });
  return String((await rowOf('phone_numbers', sip_number))['phone_number_id']);
}

describe('a phone number that somebody holds', () => {
  it('is found with its holder, as clients see it', async () => {
    const [listed] = (await page(client, '/api/phone-numbers')).data;

    expect(await findHeldPhoneNumber(env.DB, phone_number)).toEqual(listed);
    expect(listed).toMatchObject({ client_id: client.organization_id, phone_number_id, integration_id });
  });

  it('is not found where nobody does', async () => {
    expect(await findHeldPhoneNumber(env.DB, unusedNumber())).toBeUndefined();
  });
});

describe('a released phone number', () => {
  it('is its holder’s no more, and another organization can import it', async () => {
    const stranger = await newClient();
    const through = await createIntegration(stranger);
    const body = { phone_number, provider: 'twilio', integration_id: through };
    expect((await call(stranger, 'POST', '/api/phone-numbers?verify=false', { body })).status).toBe(409);

    expect(await release()).toMatchObject({ phone_number, client_id: client.organization_id });

    expect(await read()).toBe(404);
    expect((await call(stranger, 'POST', '/api/phone-numbers?verify=false', { body })).status).toBe(201);
  });

  it('leaves its integration, which can be deleted now', async () => {
    await release();

    expect(await openCredentials(integration_id)).toMatchObject({ provider: 'twilio' });
    expect((await call(client, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(200);
  });

  it('may be assigned to an agent', async () => {
    const assigned_agent_id = 'agent_a1b2c3d4e5f6';
    await call(client, 'PUT', `/api/phone-numbers/${phone_number_id}`, { body: { assigned_agent_id } });

    expect(await release()).toMatchObject({ status: 'assigned', assigned_agent_id });

    expect(await read()).toBe(404);
  });

  it('has one event, of an operator, with the state just before, which its holder’s admin sees', async () => {
    const { data_key: _, kek_id: __, ownership_due_at: ___, ...state } = await rowOf('phone_numbers', phone_number_id);

    await release();

    expect((await eventsOn(phone_number_id)).slice(1)).toEqual([
      expect.objectContaining({
        organization_id: client.organization_id,
        action: 'phone_number.released',
        actor_key_id: null,
        state,
      }),
    ]);
    const { data } = await page(client, '/api/audit-events?action=phone_number.released');
    expect(data).toMatchObject([{ target_id: phone_number_id, state: { phone_number } }]);
  });

  it('has its SIP credentials in the outbox by the same commit, and out of KV with the cron’s next turn', async () => {
    const sip = await importSip();
    const ciphertexts = await ciphertextsOf(sip);
    expect(ciphertexts).toHaveLength(1);

    await release(client, sip);

    expect(await read(sip)).toBe(404);
    const { credential_purges } = await resources();
    expect(credential_purges.map(({ kv_key }) => kv_key)).toEqual(ciphertexts);
    await worker.scheduled(createScheduledController(), env);
    expect(await ciphertextsOf(sip)).toEqual([]);
    expect((await resources()).credential_purges).toEqual([]);
  });

  it('is released once: a second time does nothing', async () => {
    await release();
    const before = await everythingKept();

    expect(await release()).toBeUndefined();

    expect(await everythingKept()).toEqual(before);
  });

  it('is released once where the answer of D1 is lost after the commit', async () => {
    const message = 'D1_ERROR: Network connection lost.';
    const { bindings } = failingBindings('DB.batch', { when: 'after', message, times: 1 });

    expect(await release(client, phone_number_id, bindings.DB)).toMatchObject({ phone_number });

    expect(await actionsOn(phone_number_id)).toEqual(['phone_number.imported', 'phone_number.released']);
  });

  it('stays where it is when D1 stays away', async () => {
    const before = await everythingKept();
    const message = 'D1_ERROR: Network connection lost.';
    const { bindings } = failingBindings('DB.batch', { when: 'before', message });

    await expect(release(client, phone_number_id, bindings.DB)).rejects.toMatchObject({
      members: { outcome: 'unknown' },
    });

    expect(await everythingKept()).toEqual(before);
  });

  it('is that of the organization which was named, and no other’s', async () => {
    const stranger = await newClient();
    const before = await everythingKept();

    expect(await release(stranger)).toBeUndefined();

    expect(await everythingKept()).toEqual(before);
  });
});
