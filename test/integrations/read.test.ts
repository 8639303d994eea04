import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { call, createIntegration, everythingKept, fillNumbers, newClient, page, rowOf } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

const read = (integration_id: string, by = client) => call(by, 'GET', `/api/integrations/${integration_id}`);

describe('an integration', () => {
  it('is answered as it is stored, to the character', async () => {
    const integration_id = await createIntegration(client);
    await env.DB.prepare(
      `UPDATE integrations SET status = 'credentials_missing', created_at = unixepoch('2024-01-15T10:30:00Z'),
         updated_at = unixepoch('2024-01-15T10:30:01Z'), verification_checked_at = unixepoch('2024-01-15T10:30:02Z')
       WHERE integration_id = ?`,
    )
      .bind(integration_id)
      .run();

    const { status, text, headers } = await read(integration_id);

    expect(status).toBe(200);
    expect(headers.get('Content-Type')).toBe('application/json');
    expect(text).toBe(
      `{"success":true,"data":{"integration_id":"${integration_id}","client_id":"${client.organization_id}",` +
        '"name":"Twilio Production","provider":"twilio","category":"telephony","status":"credentials_missing",' +
        '"created_at":"2024-01-15T10:30:00Z","updated_at":"2024-01-15T10:30:01Z","account_hint":"AC…cdef",' +
        '"verification":{"status":"verified","checked_at":"2024-01-15T10:30:02Z","provider_status":200,' +
        '"provider_code":null,"detail":"The provider accepted the credentials."}}}',
    );
  });

  it.each(['admin', 'agent_manager', 'user'] as const)('is read by a key of role %s', async (role) => {
    const integration_id = await createIntegration(client);
    const reader = await newClient({ organization_id: client.organization_id, role });

    expect(await read(integration_id, reader)).toMatchObject({ status: 200, body: { data: { integration_id } } });
  });

  it('is a 404 where it is missing or another organization’s, told apart by nothing', async () => {
    const integration_id = await createIntegration(client);
    const stranger = await newClient();

    const foreign = await read(integration_id, stranger);
    const missing = await read('intg_000000000000', stranger);

    expect(foreign).toMatchObject({ status: 404, body: { code: 'integration_not_found' } });
    const withoutRequestId = (text: string) => text.replace(/"request_id":"[^"]*"/, '');
    expect(withoutRequestId(foreign.text)).toBe(withoutRequestId(missing.text));
  });

  it.each(['intg_', 'intg_A1B2C3D4E5F6', 'intg_00000000000', 'intg_0000000000000', 'phon_000000000000', '%00'])(
    'is a 422 by the malformed id %s',
    async (malformed) => {
      expect(await read(malformed)).toMatchObject({
        status: 422,
        body: { code: 'validation_failed', errors: [{ path: 'integration_id' }] },
      });
    },
  );

  it('is read without a change to anything stored', async () => {
    const integration_id = await createIntegration(client);
    const before = await everythingKept();

    await read(integration_id);
    await read('intg_000000000000');
    await page(client, '/api/integrations');

    expect(await everythingKept()).toEqual(before);
  });
});

const providers = ['twilio', 'telnyx', 'vonage', 'plivo'];
const statuses = ['active', 'credentials_missing'];
const all = '/api/integrations';

/** One integration of each provider and status, all of one second, in an order that is not their ids'. */
async function createOfEach() {
  const states = providers.flatMap((provider) => statuses.map((status) => ({ provider, status })));
  const ids = ['0b', '07', '0e', '01', '0a', '05', '0f', '02'].map((end) => `intg_0000000000${end}`);
  const state = { name: 'One', category: 'telephony' };
  const integrations = states.map((given, index) => ({ integration_id: ids[index] ?? '', ...state, ...given }));
  await env.DB.batch(
    integrations.map(({ integration_id, name, provider, category, status }) =>
      env.DB.prepare(
        `INSERT INTO integrations (organization_id, integration_id, name, provider, category, status, credentials_version,
           data_key, kek_id, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, 'version', 'data key', 'k1', 1700000000, 1700000000)`,
      ).bind(client.organization_id, integration_id, name, provider, category, status),
    ),
  );
  return integrations.toSorted((one, other) => (one.integration_id < other.integration_id ? -1 : 1));
}

