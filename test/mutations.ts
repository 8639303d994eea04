/** Every mutation of the API, done and refused: what the tests of repeats and of faults go through, one by one. */
import { env } from 'cloudflare:workers';
import * as z from 'zod';
import { newId } from '../src/worker/core/ids.ts';
import { call, changeKey, createIntegration, importNumber, newClient, twilio, unusedNumber } from './fixtures.ts';
import type { Client } from './fixtures.ts';
import { secretHolding } from './simulation.ts';
import { behave, createEndpoint, newReceiver } from './webhooks/receivers.ts';

export interface Mutation {
  method: 'POST' | 'PUT' | 'DELETE';
  path: string;
  body?: object;
  headers?: Record<string, string>;
}

export interface Case {
  name: string;
  status: number;
  /** A provider that does not answer would lead to another answer. */
  dependsOnProvider?: true;
  /** Makes what the mutation needs, for a client of the role admin. */
  prepare: (client: Client) => Promise<Mutation>;
}

const NO_INTEGRATION = 'intg_000000000000';
const NO_NUMBER = 'phon_000000000000';
const NO_KEY = 'apikey_000000000000';
const NO_ENDPOINT = '/api/webhook-endpoints/whep_000000000000';

const telnyx = { provider: 'telnyx', api_key: 'plaintext-api-key' };
const replacement = { ...twilio, auth_token: 'plaintext-replacement' };
const refused = { ...twilio, auth_token: 'plaintext-refused' };

/** An integration whose credentials its provider refuses, and nobody has asked it yet. */
async function unverifiedIntegration(client: Client): Promise<string> {
  const body = { name: 'Twilio Production', credentials: refused };
  const { text } = await call(client, 'POST', '/api/integrations?verify=false', { body });
  return /intg_[a-f0-9]{12}/.exec(text)?.[0] ?? '';
}

export const sip = (phone_number = unusedNumber()) => ({
  phone_number,
  provider: 'sip',
  sip_username: 'user',
  sip_password: 'plaintext-sip-password',
  inbound_pin: '4711',
});

const imported = z.object({ data: z.object({ phone_number_id: z.string() }) });

export async function importSip(client: Client, phone_number = unusedNumber()): Promise<string> {
  const { body } = await call(client, 'POST', '/api/phone-numbers', { body: sip(phone_number) });
  return imported.parse(body).data.phone_number_id;
}

async function usedIntegration(client: Client) {
  const integration_id = await createIntegration(client);
  const phone_number = unusedNumber();
  return { integration_id, phone_number, phone_number_id: await importNumber(client, integration_id, phone_number) };
}

/** An integration whose account holds these numbers. */
const integrationHolding = async (client: Client, ...phone_numbers: string[]) =>
  createIntegration(client, { ...otherAccount(), auth_token: await secretHolding(phone_numbers) });

/** Credentials of an account that no other integration is of. */
const otherAccount = () => ({ ...twilio, account_sid: `AC${crypto.randomUUID().replaceAll('-', '')}` });

/** @returns the number */
async function importSipNumber(client: Client): Promise<string> {
  const phone_number = unusedNumber();
  await importSip(client, phone_number);
  return phone_number;
}

const otherKey = (client: Client, role: 'admin' | 'user' = 'user') =>
  newClient({ organization_id: client.organization_id, role });

const assign = (client: Client, phone_number_id: string) =>
  call(client, 'PUT', `/api/phone-numbers/${phone_number_id}`, {
    body: { assigned_agent_id: 'agent_a1b2c3d4e5f6' },
  });

async function revokedKey(client: Client): Promise<string> {
  const { key_id } = await otherKey(client);
  await call(client, 'DELETE', `/api/api-keys/${key_id}`);
  return key_id;
}

const madeKey = z.object({ data: z.object({ raw_key: z.string(), key: z.object({ key_id: z.string() }) }) });

