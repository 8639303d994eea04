import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { open } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { credentialsKey } from '../../src/worker/credentials/kv-key.ts';
import { countedBindings, failingBindings, interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  importNumber,
  newClient,
  resources,
  rows,
  start,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

const importing = (body: unknown, by = client, bindings = env) =>
  call(by, 'POST', '/api/phone-numbers?verify=false', { body, bindings });

const rowOf = async (phone_number: string) => {
  const row = (await rows('phone_numbers')).find((found) => found['phone_number'] === phone_number);
  if (!row) throw new Error('no row');
  return row;
};

describe('a number imported through an integration', () => {
  it('is answered as it is stored, to the character', async () => {
    const integration_id = await createIntegration(client);
    const phone_number = unusedNumber();

    const { status, text } = await importing({
      phone_number,
      provider: 'twilio',
      integration_id,
      supports_inbound: true,
    });

    const row = await rowOf(phone_number);
    const time = new Date(Number(row['created_at']) * 1000).toISOString().replace('.000Z', 'Z');
    expect(status).toBe(201);
    expect(text).toBe(
      `{"success":true,"message":"Phone number imported successfully with twilio","data":{"phone_number_id":` +
        `"${String(row['phone_number_id'])}","client_id":"${client.organization_id}","phone_number":"${phone_number}",` +
        `"provider":"twilio","integration_id":"${integration_id}","status":"free","assigned_agent_id":null,` +
        `"supports_inbound":true,"supports_outbound":false,"sip_trunk_name":null,"sip_username":null,` +
        `"sip_server_address":null,"sip_transport":null,"inbound_room_name":null,"media_encryption":null,` +
        `"ownership":"unconfirmed","created_at":"${time}","updated_at":"${time}"}}`,
    );
    expect(row).toMatchObject({ supports_inbound: 1, supports_outbound: 0 });
    expect(await actionsOn(String(row['phone_number_id']))).toEqual(['phone_number.imported']);
  });

  it.each([
    ['telnyx', { provider: 'telnyx', api_key: 'k' }],
    ['vonage', { provider: 'vonage', api_key: 'k', api_secret: 's' }],
    ['plivo', { provider: 'plivo', auth_id: 'MA0123456789ABCDEFGH', auth_token: 't' }],
  ])('may be of %s', async (provider, credentials) => {
    const integration_id = await createIntegration(client, credentials);

    const { status, body } = await importing({ phone_number: unusedNumber(), provider, integration_id });

    expect(status).toBe(201);
    expect(body).toMatchObject({ message: `Phone number imported successfully with ${provider}` });
  });

  it('is imported once where the answer of D1 is lost after the commit', async () => {
    const integration_id = await createIntegration(client);
    const phone_number = unusedNumber();
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: 'Network connection lost.', times: 1 });

    const { status } = await importing({ phone_number, provider: 'twilio', integration_id }, client, bindings);

    expect(status).toBe(201);
    expect(await actionsOn(String((await rowOf(phone_number))['phone_number_id']))).toEqual(['phone_number.imported']);
  });

  it('does not come back when it is deleted between a commit and the retry of its batch', async () => {
    const integration_id = await createIntegration(client);
    const phone_number = unusedNumber();
    let losses = 1;
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name !== 'DB.batch' || (losses -= 1) < 0) return result;
      await env.DB.prepare('DELETE FROM phone_numbers WHERE phone_number = ?').bind(phone_number).run();
      throw new Error('Network connection lost.');
    });

    const { status } = await importing({ phone_number, provider: 'twilio', integration_id }, client, bindings);

    expect(status).toBe(201);
    await expect(rowOf(phone_number)).rejects.toThrow('no row');
  });

  it('costs a warm isolate one batch', async () => {
    const integration_id = await createIntegration(client);
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'POST', '/api/phone-numbers?verify=false', {
      body: { phone_number: unusedNumber(), provider: 'twilio', integration_id },
      bindings,
    });
    await answer.settle();

    expect(calls).toEqual(['DB.batch']);
  });
});

