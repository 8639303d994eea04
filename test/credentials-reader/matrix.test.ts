/** Who may read what, over the real RPC: each consumer, with each state of what it asks for. */
import { env, exports } from 'cloudflare:workers';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { suspendOrganization } from '../../src/operator/organizations/suspend.ts';
import { credentialsKey } from '../../src/worker/credentials/kv-key.ts';
import { call, createIntegration, newClient, rowOf, twilio, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { importSip, sip } from '../mutations.ts';
import { secretAnswering } from '../simulation.ts';
import { grants } from './grants.ts';

const consumers: [name: string, consumer: unknown][] = [
  ...Object.keys(grants).map((name): [string, unknown] => [name, name]),
  ['a name that is not granted', 'unknown'],
  ['a name that every object has', 'constructor'],
  ['a name in another case', 'Call-Router'],
  ['no name', undefined],
  ['no text', ['call-router']],
];

interface Grant {
  providers: string[];
  organizations: string | string[];
  unconfirmed?: boolean;
}

const grantOf = (consumer: unknown): Grant | undefined =>
  Object.entries(grants).find(([name]) => name === consumer)?.[1];

interface Asked {
  organization_id: string;
  /** Undefined for a SIP number, which is asked for by its phone number alone. */
  integration_id?: string;
  phone_number: string;
  provider: string;
  credentials: object;
  /** For a consumer with every grant: `ok`, or a code. */
  outcome: string;
}

let secrets = 0;

/** Each with a secret of its own, so that no other can be taken for it. */
const twilioWith = (auth_token = `plaintext-of-twilio-${(secrets += 1)}`) => ({ ...twilio, auth_token });

let clients: Record<'granted' | 'other' | 'suspended', Client>;
const states: Record<string, Asked> = {};

async function prepared(
  client: Client,
  outcome = 'ok',
  credentials: Record<string, string> & { provider: string } = twilioWith(),
  query = '',
): Promise<Required<Asked>> {
  const integration_id = await createIntegration(client, credentials, query);
  const phone_number = unusedNumber();
  await call(client, 'POST', '/api/phone-numbers?verify=false', {
    body: { phone_number, provider: credentials.provider, integration_id },
  });
  const { organization_id } = client;
  return { organization_id, integration_id, phone_number, provider: credentials.provider, credentials, outcome };
}

async function preparedSip(client: Client): Promise<Asked & { phone_number_id: string }> {
  const phone_number = unusedNumber();
  const phone_number_id = await importSip(client, phone_number);
  const { organization_id } = client;
  const { phone_number: _, ...given } = sip();
  const credentials = { ...given, sip_transport: 'auto', media_encryption: 'allow' };
  return { organization_id, phone_number, phone_number_id, provider: 'sip', credentials, outcome: 'ok' };
}

async function removeCiphertext(id: string): Promise<void> {
  const row = await rowOf(id.startsWith('phon') ? 'phone_numbers' : 'integrations', id);
  const text = (column: string) => String(row[column]);
  await env.CREDENTIALS.delete(credentialsKey(text('organization_id'), id, text('credentials_version')));
}

const change = (integration_id: string, assignment: string) =>
  env.DB.prepare(`UPDATE integrations SET ${assignment} WHERE integration_id = ?`).bind(integration_id).run();

beforeAll(async () => {
  clients = {
    granted: await newClient({ organization_id: 'org_granted' }),
    other: await newClient({ organization_id: 'org_other' }),
    suspended: await newClient({ organization_id: 'org_suspended' }),
  };
  const { granted, other, suspended } = clients;
  states['its own'] = await prepared(granted);
  states['of another provider'] = await prepared(granted, 'ok', {
    provider: 'telnyx',
    api_key: 'plaintext-of-telnyx',
  });
  states['of another organization'] = await prepared(other);
  states['of a suspended organization'] = await prepared(suspended, 'organization_inactive');
  states['refused by its provider'] = await prepared(
    granted,
    'ok',
    twilioWith(await secretAnswering('refused')),
    '?verify=false',
  );
  await call(granted, 'POST', `/api/integrations/${states['refused by its provider'].integration_id}/verify`);

  const deleted = await prepared(granted, 'not_found');
  const number = await rowOfNumber(deleted.phone_number);
  await call(granted, 'DELETE', `/api/phone-numbers/${number}`);
  await call(granted, 'DELETE', `/api/integrations/${deleted.integration_id}`);
  states['deleted'] = deleted;

  const lost = await prepared(granted, 'credentials_missing');
  await removeCiphertext(lost.integration_id);
  states['without ciphertext'] = lost;
  const marked = await prepared(granted, 'credentials_missing');
  await change(marked.integration_id, `status = 'credentials_missing'`);
  states['that lost its credentials in a restore'] = marked;

  const locked = await prepared(granted, 'temporarily_unavailable');
  await change(locked.integration_id, `kek_id = 'k9'`);
  states['under a key-encryption key that the ring lacks'] = locked;
  const broken = await prepared(granted, 'temporarily_unavailable');
  const foreign = await rowOf('integrations', locked.integration_id);
  await change(broken.integration_id, `data_key = '${String(foreign['data_key'])}'`);
  states['with the data key of another'] = broken;

  states['by SIP'] = await preparedSip(granted);
  const lostSip = await preparedSip(granted);
  await removeCiphertext(lostSip.phone_number_id);
  states['by SIP, without ciphertext'] = { ...lostSip, outcome: 'credentials_missing' };

  await suspendOrganization(env.DB, suspended.organization_id);
});

async function rowOfNumber(phone_number: string): Promise<string> {
  const row = await env.DB.prepare('SELECT phone_number_id AS id FROM phone_numbers WHERE phone_number = ?')
    .bind(phone_number)
    .first<{ id: string }>();
  return row?.id ?? '';
}

function expected(grant: Grant | undefined, { organization_id, provider, outcome }: Asked, notFound: string): string {
  if (!grant) return 'not_granted';
  const { organizations } = grant;
  const isOfGranted = organizations === '*' || organizations.includes(organization_id);
  if (outcome === 'not_found') return isOfGranted || notFound === 'phone_number_not_found' ? notFound : 'not_granted';
  // All numbers here are unconfirmed.
  const isByNumber = notFound === 'phone_number_not_found';
  if (isByNumber && !grant.unconfirmed) return 'not_granted';
  return isOfGranted && grant.providers.includes(provider) ? outcome : 'not_granted';
}

describe.each(consumers)('%s', (_, consumer) => {
  it.each([
    'its own',
    'of another provider',
    'of another organization',
    'of a suspended organization',
    'refused by its provider',
    'deleted',
    'without ciphertext',
    'that lost its credentials in a restore',
    'under a key-encryption key that the ring lacks',
    'with the data key of another',
    'by SIP',
    'by SIP, without ciphertext',
  ])('reads an integration and its number %s as its grant says', async (name) => {
    vi.spyOn(console, 'error').mockImplementation(() => {});
    const state = states[name];
    if (!state) throw new Error(name);
    const { organization_id, integration_id, phone_number } = state;
    const reader = exports.CredentialsReader({ props: { consumer } });
    const read = {
      ...(integration_id !== undefined && {
        read: await reader.read({ organization_id, integration_id, purpose: 'test' }),
        'read fresh': await reader.read({ organization_id, integration_id, purpose: 'test', fresh: true }),
      }),
      readByPhoneNumber: await reader.readByPhoneNumber({ phone_number, purpose: 'test' }),
    };

    for (const [method, result] of Object.entries(read)) {
      const notFound = method === 'readByPhoneNumber' ? 'phone_number_not_found' : 'integration_not_found';
      const code = expected(grantOf(consumer), state, notFound);
      const { provider, credentials } = state;
      const given = expect.objectContaining({ ok: true, organization_id, provider, credentials });
      const wanted = code === 'ok' ? given : { ok: false, code };
      expect({ method, result }).toEqual({ method, result: wanted });
    }
  });
});
