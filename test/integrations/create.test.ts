import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { open } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { countedBindings } from '../bindings.ts';
import { actionsOn, call, createIntegration, newClient, resources, rows, start, twilio } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

const create = (body: unknown, headers?: Record<string, string>) =>
  call(client, 'POST', '/api/integrations', headers ? { body, headers } : { body });

const apiKeyOf = (provider: string) => ({ provider, api_key: 'plaintext-key' });
const AC = 'AC0123456789abcdef0123456789ABCDEF';
const SK = 'SK0123456789abcdef0123456789ABCDEF';

describe('a new integration', () => {
  it('is answered as it is stored, to the character', async () => {
    const { status, text } = await create({ name: 'Twilio Production', credentials: twilio });

    const row = (await rows('integrations')).find((found) => found['organization_id'] === client.organization_id);
    const integration_id = String(row?.['integration_id']);
    const timeOf = (column: string) => new Date(Number(row?.[column]) * 1000).toISOString().replace('.000Z', 'Z');
    const time = timeOf('created_at');
    expect(status).toBe(201);
    expect(text).toBe(
      `{"success":true,"message":"Integration created successfully","data":{"integration_id":"${integration_id}",` +
        `"client_id":"${client.organization_id}","name":"Twilio Production","provider":"twilio","category":"telephony",` +
        `"status":"active","created_at":"${time}","updated_at":"${time}","account_hint":"AC…cdef",` +
        `"verification":{"status":"verified","checked_at":"${timeOf('verification_checked_at')}","provider_status":200,"provider_code":null,` +
        `"detail":"The provider accepted the credentials."}}}`,
    );
    expect(integration_id).toMatch(/^intg_[a-f0-9]{12}$/);
  });

  it.each([
    ['twilio', { provider: 'twilio', account_sid: AC, auth_token: 'plaintext-token', region: 'us1' }],
    [
      'twilio',
      { provider: 'twilio', account_sid: AC, api_key_sid: SK, api_key_secret: 'plaintext-secret', region: 'ie1' },
    ],
    ['twilio', { ...twilio, auth_token: 'plaintext-token', api_key_sid: SK, api_key_secret: 'plaintext-secret' }],
    ['telnyx', apiKeyOf('telnyx')],
    ['vonage', { ...apiKeyOf('vonage'), api_secret: 'plaintext-secret' }],
    ['plivo', { provider: 'plivo', auth_id: 'MA0123456789ABCDEFGH', auth_token: 'plaintext-token' }],
  ])('of %s keeps its credentials, which its data key opens', async (provider, credentials) => {
    const integration_id = await createIntegration(client, credentials);

    const row = await env.DB.prepare('SELECT * FROM integrations WHERE integration_id = ?')
      .bind(integration_id)
      .first<{ provider: string; category: string; credentials_version: string; data_key: string; kek_id: string }>();
    if (!row) throw new Error('no row');
    expect(row).toMatchObject({ provider, category: 'telephony' });
    const kv_key = `v1/${client.organization_id}/${integration_id}/${row.credentials_version}`;
    const ciphertext = await env.CREDENTIALS.get(kv_key, 'arrayBuffer');
    if (!ciphertext) throw new Error('no ciphertext');
    const ring = await parseKekRing(env.CREDENTIALS_KEKS);
    expect(await open(ring, kv_key, row, new Uint8Array(ciphertext))).toEqual(credentials);
  });

  it('leaves the outbox empty and one event of its creation', async () => {
    const integration_id = await createIntegration(client);

    expect(await rows('credential_purges')).toEqual([]);
    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  });

  it('costs a warm isolate an intent, a call to the provider, a put and a batch, and nothing after the answer', async () => {
    await createIntegration(client);
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'POST', '/api/integrations', {
      body: { name: 'Telnyx', credentials: apiKeyOf('telnyx') },
      bindings,
    });

    expect(calls).toEqual(['DB.batch', 'provider.fetch', 'CREDENTIALS.put', 'DB.batch']);
    await answer.settle();
    expect(calls).toHaveLength(4);
  });

  it.each(['x', 'é'.repeat(100), '📞'.repeat(100), "Robert'); DROP TABLE integrations;--"])(
    'may be named %j',
    async (name) => {
      const { status, body } = await create({ name, credentials: twilio });

      expect(status).toBe(201);
      expect(body).toMatchObject({ data: { name } });
    },
  );
});