/** A key that has made one, which has made another; they are of the least role by now, which any other may revoke. */
async function maker(client: Client): Promise<string> {
  const key = await otherKey(client, 'admin');
  const { body } = await call(key, 'POST', '/api/api-keys', { body: { name: 'Made', role: 'admin' } });
  const { raw_key, key: second } = madeKey.parse(body).data;
  const child = { ...key, raw_key, key_id: second.key_id };
  await call(child, 'POST', '/api/api-keys', { body: { name: 'Made', role: 'user' } });
  for (const made of [key, child]) await changeKey(made, `role = 'user'`);
  return key.key_id;
}

const endpoints = new Map<string, string[]>();

/** An endpoint whose receiver answers with the status. Of those that it made before, a client keeps a few: it can have ten. */
async function webhookEndpoint(client: Client, status = 204): Promise<{ endpoint_id: string; path: string }> {
  const made = endpoints.get(client.organization_id) ?? [];
  endpoints.set(client.organization_id, made);
  for (const path of made.splice(0, made.length - 2)) await call(client, 'DELETE', path);
  const url = newReceiver();
  await behave(url, status);
  const { endpoint_id, path } = await createEndpoint(client, { url });
  made.push(path);
  return { endpoint_id, path };
}

/** Ten endpoints at once. */
async function fillEndpoints({ organization_id }: Client): Promise<void> {
  await env.DB.prepare(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10)
     INSERT INTO webhook_endpoints (organization_id, endpoint_id, url, events, enabled, created_at, updated_at, cursor_at,
       cursor_sequence)
     SELECT ?, 'whep_' || lower(hex(randomblob(6))), 'https://hooks.example.com/', '["*"]', 0, 0, 0, 0, -1 FROM n`,
  )
    .bind(organization_id)
    .run();
}

/**
 * A delivery that is not tried any more.
 *
 * @returns its path
 */
export async function deadDelivery(client: Client): Promise<string> {
  const { endpoint_id, path } = await webhookEndpoint(client);
  const delivery_id = newId('whdel');
  await env.DB.prepare(
    `INSERT INTO webhook_deliveries (organization_id, delivery_id, endpoint_id, event_id, event_type, status, attempts,
       created_at, attempted_at, response_status, response_body, duration_ms, last_error)
     SELECT organization_id, ?1, target_id, event_id, 'integration.created', 'dead', 12, 0, 300000, 500, 'status 500', 20,
       'The answer had status 500.' FROM audit_events WHERE target_id = ?2`,
  )
    .bind(delivery_id, endpoint_id)
    .run();
  return `${path}/deliveries/${delivery_id}`;
}

const creatingEndpoint = (): Mutation => ({
  method: 'POST',
  path: '/api/webhook-endpoints',
  body: { url: newReceiver(), events: ['integration.*', 'phone_number.*'], description: 'Call routing' },
});
const updatingEndpoint = (path: string, body: object): Mutation => ({ method: 'PUT', path, body });
const rotatingSecret = (path: string): Mutation => ({
  method: 'POST',
  path: `${path}/rotate-secret`,
  body: { overlap_seconds: 3600 },
});
const testing = (path: string): Mutation => ({ method: 'POST', path: `${path}/test` });
const replaying = (path: string): Mutation => ({ method: 'POST', path: `${path}/replay?since=2024-01-15T10:30:00Z` });
const retrying = (path: string): Mutation => ({ method: 'POST', path: `${path}/retry` });

const create = (body: object): Mutation => ({ method: 'POST', path: '/api/integrations', body });
const checking = (integration_id: string): Mutation => ({
  method: 'POST',
  path: `/api/integrations/${integration_id}/verify`,
});
const importing = (body: object): Mutation => ({ method: 'POST', path: '/api/phone-numbers', body });
/** Without asking the account. */
const importingUnasked = (body: object): Mutation => ({
  method: 'POST',
  path: '/api/phone-numbers?verify=false',
  body,
});
const importingMany = (body: object): Mutation => ({ method: 'POST', path: '/api/phone-numbers/bulk', body });
const checkingNumber = (phone_number_id: string): Mutation => ({
  method: 'POST',
  path: `/api/phone-numbers/${phone_number_id}/verify`,
});
const creatingKey = (body: object): Mutation => ({ method: 'POST', path: '/api/api-keys', body });
const updating = (integration_id: string, body: object): Mutation => ({
  method: 'PUT',
  path: `/api/integrations/${integration_id}`,
  body,
});
const updatingNumber = (phone_number_id: string, body: object): Mutation => ({
  method: 'PUT',
  path: `/api/phone-numbers/${phone_number_id}`,
  body,
});
const renamingKey = (key_id: string): Mutation => ({
  method: 'PUT',
  path: `/api/api-keys/${key_id}`,
  body: { name: 'Billing, Europe' },
});
const rotating = (key_id: string): Mutation => ({
  method: 'POST',
  path: `/api/api-keys/${key_id}/rotate`,
  body: { overlap_seconds: 3600 },
});
const updatingMany = (body: object): Mutation => ({ method: 'POST', path: '/api/phone-numbers/bulk-update', body });
const deletingMany = (body: object): Mutation => ({ method: 'POST', path: '/api/phone-numbers/bulk-delete', body });
const deleting = (path: string): Mutation => ({ method: 'DELETE', path });

/** If-Match names the state that the target is in. */
async function matching(client: Client, mutation: Mutation): Promise<Mutation> {
  const { headers } = await call(client, 'GET', mutation.path);
  return { ...mutation, headers: { 'If-Match': headers.get('ETag') ?? '' } };
}

/** If-Match names a state that the target is not in. */
const notMatching = (mutation: Mutation): Mutation => ({ ...mutation, headers: { 'If-Match': '"99-0"' } });

export const mutations: Case[] = [
  {
    name: 'the creation of an integration',
    status: 201,
    prepare: async () => create({ name: 'Twilio Production', credentials: twilio }),
  },
  {
    name: 'a new name for an integration',
    status: 200,
    prepare: async (client) => updating(await createIntegration(client), { name: 'Twilio Europe' }),
  },
  {
    name: 'new credentials for an integration',
    status: 200,
    prepare: async (client) => updating(await createIntegration(client), { credentials: replacement }),
  },
  {
    name: 'a new name for no integration',
    status: 404,
    prepare: async () => updating(NO_INTEGRATION, { name: 'Twilio Europe' }),
  },
  {
    name: 'new credentials for no integration',
    status: 404,
    prepare: async () => updating(NO_INTEGRATION, { credentials: replacement }),
  },
  {
    name: 'credentials of another provider for an integration',
    status: 422,
    prepare: async (client) => updating(await createIntegration(client), { credentials: telnyx }),
  },
  {
    name: 'the creation of an integration with refused credentials',
    status: 422,
    dependsOnProvider: true,
    prepare: async () => create({ name: 'Twilio Production', credentials: refused }),
  },
  {
    name: 'refused credentials for an integration',
    status: 422,
    dependsOnProvider: true,
    prepare: async (client) => updating(await createIntegration(client), { credentials: refused }),
  },
  {
    name: 'credentials of another account for an integration in use',
    status: 409,
    prepare: async (client) =>
      updating((await usedIntegration(client)).integration_id, {
        credentials: { ...twilio, account_sid: 'ACffffffffffffffffffffffffffffffff' },
      }),
  },
  {
    name: 'the check of an integration',
    status: 200,
    dependsOnProvider: true,
    prepare: async (client) => checking(await unverifiedIntegration(client)),
  },
  {
    name: 'the check of no integration',
    status: 404,
    prepare: async () => checking(NO_INTEGRATION),
  },
  {
    name: 'the check of an integration that has lost its credentials',
    status: 409,
    prepare: async (client) => {
      const integration_id = await createIntegration(client);
      await env.DB.prepare(`UPDATE integrations SET status = 'credentials_missing' WHERE integration_id = ?`)
        .bind(integration_id)
        .run();
      const { keys } = await env.CREDENTIALS.list({ prefix: `v1/${client.organization_id}/${integration_id}/` });
      await Promise.all(keys.map((key) => env.CREDENTIALS.delete(key.name)));
      return checking(integration_id);
    },
  },
  {
    name: 'the deletion of an integration',
    status: 200,
    prepare: async (client) => deleting(`/api/integrations/${await createIntegration(client)}`),
  },
  {
    name: 'the deletion of an integration in use',
    status: 409,
    prepare: async (client) => deleting(`/api/integrations/${(await usedIntegration(client)).integration_id}`),
  },
  {
    name: 'the deletion of no integration',
    status: 404,
    prepare: async () => deleting(`/api/integrations/${NO_INTEGRATION}`),
  },
  {
    name: 'the deletion of an integration, and its numbers go to another',
    status: 200,
    prepare: async (client) => {
      const { integration_id } = await usedIntegration(client);
      await importNumber(client, integration_id, unusedNumber());
      return deleting(`/api/integrations/${integration_id}?reassign_to=${await createIntegration(client)}`);
    },
  },
  {
    name: 'the deletion of an integration, and its numbers go to another account, which holds them',
    status: 200,
    prepare: async (client) => {
      const { integration_id, phone_number } = await usedIntegration(client);
      const target = await integrationHolding(client, phone_number);
      return deleting(`/api/integrations/${integration_id}?reassign_to=${target}`);
    },
  },
  {
    name: 'the deletion of an integration, and its numbers go to another account, which does not hold them',
    status: 422,
    dependsOnProvider: true,
    prepare: async (client) => {
      const { integration_id } = await usedIntegration(client);
      const target = await integrationHolding(client, unusedNumber());
      return deleting(`/api/integrations/${integration_id}?reassign_to=${target}`);
    },
  },
  {
    name: 'the deletion of an integration, and its numbers go to no integration',
    status: 422,
    prepare: async (client) =>
      deleting(`/api/integrations/${(await usedIntegration(client)).integration_id}?reassign_to=${NO_INTEGRATION}`),
  },
  {
    name: 'the deletion of an integration with its numbers',
    status: 200,
    prepare: async (client) => {
      const { integration_id } = await usedIntegration(client);
      await importNumber(client, integration_id, unusedNumber());
      return deleting(`/api/integrations/${integration_id}?remove_phone_numbers=true`);
    },
  },
  {
    name: 'the deletion of an integration with its numbers, of which an agent holds one',
    status: 409,
    prepare: async (client) => {
      const { integration_id, phone_number_id } = await usedIntegration(client);
      const body = { assigned_agent_id: 'agent_a1b2c3d4e5f6' };
      await call(client, 'PUT', `/api/phone-numbers/${phone_number_id}`, { body });
      return deleting(`/api/integrations/${integration_id}?remove_phone_numbers=true`);
    },
  },
  {
    name: 'the deletion of an integration that has other numbers than expected',
    status: 412,
    prepare: async (client) =>
      deleting(`/api/integrations/${(await usedIntegration(client)).integration_id}?expect_references=2`),
  },
  {
    name: 'the deletion of no integration with its numbers',
    status: 404,
    prepare: async () => deleting(`/api/integrations/${NO_INTEGRATION}?remove_phone_numbers=true`),
  },
  {
    name: 'the import of a number through an integration',
    status: 201,
    prepare: async (client) =>
      importingUnasked({
        phone_number: unusedNumber(),
        provider: 'twilio',
        integration_id: await createIntegration(client),
      }),
  },
  {
    name: 'the import of a number that its account holds',
    status: 201,
    prepare: async (client) => {
      const phone_number = unusedNumber();
      const integration_id = await integrationHolding(client, phone_number);
      return importing({ phone_number, provider: 'twilio', integration_id });
    },
  },
  {
    name: 'the import of a number that its account does not hold',
    status: 422,
    dependsOnProvider: true,
    prepare: async (client) =>
      importing({
        phone_number: unusedNumber(),
        provider: 'twilio',
        integration_id: await integrationHolding(client, unusedNumber()),
      }),
  },
  {
    name: 'the import of a number that another organization has without its account',
    status: 201,
    dependsOnProvider: true,
    prepare: async (client) => {
      const phone_number = await importSipNumber(await newClient());
      const integration_id = await integrationHolding(client, phone_number);
      return importing({ phone_number, provider: 'twilio', integration_id });
    },
  },
  {
    name: 'the import of 20 numbers',
    status: 200,
    prepare: async (client) => {
      const phone_numbers = Array.from({ length: 20 }, unusedNumber);
      return importingMany({ integration_id: await integrationHolding(client, ...phone_numbers), phone_numbers });
    },
  },
  {
    name: 'the import of several numbers that exist',
    status: 422,
    prepare: async (client) => {
      const { phone_number, integration_id } = await usedIntegration(client);
      return importingMany({ integration_id, phone_numbers: [phone_number, phone_number] });
    },
  },
  {
    name: 'the import of several numbers through no integration',
    status: 404,
    prepare: async () => importingMany({ integration_id: NO_INTEGRATION, phone_numbers: [unusedNumber()] }),
  },
  {
    name: 'the import of a SIP number',
    status: 201,
    prepare: async () => importing({ phone_number: unusedNumber(), provider: 'sip' }),
  },
  {
    name: 'the import of a SIP number with credentials',
    status: 201,
    prepare: async () => importing(sip()),
  },
  {
    name: 'the import of a number that exists',
    status: 409,
    prepare: async (client) => {
      const { phone_number, integration_id } = await usedIntegration(client);
      return importingUnasked({ phone_number, provider: 'twilio', integration_id });
    },
  },
  {
    name: 'the import of a number that exists, with SIP credentials',
    status: 409,
    prepare: async (client) => importing(sip((await usedIntegration(client)).phone_number)),
  },
  {
    name: 'the import of a number through no integration',
    status: 404,
    prepare: async () =>
      importing({ phone_number: unusedNumber(), provider: 'twilio', integration_id: NO_INTEGRATION }),
  },
  {
    name: 'the import of a number through an integration of another provider',
    status: 422,
    prepare: async (client) =>
      importing({
        phone_number: unusedNumber(),
        provider: 'twilio',
        integration_id: await createIntegration(client, telnyx),
      }),
  },
  {
    name: 'the reassignment of a number',
    status: 200,
    prepare: async (client) => {
      const { phone_number_id } = await usedIntegration(client);
      return updatingNumber(phone_number_id, { integration_id: await createIntegration(client) });
    },
  },
  {
    name: 'the reassignment of a number to another account, which holds it',
    status: 200,
    prepare: async (client) => {
      const { phone_number, phone_number_id } = await usedIntegration(client);
      return updatingNumber(phone_number_id, { integration_id: await integrationHolding(client, phone_number) });
    },
  },
  {
    name: 'the reassignment of a number to another account, which does not hold it',
    status: 422,
    dependsOnProvider: true,
    prepare: async (client) => {
      const { phone_number_id } = await usedIntegration(client);
      return updatingNumber(phone_number_id, { integration_id: await integrationHolding(client, unusedNumber()) });
    },
  },
  {
    name: 'the check of a number that its account holds',
    status: 200,
    dependsOnProvider: true,
    prepare: async (client) => {
      const phone_number = unusedNumber();
      const integration_id = await integrationHolding(client, phone_number);
      return checkingNumber(await importNumber(client, integration_id, phone_number));
    },
  },
  {
    name: 'the check of a SIP number',
    status: 422,
    prepare: async (client) => checkingNumber(await importSip(client)),
  },
  {
    name: 'the check of no number',
    status: 404,
    prepare: async () => checkingNumber(NO_NUMBER),
  },
  {
    name: 'the assignment of a number to an agent',
    status: 200,
    prepare: async (client) =>
      updatingNumber((await usedIntegration(client)).phone_number_id, { assigned_agent_id: 'agent_a1b2c3d4e5f6' }),
  },
  {
    name: 'new SIP credentials for a number',
    status: 200,
    prepare: async (client) =>
      updatingNumber(await importSip(client), {
        sip_username: 'other',
        sip_password: 'plaintext-new-password',
        inbound_pin: '0815',
      }),
  },
  {
    name: 'a new PIN alone for a SIP number',
    status: 200,
    prepare: async (client) => updatingNumber(await importSip(client), { inbound_pin: '0815' }),
  },
  {
    name: 'the removal of the SIP credentials of a number',
    status: 200,
    prepare: async (client) =>
      updatingNumber(await importSip(client), { sip_username: null, sip_password: null, inbound_pin: null }),
  },
  {
    name: 'no SIP user for a number with a SIP password',
    status: 422,
    prepare: async (client) => updatingNumber(await importSip(client), { sip_username: null, inbound_pin: '0815' }),
  },
  {
    name: 'a PIN for a number that is not a SIP number',
    status: 422,
    prepare: async (client) => updatingNumber((await usedIntegration(client)).phone_number_id, { inbound_pin: '0815' }),
  },
  {
    name: 'a new PIN for no number',
    status: 404,
    prepare: async () => updatingNumber(NO_NUMBER, { inbound_pin: '0815' }),
  },
  {
    name: 'the reassignment of a number to no integration',
    status: 404,
    prepare: async (client) =>
      updatingNumber((await usedIntegration(client)).phone_number_id, { integration_id: NO_INTEGRATION }),
  },
  {
    name: 'a change of no number',
    status: 404,
    prepare: async () => updatingNumber(NO_NUMBER, { supports_inbound: true }),
  },
  {
    name: 'the deletion of a number',
    status: 200,
    prepare: async (client) => deleting(`/api/phone-numbers/${(await usedIntegration(client)).phone_number_id}`),
  },
  {
    name: 'the deletion of a SIP number with credentials',
    status: 200,
    prepare: async (client) => deleting(`/api/phone-numbers/${await importSip(client)}`),
  },
  {
    name: 'the deletion of a number that an agent holds',
    status: 409,
    prepare: async (client) => {
      const { phone_number_id } = await usedIntegration(client);
      await assign(client, phone_number_id);
      return deleting(`/api/phone-numbers/${phone_number_id}`);
    },
  },
  {
    name: 'the deletion of no number',
    status: 404,
    prepare: async () => deleting(`/api/phone-numbers/${NO_NUMBER}`),
  },
  {
    name: 'a new name for an integration that is as matched',
    status: 200,
    prepare: async (client) => matching(client, updating(await createIntegration(client), { name: 'Twilio Europe' })),
  },
  {
    name: 'a new name for an integration that has changed',
    status: 412,
    prepare: async (client) => notMatching(updating(await createIntegration(client), { name: 'Twilio Europe' })),
  },
  {
    name: 'new credentials for an integration that is as matched',
    status: 200,
    prepare: async (client) =>
      matching(client, updating(await createIntegration(client), { credentials: replacement })),
  },
  {
    name: 'new credentials for an integration that has changed',
    status: 412,
    prepare: async (client) => notMatching(updating(await createIntegration(client), { credentials: replacement })),
  },
  {
    name: 'the deletion of an integration that is as matched',
    status: 200,
    prepare: async (client) => matching(client, deleting(`/api/integrations/${await createIntegration(client)}`)),
  },
  {
    name: 'the deletion of an integration that has changed',
    status: 412,
    prepare: async (client) => notMatching(deleting(`/api/integrations/${await createIntegration(client)}`)),
  },
  {
    name: 'the assignment of a number that is as matched',
    status: 200,
    prepare: async (client) =>
      matching(
        client,
        updatingNumber((await usedIntegration(client)).phone_number_id, { assigned_agent_id: 'agent_a1b2c3d4e5f6' }),
      ),
  },
  {
    name: 'the assignment of a number that has changed',
    status: 412,
    prepare: async (client) =>
      notMatching(
        updatingNumber((await usedIntegration(client)).phone_number_id, { assigned_agent_id: 'agent_a1b2c3d4e5f6' }),
      ),
  },
  {
    name: 'the reassignment to another account of a number that has changed',
    status: 412,
    prepare: async (client) => {
      const { phone_number, phone_number_id } = await usedIntegration(client);
      const integration_id = await integrationHolding(client, phone_number);
      return notMatching(updatingNumber(phone_number_id, { integration_id }));
    },
  },
  {
    name: 'new SIP credentials for a number that has changed',
    status: 412,
    prepare: async (client) =>
      notMatching(
        updatingNumber(await importSip(client), { sip_password: 'plaintext-new-password', inbound_pin: '0815' }),
      ),
  },
  {
    name: 'the deletion of a number that is as matched',
    status: 200,
    prepare: async (client) =>
      matching(client, deleting(`/api/phone-numbers/${(await usedIntegration(client)).phone_number_id}`)),
  },
  {
    name: 'the deletion of a number that has changed',
    status: 412,
    prepare: async (client) =>
      notMatching(deleting(`/api/phone-numbers/${(await usedIntegration(client)).phone_number_id}`)),
  },
  {
    name: 'a change of three numbers',
    status: 200,
    prepare: async (client) => {
      const { integration_id, phone_number_id } = await usedIntegration(client);
      const other = await importNumber(client, integration_id, unusedNumber());
      const phone_number_ids = [other, await importSip(client), phone_number_id];
      return updatingMany({ phone_number_ids, set: { assigned_agent_id: 'agent_a1b2c3d4e5f6' } });
    },
  },
  {
    name: 'the reassignment of an integration’s numbers to another account, which holds them',
    status: 200,
    prepare: async (client) => {
      const { integration_id, phone_number } = await usedIntegration(client);
      const other = unusedNumber();
      await importNumber(client, integration_id, other);
      const set = { integration_id: await integrationHolding(client, phone_number, other) };
      return updatingMany({ integration_id, set });
    },
  },
  {
    name: 'the reassignment of an integration’s numbers to another account, which lacks one',
    status: 422,
    dependsOnProvider: true,
    prepare: async (client) => {
      const { integration_id, phone_number } = await usedIntegration(client);
      await importNumber(client, integration_id, unusedNumber());
      return updatingMany({ integration_id, set: { integration_id: await integrationHolding(client, phone_number) } });
    },
  },
  {
    name: 'a change of two numbers, of which one is not there',
    status: 422,
    prepare: async (client) => {
      const { phone_number_id } = await usedIntegration(client);
      return updatingMany({ phone_number_ids: [phone_number_id, NO_NUMBER], set: { supports_inbound: true } });
    },
  },
  {
    name: 'a change of the numbers of no integration',
    status: 404,
    prepare: async () => updatingMany({ integration_id: NO_INTEGRATION, set: { supports_inbound: true } }),
  },
  {
    name: 'the deletion of three numbers, of which two have SIP credentials',
    status: 200,
    prepare: async (client) => {
      const { phone_number_id } = await usedIntegration(client);
      return deletingMany({ phone_number_ids: [await importSip(client), phone_number_id, await importSip(client)] });
    },
  },
  {
    name: 'the deletion of an integration’s numbers',
    status: 200,
    prepare: async (client) => {
      const { integration_id } = await usedIntegration(client);
      await importNumber(client, integration_id, unusedNumber());
      return deletingMany({ integration_id });
    },
  },
  {
    name: 'the deletion of two numbers, of which an agent holds one',
    status: 409,
    prepare: async (client) => {
      const { integration_id, phone_number_id } = await usedIntegration(client);
      await assign(client, phone_number_id);
      return deletingMany({
        phone_number_ids: [await importNumber(client, integration_id, unusedNumber()), phone_number_id],
      });
    },
  },
  {
    name: 'the deletion of the numbers of no integration',
    status: 404,
    prepare: async () => deletingMany({ integration_id: NO_INTEGRATION }),
  },
  {
    name: 'the creation of an API key',
    status: 201,
    prepare: async () => creatingKey({ name: 'Billing service', role: 'user' }),
  },
  {
    name: 'a new name for an API key',
    status: 200,
    prepare: async (client) => renamingKey((await otherKey(client)).key_id),
  },
  { name: 'a new name for no API key', status: 404, prepare: async () => renamingKey(NO_KEY) },
  {
    name: 'the rotation of an API key',
    status: 201,
    prepare: async (client) => rotating((await otherKey(client)).key_id),
  },
  {
    name: 'the rotation of an API key that was revoked',
    status: 409,
    prepare: async (client) => rotating(await revokedKey(client)),
  },
  { name: 'the rotation of no API key', status: 404, prepare: async () => rotating(NO_KEY) },
  {
    name: 'the revocation of an API key',
    status: 200,
    prepare: async (client) => deleting(`/api/api-keys/${(await otherKey(client)).key_id}`),
  },
  {
    name: 'the revocation of no API key',
    status: 404,
    prepare: async () => deleting(`/api/api-keys/${NO_KEY}`),
  },
  {
    name: 'the revocation of an API key with the two that come from it',
    status: 200,
    prepare: async (client) => deleting(`/api/api-keys/${await maker(client)}?descendants=true`),
  },
  {
    name: 'the revocation of no API key with what comes from it',
    status: 404,
    prepare: async () => deleting(`/api/api-keys/${NO_KEY}?descendants=true`),
  },
  {
    name: 'the creation of a webhook endpoint',
    status: 201,
    prepare: async () => creatingEndpoint(),
  },
  {
    name: 'a new URL for a webhook endpoint',
    status: 200,
    prepare: async (client) => updatingEndpoint((await webhookEndpoint(client)).path, { url: newReceiver() }),
  },
  {
    name: 'a change of no webhook endpoint',
    status: 404,
    prepare: async () => updatingEndpoint(NO_ENDPOINT, { enabled: false }),
  },
  {
    name: 'a new secret for a webhook endpoint',
    status: 201,
    prepare: async (client) => rotatingSecret((await webhookEndpoint(client)).path),
  },
  { name: 'a new secret for no webhook endpoint', status: 404, prepare: async () => rotatingSecret(NO_ENDPOINT) },
  {
    name: 'a test that a webhook endpoint answers',
    status: 200,
    prepare: async (client) => testing((await webhookEndpoint(client)).path),
  },
  {
    name: 'a test that a webhook endpoint fails',
    status: 200,
    prepare: async (client) => testing((await webhookEndpoint(client, 500)).path),
  },
  { name: 'a test of no webhook endpoint', status: 404, prepare: async () => testing(NO_ENDPOINT) },
  {
    name: 'a replay of events for a webhook endpoint',
    status: 202,
    prepare: async (client) => replaying((await webhookEndpoint(client)).path),
  },
  { name: 'a replay of events for no webhook endpoint', status: 404, prepare: async () => replaying(NO_ENDPOINT) },
  {
    name: 'the retry of a delivery',
    status: 202,
    prepare: async (client) => retrying(await deadDelivery(client)),
  },
  {
    name: 'the retry of no delivery',
    status: 404,
    prepare: async (client) => retrying(`${(await webhookEndpoint(client)).path}/deliveries/whdel_000000000000`),
  },
  {
    name: 'the retry of a delivery of no webhook endpoint',
    status: 404,
    prepare: async () => retrying(`${NO_ENDPOINT}/deliveries/whdel_000000000000`),
  },
  {
    name: 'the deletion of a webhook endpoint',
    status: 200,
    prepare: async (client) => deleting((await webhookEndpoint(client)).path),
  },
  { name: 'the deletion of no webhook endpoint', status: 404, prepare: async () => deleting(NO_ENDPOINT) },
  // The last one: it leaves no room for others.
  {
    name: 'the creation of a webhook endpoint beside ten others',
    status: 409,
    prepare: async (client) => {
      await fillEndpoints(client);
      return creatingEndpoint();
    },
  },
];