describe('a number imported by SIP', () => {
  const sip = {
    provider: 'sip',
    supports_outbound: true,
    sip_trunk_name: 'Trunk',
    sip_username: 'user',
    sip_password: 'plaintext-password',
    sip_server_address: 'sip.example.com',
    sip_transport: 'tls',
    inbound_room_name: 'room',
    inbound_pin: '0042',
    media_encryption: 'require',
  };

  it('is answered without its credentials, which are kept as an integration’s are', async () => {
    const phone_number = unusedNumber();

    const { status, body, text } = await importing({ ...sip, phone_number });

    expect(status).toBe(201);
    const { sip_password, inbound_pin, ...visible } = sip;
    expect(body).toMatchObject({
      message: 'Phone number imported successfully with sip',
      data: { ...visible, integration_id: null, supports_inbound: false },
    });
    expect(text).not.toMatch(/password|pin/);
    const row = await rowOf(phone_number);
    const kv_key = credentialsKey(
      client.organization_id,
      String(row['phone_number_id']),
      String(row['credentials_version']),
    );
    const ciphertext = await env.CREDENTIALS.get(kv_key, 'arrayBuffer');
    if (!ciphertext) throw new Error('no ciphertext');
    const wrapped = { data_key: String(row['data_key']), kek_id: String(row['kek_id']) };
    const ring = await parseKekRing(env.CREDENTIALS_KEKS);
    expect(await open(ring, kv_key, wrapped, new Uint8Array(ciphertext))).toEqual({ sip_password, inbound_pin });
    expect(await rows('credential_purges')).toEqual([]);
  });

  it('has its defaults: neither inbound nor outbound, any transport, and encryption allowed', async () => {
    const { body } = await importing({ provider: 'sip', phone_number: unusedNumber() });

    expect(body).toMatchObject({
      data: {
        supports_inbound: false,
        supports_outbound: false,
        sip_transport: 'auto',
        media_encryption: 'allow',
        sip_username: null,
      },
    });
  });

  it.each(['auto', 'udp', 'tcp', 'tls'])('may have the transport %s', async (sip_transport) => {
    const phone_number = unusedNumber();

    expect(await importing({ provider: 'sip', phone_number, sip_transport })).toMatchObject({
      status: 201,
      body: { data: { sip_transport } },
    });
    expect(await rowOf(phone_number)).toMatchObject({ sip_transport });
  });

  it('stores nothing where there is no credential to store', async () => {
    const phone_number = unusedNumber();
    const { bindings, calls } = countedBindings();
    await call(client, 'GET', '/api/nothing');

    await call(client, 'POST', '/api/phone-numbers', { body: { provider: 'sip', phone_number }, bindings });

    expect(calls).toEqual(['DB.batch']);
    expect(await rowOf(phone_number)).toMatchObject({ credentials_version: null, data_key: null, kek_id: null });
  });

  it.each([
    ['sip_password', { sip_username: 'user', sip_password: 'plaintext-password' }],
    ['inbound_pin', { inbound_pin: '1234567890' }],
  ])('keeps %s alone', async (_, credentials) => {
    const phone_number = unusedNumber();

    expect((await importing({ provider: 'sip', phone_number, ...credentials })).status).toBe(201);
    expect((await rowOf(phone_number))['credentials_version']).toEqual(expect.any(String));
  });

  it.each([
    ['with a PIN of 3 characters', { inbound_pin: '123' }, 'inbound_pin'],
    ['with a PIN of 11 characters', { inbound_pin: '12345678901' }, 'inbound_pin'],
    ['with an unknown transport', { sip_transport: 'sctp' }, 'sip_transport'],
    ['with an unknown encryption', { media_encryption: 'maybe' }, 'media_encryption'],
    ['for outbound without a server', { supports_outbound: true }, 'sip_server_address'],
    ['with an integration', { integration_id: 'intg_000000000000' }, 'integration_id'],
  ])('is a 422 %s', async (_, members, path) => {
    const before = await resources();

    const { status, body } = await importing({ provider: 'sip', phone_number: unusedNumber(), ...members });

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: 'validation_failed', errors: [{ path }] });
    expect(await resources()).toEqual(before);
  });
});

