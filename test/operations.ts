/** Every mutation of the operators' API, done and refused, and what its tests share. */
import { env } from 'cloudflare:workers';
import * as z from 'zod';
import { call, createIntegration, importNumber, newClient, unusedNumber } from './fixtures.ts';
import type { Client, Operator } from './fixtures.ts';

export interface Operation {
  method: 'POST' | 'PUT' | 'DELETE';
  path: string;
  body?: object;
}

export interface OperationCase {
  name: string;
  status: number;
  /** Makes what the operation needs. */
  prepare: (operator: Operator) => Promise<Operation>;
  /** Another body, under which the same Idempotency-Key is another request. */
  otherBody?: object;
}

const created = z.object({
  data: z.object({
    organization_id: z.string(),
    first_key: z.object({ raw_key: z.string(), key: z.object({ key_id: z.string() }) }).optional(),
  }),
});

/** An organization that an operator has created. */
export async function createOrganization(operator: Operator, body: object = {}): Promise<string> {
  const { text } = await call(operator, 'POST', '/operator/organizations', { body: { name: 'Acme', ...body } });
  return created.parse(JSON.parse(text)).data.organization_id;
}

/** A client with the first key of a new organization. */
export async function createCustomer(operator: Operator, body: object = {}): Promise<Client> {
  const { text } = await call(operator, 'POST', '/operator/organizations', {
    body: { name: 'Acme', first_key: { name: 'First', role: 'admin' }, ...body },
  });
  const { organization_id, first_key } = created.parse(JSON.parse(text)).data;
  if (!first_key) throw new Error('no first key');
  return { organization_id, raw_key: first_key.raw_key, key_id: first_key.key.key_id };
}

export const setStatus = (organization_id: string, status: 'active' | 'suspended' | 'offboarded', isOffboarding = 0) =>
  env.DB.prepare('UPDATE organizations SET status = ?, is_offboarding = ? WHERE organization_id = ?')
    .bind(status, isOffboarding, organization_id)
    .run();

/** An organization with an integration, a number and a key. */
export async function customer() {
  const client = await newClient();
  const phone_number = unusedNumber();
  await importNumber(client, await createIntegration(client, undefined, '?verify=false'), phone_number);
  return { ...client, phone_number, path: `/operator/organizations/${client.organization_id}` };
}

export async function suspendedCustomer() {
  const suspended = await customer();
  await setStatus(suspended.organization_id, 'suspended');
  return suspended;
}

const NOBODY = '/operator/organizations/org_nobody';

let ids = 0;
/** An organization id that no test has used yet. */
export const unusedId = () => `org_chosen_${(ids += 1)}`;

const posting = (path: string, body?: object): Operation => ({ method: 'POST', path, ...(body && { body }) });

