/** Every mutation of the operators' API, done and refused, as mutations.ts has those of API keys. */
import { env } from 'cloudflare:workers';
import { offboardOrganization } from '../src/operator/organizations/offboard.ts';
import { suspendOrganization } from '../src/operator/organizations/suspend.ts';
import { createIntegration, importNumber, newClient, unusedNumber } from './fixtures.ts';
import type { Client } from './fixtures.ts';
import { importSip } from './mutations.ts';
import type { Mutation } from './mutations.ts';

export interface OperatorCase {
  name: string;
  status: number;
  /** What the same request without an Idempotency-Key is answered once it was done, if it is another status. */
  again?: number;
  /** How many events it leaves, if that is not one, or none for a refusal. */
  events?: number;
  /** It goes on after its answer. */
  goesOn?: true;
  /** Makes what the mutation needs. The client is an admin of the organization that it is about, unless it makes one. */
  prepare: (client: Client) => Promise<Mutation>;
}

const NOBODY = 'org_nobody';
const NO_KEY = 'apikey_000000000000';

const newName = () => `org_new_${crypto.randomUUID()}`;

/** The metadata tell which organizations a request has made. */
const creating = (body: object): Mutation => ({
  method: 'POST',
  path: '/operator/organizations',
  body: { name: 'Example Telecom', metadata: { account: crypto.randomUUID() }, ...body },
});
const about = ({ organization_id }: Pick<Client, 'organization_id'>) => `/operator/organizations/${organization_id}`;
const updating = (client: Pick<Client, 'organization_id'>): Mutation => ({
  method: 'PUT',
  path: about(client),
  body: { name: 'Example Mobile', tier: 'pro', metadata: { account: '4711' } },
});
const posting = (client: Pick<Client, 'organization_id'>, act: string): Mutation => ({
  method: 'POST',
  path: `${about(client)}/${act}`,
});
const offboarding = (client: Pick<Client, 'organization_id'>): Mutation => ({
  ...posting(client, 'offboard'),
  body: { organization_id: client.organization_id },
});
const minting = (client: Pick<Client, 'organization_id'>): Mutation => ({
  ...posting(client, 'api-keys'),
  body: { name: 'Support', role: 'agent_manager', user_id: 'user_support' },
});
const revoking = (client: Pick<Client, 'organization_id'>, key_id: string): Mutation => ({
  method: 'DELETE',
  path: `${about(client)}/api-keys/${key_id}`,
});
const releasing = (phone_number: string): Mutation => ({
  method: 'POST',
  path: '/operator/phone-numbers/release',
  body: { phone_number },
});

const first_key = { name: 'First', role: 'admin' };

const suspend = ({ organization_id }: Client) => suspendOrganization(env.DB, organization_id);
const offboard = ({ organization_id }: Client) => offboardOrganization(env.DB, organization_id);

const nobody = { organization_id: NOBODY };

/** Everything that an organization can have, the organization suspended. */
async function suspendedWithEverything(client: Client): Promise<void> {
  await importNumber(client, await createIntegration(client), unusedNumber());
  await createIntegration(client);
  await importSip(client);
  await newClient({ organization_id: client.organization_id, role: 'user' });
  await suspend(client);
}

export const operatorMutations: OperatorCase[] = [
  {
    name: 'the creation of an organization',
    status: 201,
    prepare: async () => creating({}),
  },
  {
    name: 'the creation of an organization whose id is chosen',
    status: 201,
    again: 409,
    prepare: async () => creating({ organization_id: newName() }),
  },
  {
    name: 'the creation of an organization with its first key',
    status: 201,
    events: 2,
    prepare: async () => creating({ first_key }),
  },
  {
    name: 'the creation of an organization whose id is chosen, with its first key',
    status: 201,
    events: 2,
    again: 409,
    prepare: async () => creating({ organization_id: newName(), first_key }),
  },
  {
    name: 'the creation of an organization that exists, with a first key',
    status: 409,
    prepare: async ({ organization_id }) => creating({ organization_id, first_key }),
  },
  { name: 'the update of an organization', status: 200, prepare: async (client) => updating(client) },
  { name: 'the update of no organization', status: 404, prepare: async () => updating(nobody) },
  {
    name: 'the update of an offboarded organization',
    status: 409,
    prepare: async (client) => {
      await offboard(client);
      return updating(client);
    },
  },
  { name: 'the suspension of an organization', status: 200, prepare: async (client) => posting(client, 'suspend') },
  { name: 'the suspension of no organization', status: 404, prepare: async () => posting(nobody, 'suspend') },
  {
    name: 'the suspension of an offboarded organization',
    status: 409,
    prepare: async (client) => {
      await offboard(client);
      return posting(client, 'suspend');
    },
  },
  {
    name: 'the resumption of an organization',
    status: 200,
    prepare: async (client) => {
      await suspend(client);
      return posting(client, 'resume');
    },
  },
  {
    name: 'the resumption of an offboarded organization',
    status: 409,
    prepare: async (client) => {
      await offboard(client);
      return posting(client, 'resume');
    },
  },
  {
    name: 'the offboarding of a suspended organization',
    status: 202,
    // Its own, and those of two integrations, two numbers and two keys.
    events: 7,
    goesOn: true,
    prepare: async (client) => {
      await suspendedWithEverything(client);
      return offboarding(client);
    },
  },
  {
    name: 'the offboarding of an organization that is not suspended',
    status: 409,
    prepare: async (client) => offboarding(client),
  },
  { name: 'the offboarding of no organization', status: 404, prepare: async () => offboarding(nobody) },
  { name: 'the minting of an API key', status: 201, prepare: async (client) => minting(client) },
  { name: 'the minting of an API key of no organization', status: 404, prepare: async () => minting(nobody) },
  {
    name: 'the minting of an API key of an offboarded organization',
    status: 409,
    prepare: async (client) => {
      await offboard(client);
      return minting(client);
    },
  },
  {
    name: 'an operator’s revocation of an API key',
    status: 200,
    prepare: async (client) => revoking(client, client.key_id),
  },
  {
    name: 'an operator’s revocation of no API key',
    status: 404,
    prepare: async (client) => revoking(client, NO_KEY),
  },
  {
    name: 'the revocation of every API key of an organization',
    status: 200,
    events: 3,
    prepare: async (client) => {
      const { organization_id } = client;
      for (const role of ['user', 'agent_manager'] as const) await newClient({ organization_id, role });
      return posting(client, 'api-keys/revoke-all');
    },
  },
  {
    name: 'the revocation of every API key of no organization',
    status: 404,
    prepare: async () => posting(nobody, 'api-keys/revoke-all'),
  },
  {
    name: 'the revocation of every API key of an offboarded organization',
    status: 409,
    prepare: async (client) => {
      await offboard(client);
      return posting(client, 'api-keys/revoke-all');
    },
  },
  {
    name: 'the release of a number',
    status: 200,
    again: 404,
    prepare: async (client) => {
      const phone_number = unusedNumber();
      await importNumber(client, await createIntegration(client), phone_number);
      return releasing(phone_number);
    },
  },
  {
    name: 'the release of a SIP number with credentials',
    status: 200,
    again: 404,
    prepare: async (client) => {
      const phone_number = unusedNumber();
      await importSip(client, phone_number);
      return releasing(phone_number);
    },
  },
  { name: 'the release of a number that nobody has', status: 404, prepare: async () => releasing(unusedNumber()) },
];