describe('an import that is refused', () => {
  let integration_id: string;

  beforeEach(async () => {
    integration_id = await createIntegration(client);
  });

  async function refusal(members: object, by = client) {
    const before = await resources();
    const answer = await importing(
      { phone_number: unusedNumber(), provider: 'twilio', integration_id, ...members },
      by,
    );
    expect(await resources()).toEqual(before);
    return answer;
  }

  it.each([
    '14155550100',
    '+04155550100',
    '+141555',
    '+1234567890123456',
    '+1415555010O',
    '+1415 5550100',
    '',
    14155550100,
  ])('is a 422 where the number is %j', async (phone_number) => {
    expect(await refusal({ phone_number })).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'phone_number' }] },
    });
  });

  it.each([
    ['without an integration', { integration_id: undefined }, 'integration_id'],
    ['with a malformed integration id', { integration_id: 'intg_1' }, 'integration_id'],
    ['of an unknown provider', { provider: 'acme' }, 'provider'],
    ['with a member of SIP', { sip_username: 'user' }, 'sip_username'],
    ['with a flag that is no boolean', { supports_inbound: 1 }, 'supports_inbound'],
  ])('is a 422 %s', async (_, members, path) => {
    expect(await refusal(members)).toMatchObject({ status: 422, body: { errors: [{ path }] } });
  });

  it('is a 422 where the integration is of another provider', async () => {
    expect(await refusal({ provider: 'telnyx' })).toMatchObject({
      status: 422,
      body: { code: 'validation_failed', errors: [{ path: 'integration_id' }] },
    });
  });

  it('is one and the same 404 where the integration is missing and where it is another organization’s', async () => {
    const stranger = await newClient();

    const foreign = await refusal({}, stranger);
    const missing = await refusal({ integration_id: 'intg_000000000000' }, stranger);

    expect(foreign).toMatchObject({ status: 404, body: { code: 'integration_not_found' } });
    const withoutRequestId = (text: string) => text.replace(/"request_id":"[^"]*"/, '');
    expect(withoutRequestId(foreign.text)).toBe(withoutRequestId(missing.text));
  });

  it('is a 409 where the number exists, in this organization, in another, by SIP or not', async () => {
    const phone_number = unusedNumber();
    await importNumber(client, integration_id, phone_number);
    const stranger = await newClient();

    expect(await refusal({ phone_number })).toMatchObject({ status: 409, body: { code: 'phone_number_exists' } });
    const bySip = await refusal({ provider: 'sip', integration_id: undefined, phone_number }, stranger);
    expect(bySip).toMatchObject({ status: 409, body: { code: 'phone_number_exists' } });
    expect(bySip.text.replace(phone_number, '')).not.toContain(client.organization_id);
  });

  it.each([
    ['was revoked', `status = 'revoked'`, 401, 'invalid_api_key'],
    ['lost the permission', `role = 'user'`, 403, 'permission_denied'],
  ])('is so where the key, still cached, %s', async (_, change, expectedStatus, code) => {
    await env.DB.prepare(`UPDATE api_keys SET ${change} WHERE key_id = ?`).bind(client.key_id).run();

    expect(await refusal({})).toMatchObject({ status: expectedStatus, body: { code } });
  });

  it.each([
    ['this organization', async () => client],
    ['another', () => newClient()],
  ])('has stored no credentials where the number is held by %s', async (_, holder) => {
    const phone_number = unusedNumber();
    await importing({ provider: 'sip', phone_number, sip_username: 'user', sip_password: 'held' }, await holder());
    const withCredentials = {
      provider: 'sip',
      phone_number,
      sip_username: 'user',
      sip_password: 'plaintext-password',
      inbound_pin: '0042',
    };
    const before = await resources();
    const { bindings, calls } = countedBindings();

    for (const headers of [{}, { 'Idempotency-Key': 'taken' }]) {
      const { status, body } = await call(client, 'POST', '/api/phone-numbers', {
        body: withCredentials,
        headers,
        bindings,
      });
      expect({ status, body }).toMatchObject({ status: 409, body: { code: 'phone_number_exists' } });
    }

    expect(await resources()).toEqual(before);
    expect(calls).toEqual(['DB.batch', 'DB.batch', 'DB.batch', 'DB.batch']);
  });

  it('lets one of twelve simultaneous imports of a number win', async () => {
    const phone_number = unusedNumber();

    const answers = await Promise.all(
      Array.from({ length: 12 }, () => importing({ phone_number, provider: 'twilio', integration_id })),
    );

    expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([
      201,
      ...Array.from({ length: 11 }, () => 409),
    ]);
  });
});