describe('the list of integrations', () => {
  it('is empty in an organization that has none, whatever others have', async () => {
    await createIntegration(await newClient());

    expect((await call(client, 'GET', all)).text).toBe(
      '{"success":true,"data":[],"pagination":{"next_cursor":null,"has_more":false,"page_size":20,"total_count":0,' +
        '"total_count_exact":true}}',
    );
  });

  it('shows each integration as it is read alone, to the character, with how many numbers use it', async () => {
    const integration_id = await createIntegration(client);
    const { data } = JSON.parse((await read(integration_id)).text);
    await fillNumbers(client, integration_id, 1001);

    expect((await call(client, 'GET', all)).text).toBe(
      `{"success":true,"data":[${JSON.stringify({ ...data, phone_number_count: 1001 })}],"pagination":{"next_cursor":null,"has_more":false,` +
        '"page_size":20,"total_count":1,"total_count_exact":true}}',
    );
  });

  it('is in the order of creation, and within a second in the order of the ids', async () => {
    const sameSecond = (await createOfEach()).map(({ integration_id }) => integration_id);
    const [later, earlier] = [await createIntegration(client), await createIntegration(client)];
    await env.DB.prepare('UPDATE integrations SET created_at = 1699999999 WHERE integration_id = ?')
      .bind(earlier)
      .run();

    const { data } = await page(client, all);

    expect(data.map(({ integration_id }) => integration_id)).toEqual([earlier, ...sameSecond, later]);
  });

  const optional = (name: string, values: string[]) => ['', ...values.map((value) => `${name}=${value}`)];
  const filters = optional('provider', providers).flatMap((provider) =>
    optional('category', ['telephony']).flatMap((category) =>
      optional('status', statuses).map((status) => [provider, category, status].filter(Boolean).join('&')),
    ),
  );

  it.each(filters)('shows and counts exactly what ?%s selects', async (filter) => {
    const wanted = Object.entries(Object.fromEntries(new URLSearchParams(filter)));
    const selected = (await createOfEach()).filter((integration) =>
      wanted.every(([name, value]) => Object.entries(integration).some(([has, its]) => has === name && its === value)),
    );

    const { data, total_count } = await page(client, `${all}?${filter}`);

    expect(data).toEqual(selected.map((integration) => expect.objectContaining(integration)));
    expect(total_count).toBe(selected.length);
  });

  it.each([
    ['an unknown provider', 'provider=acme', 'provider'],
    ['the provider sip', 'provider=sip', 'provider'],
    ['a provider in other letters', 'provider=Twilio', 'provider'],
    ['an empty provider', 'provider=', 'provider'],
    ['an unknown category', 'category=email', 'category'],
    ['an unknown status', 'status=deleted', 'status'],
    ['a phone number’s status', 'status=free', 'status'],
    ['an unknown parameter', 'sort=name', 'sort'],
    ['another list’s parameter', 'integration_id=intg_000000000000', 'integration_id'],
    ['an unknown parameter that every object has', 'constructor=1', 'constructor'],
    ['a parameter in other letters', 'Provider=twilio', 'Provider'],
    ['a repeated provider', 'provider=twilio&provider=telnyx', 'provider'],
    ['a provider given twice alike', 'provider=twilio&provider=twilio', 'provider'],
    ['a repeated status', 'status=active&status=active', 'status'],
    ['a repeated page size', 'page_size=5&page_size=5', 'page_size'],
    ['a repeated cursor', 'cursor=a&cursor=a', 'cursor'],
  ])('is a 422 by %s', async (_, filter, path) => {
    await createIntegration(client);
    const before = await everythingKept();

    const { status, body } = await call(client, 'GET', `${all}?${filter}`);

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: 'validation_failed', errors: [{ path, message: expect.any(String) }] });
    expect(await everythingKept()).toEqual(before);
  });

  it('tells what a filter may be, without a value that was sent', async () => {
    const { body, text } = await call(client, 'GET', `${all}?provider=plaintext-provider&sort=plaintext`);

    expect(body).toMatchObject({ errors: [{ path: 'provider' }, { path: 'sort' }] });
    expect(text).not.toContain('plaintext');
  });

  it('never shows what leads to credentials', async () => {
    await createIntegration(client);
    const row = await rowOf('integrations', client.organization_id);

    const { text } = await call(client, 'GET', all);

    expect(text).not.toMatch(/"credentials|data_key|kek_id|revision|fingerprint|verdict|plaintext/);
    expect(text).not.toContain(String(row['data_key']));
    expect(text).not.toContain(String(row['credentials_version']));
  });
});