export const operations: OperationCase[] = [
  {
    name: 'the creation of an organization',
    status: 201,
    prepare: async () => posting('/operator/organizations', { name: 'Acme', metadata: { customer: '4711' } }),
    otherBody: { name: 'Acme', metadata: { customer: '4712' } },
  },
  {
    name: 'the creation of an organization with an id and a first key',
    status: 201,
    prepare: async () =>
      posting('/operator/organizations', {
        organization_id: unusedId(),
        name: 'Acme',
        tier: 'pro',
        first_key: { name: 'First', role: 'admin' },
      }),
    otherBody: { organization_id: 'org_other', name: 'Acme', tier: 'pro', first_key: { name: 'First', role: 'admin' } },
  },
  {
    name: 'the creation of an organization that exists',
    status: 409,
    prepare: async () => {
      const { organization_id } = await newClient();
      return posting('/operator/organizations', {
        organization_id,
        name: 'Acme',
        first_key: { name: 'First', role: 'admin' },
      });
    },
  },
  {
    name: 'a change of an organization',
    status: 200,
    prepare: async () => ({
      method: 'PUT',
      path: (await customer()).path,
      body: { name: 'Renamed', metadata: { plan: 'gold' } },
    }),
    otherBody: { name: 'Renamed', metadata: { plan: 'silver' } },
  },
  {
    name: 'a change of no organization',
    status: 404,
    prepare: async () => ({ method: 'PUT', path: NOBODY, body: { tier: 'pro' } }),
  },
  {
    name: 'a change of an organization that is offboarded',
    status: 409,
    prepare: async () => {
      const { organization_id, path } = await customer();
      await setStatus(organization_id, 'offboarded', 1);
      return { method: 'PUT', path, body: { tier: 'pro' } };
    },
  },
  {
    name: 'the suspension of an organization',
    status: 200,
    prepare: async () => posting(`${(await customer()).path}/suspend`),
  },
  {
    name: 'the suspension of no organization',
    status: 404,
    prepare: async () => posting(`${NOBODY}/suspend`),
  },
  {
    name: 'the suspension of an organization that is offboarded',
    status: 409,
    prepare: async () => {
      const { organization_id, path } = await customer();
      await setStatus(organization_id, 'offboarded', 1);
      return posting(`${path}/suspend`);
    },
  },
  {
    name: 'the resumption of an organization',
    status: 200,
    prepare: async () => posting(`${(await suspendedCustomer()).path}/resume`),
  },
  {
    name: 'the resumption of no organization',
    status: 404,
    prepare: async () => posting(`${NOBODY}/resume`),
  },
  {
    name: 'the offboarding of an organization',
    status: 202,
    prepare: async () => {
      const { organization_id, path } = await suspendedCustomer();
      return posting(`${path}/offboard`, { organization_id });
    },
  },
  {
    name: 'the offboarding of an organization that is not suspended',
    status: 409,
    prepare: async () => {
      const { organization_id, path } = await customer();
      return posting(`${path}/offboard`, { organization_id });
    },
  },
  {
    name: 'the offboarding of no organization',
    status: 404,
    prepare: async () => posting(`${NOBODY}/offboard`, { organization_id: 'org_nobody' }),
  },
  {
    name: 'the minting of an API key',
    status: 201,
    prepare: async () => posting(`${(await customer()).path}/api-keys`, { name: 'Support', role: 'user' }),
    otherBody: { name: 'Support', role: 'admin' },
  },
  {
    name: 'the minting of an API key of no organization',
    status: 404,
    prepare: async () => posting(`${NOBODY}/api-keys`, { name: 'Support', role: 'user' }),
  },
  {
    name: 'the minting of an API key of an organization that is offboarded',
    status: 409,
    prepare: async () => {
      const { organization_id, path } = await customer();
      await setStatus(organization_id, 'offboarded', 1);
      return posting(`${path}/api-keys`, { name: 'Support', role: 'user' });
    },
  },
  {
    name: 'the revocation of an API key',
    status: 200,
    prepare: async () => {
      const { path, key_id } = await customer();
      return { method: 'DELETE', path: `${path}/api-keys/${key_id}` };
    },
  },
  {
    name: 'the revocation of no API key',
    status: 404,
    prepare: async () => ({ method: 'DELETE', path: `${(await customer()).path}/api-keys/apikey_000000000000` }),
  },
  {
    name: 'the revocation of all API keys',
    status: 200,
    prepare: async () => {
      const { organization_id, path } = await customer();
      await newClient({ organization_id, role: 'user' });
      return posting(`${path}/api-keys/revoke-all`);
    },
  },
  {
    name: 'the revocation of all API keys of no organization',
    status: 404,
    prepare: async () => posting(`${NOBODY}/api-keys/revoke-all`),
  },
  {
    name: 'the release of a phone number',
    status: 200,
    prepare: async () => posting('/operator/phone-numbers/release', { phone_number: (await customer()).phone_number }),
    otherBody: { phone_number: '+19995550100' },
  },
  {
    name: 'the release of a phone number that nobody has',
    status: 404,
    prepare: async () => posting('/operator/phone-numbers/release', { phone_number: unusedNumber() }),
  },
];