describe('a body that is not valid', () => {
  const valid = { name: 'Twilio Production', credentials: twilio };

  async function refusal(body: unknown, headers?: Record<string, string>) {
    const before = await resources();
    const answer = await create(body, headers);
    expect(await resources()).toEqual(before);
    return answer;
  }

  it.each(['{', '', 'name=x', '{"name": "plaintext-token'])('is a 400 where it is no JSON: %j', async (text) => {
    const { status, body, text: answer } = await refusal(text);

    expect(status).toBe(400);
    expect(body).toMatchObject({ code: 'malformed_json' });
    expect(answer).not.toContain('plaintext');
  });

  it.each(['text/plain', 'application/x-www-form-urlencoded', 'application/jsonp', ''])(
    'is a 415 where its type is %j',
    async (type) => {
      expect(await refusal(valid, { 'Content-Type': type })).toMatchObject({
        status: 415,
        body: { code: 'unsupported_media_type' },
      });
    },
  );

  it('is a 400 where its bytes are not UTF-8', async () => {
    const bytes = new TextEncoder().encode(JSON.stringify(valid));
    bytes[bytes.indexOf('T'.charCodeAt(0))] = 0xff;

    expect(await refusal(bytes)).toMatchObject({ status: 400, body: { code: 'malformed_json' } });
  });

  it('is taken as JSON with a charset', async () => {
    expect((await create(valid, { 'Content-Type': 'Application/JSON; charset=utf-8' })).status).toBe(201);
  });

  it('is a 413 where it is larger than 64 KiB, whether it says so or not', async () => {
    const large = JSON.stringify({ ...valid, name: 'x'.repeat(65 * 1024) });

    expect(await refusal(large)).toMatchObject({ status: 413, body: { code: 'payload_too_large' } });
    const exactly = JSON.stringify(valid).padEnd(64 * 1024);
    expect((await create(exactly)).status).toBe(201);
    expect((await refusal(`${exactly} `)).status).toBe(413);
  });

  it.each<[string, unknown, string[]]>([
    ['no object', [], ['']],
    ['null', null, ['']],
    ['empty', {}, ['name', 'credentials']],
    ['named with 0 characters', { ...valid, name: '' }, ['name']],
    ['named with 101 characters', { ...valid, name: 'x'.repeat(101) }, ['name']],
    ['named with a line break', { ...valid, name: 'a\nb' }, ['name']],
    ['named with NUL', { ...valid, name: '\0' }, ['name']],
    ['named with half a character', { ...valid, name: '\ud83d' }, ['name']],
    ['named with a number', { ...valid, name: 7 }, ['name']],
    ['with a surplus member', { ...valid, status: 'active' }, ['status']],
    ['of an unknown provider', { ...valid, credentials: apiKeyOf('acme') }, ['credentials.provider']],
    ['with credentials that are null', { ...valid, credentials: null }, ['credentials']],
    ['with credentials that are text', { ...valid, credentials: 'plaintext' }, ['credentials']],
    ['of no provider', { ...valid, credentials: { api_key: 'plaintext-key' } }, ['credentials.provider']],
    ['of the provider sip', { ...valid, credentials: apiKeyOf('sip') }, ['credentials.provider']],
    [
      'of a provider that every object has',
      { ...valid, credentials: apiKeyOf('constructor') },
      ['credentials.provider'],
    ],
    ['without a credential', { ...valid, credentials: { provider: 'telnyx' } }, ['credentials.api_key']],
    [
      'with an empty credential',
      { ...valid, credentials: { provider: 'telnyx', api_key: '' } },
      ['credentials.api_key'],
    ],
    [
      'with a credential of 257 characters',
      { ...valid, credentials: { provider: 'telnyx', api_key: 'x'.repeat(257) } },
      ['credentials.api_key'],
    ],
    [
      'with a surplus credential',
      { ...valid, credentials: { ...apiKeyOf('telnyx'), api_secret: 'plaintext' } },
      ['credentials.api_secret'],
    ],
    [
      'with an account SID of another form',
      { ...valid, credentials: { ...twilio, account_sid: 'AC123' } },
      ['credentials.account_sid'],
    ],
    ['with an account SID alone', { ...valid, credentials: { provider: 'twilio', account_sid: AC } }, ['credentials']],
    [
      'with half an API key',
      { ...valid, credentials: { provider: 'twilio', account_sid: AC, api_key_sid: SK } },
      ['credentials.api_key_secret'],
    ],
    [
      'with the other half of an API key, beside a token',
      { ...valid, credentials: { ...twilio, api_key_secret: 'plaintext' } },
      ['credentials.api_key_sid'],
    ],
    [
      'with an Account SID in place of an API key SID',
      { ...valid, credentials: { ...twilio, api_key_sid: AC, api_key_secret: 'plaintext' } },
      ['credentials.api_key_sid'],
    ],
    [
      'with a region that there is not',
      { ...valid, credentials: { ...twilio, region: 'us2' } },
      ['credentials.region'],
    ],
  ])('is a 422 where it is %s', async (_, body, paths) => {
    const { status, body: problem, text } = await refusal(body);

    expect(status).toBe(422);
    expect(problem).toMatchObject({
      code: 'validation_failed',
      errors: paths.map((path) => ({ path, message: expect.any(String) })),
    });
    expect(text).not.toContain('plaintext');
  });

  it('is told what is missing and what may be, without a value that was sent', async () => {
    const { body } = await refusal({ credentials: { provider: 'plaintext-provider' }, Name: 'plaintext-name' });

    expect(body).toMatchObject({
      detail:
        'The request is not valid: credentials.provider: must be one of twilio, telnyx, vonage, plivo; ' +
        '`Name` is not a known field; did you mean `name`?',
    });
  });
});
