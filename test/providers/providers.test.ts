/** The form of each provider's credentials: what is complete is accepted, and what cannot be right is refused. */
import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { call, newClient, openCredentials, resources } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

const AC = 'AC0123456789abcdef0123456789abcdef';
const SK = 'SK0123456789abcdef0123456789abcdef';
const MA = 'MA0123456789ABCDEFGH';
const twilio = { provider: 'twilio', account_sid: AC };
const key = { api_key_sid: SK, api_key_secret: 'plaintext-key-secret' };
const auth_token = 'plaintext-token';
const vonage = { provider: 'vonage', api_key: 'abcd1234', api_secret: 'Secret12' };
const telnyx = { provider: 'telnyx', api_key: 'plaintext-key' };
const application_id = '7b1b5b2e-1c1d-4a3b-9a53-0123456789ab';

const create = (credentials: object) =>
  call(client, 'POST', '/api/integrations?verify=false', { body: { name: 'Complete', credentials } });

const created = z.object({ data: z.object({ integration_id: z.string() }) });
const problem = z.object({ errors: z.array(z.object({ path: z.string(), message: z.string() })) });

async function stored(credentials: object): Promise<unknown> {
  const { body, text } = await create(credentials);
  const { success, data } = created.safeParse(body);
  if (!success) throw new Error(text);
  return openCredentials(data.data.integration_id);
}

async function faults(credentials: object) {
  const before = await resources();
  const { status, body, text } = await create(credentials);
  expect(status).toBe(422);
  expect(text).not.toContain('plaintext');
  expect(await resources()).toEqual(before);
  return problem.parse(body).errors.map(({ path, message }) => `${path} ${message}`);
}

async function pemOf(algorithm: SubtleCryptoGenerateKeyAlgorithm, usages: string[]): Promise<string> {
  const pair = await crypto.subtle.generateKey(algorithm, true, usages);
  if (!('privateKey' in pair)) throw new Error('no pair');
  const der = await crypto.subtle.exportKey('pkcs8', pair.privateKey);
  if (!(der instanceof ArrayBuffer)) throw new Error('no bytes');
  const base64 = btoa(String.fromCharCode(...new Uint8Array(der)));
  return `-----BEGIN PRIVATE KEY-----\n${base64.replaceAll(/.{64}/g, '$&\n').trim()}\n-----END PRIVATE KEY-----\n`;
}

const rsa = (modulusLength = 2048) =>
  pemOf({ name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256', modulusLength, publicExponent: new Uint8Array([1, 0, 1]) }, [
    'sign',
    'verify',
  ]);

describe('credentials of twilio', () => {
  it.each([
    ['an Auth Token', { auth_token }],
    ['an API key', key],
    ['both', { auth_token, ...key }],
  ])('have %s', async (_, secrets) => {
    expect(await stored({ ...twilio, ...secrets })).toEqual({ ...twilio, ...secrets, region: 'us1' });
  });

  it.each(['us1', 'ie1', 'au1'])('are of a region: %s', async (region) => {
    expect(await stored({ ...twilio, auth_token, region })).toEqual({ ...twilio, auth_token, region });
  });

  it.each([
    [{}, 'credentials must have auth_token, or api_key_sid and api_key_secret, or all three'],
    [{ region: 'ie1' }, 'credentials must have auth_token, or api_key_sid and api_key_secret, or all three'],
    [{ api_key_sid: SK }, 'credentials.api_key_secret is required if api_key_sid is given'],
    [{ auth_token, api_key_sid: SK }, 'credentials.api_key_secret is required if api_key_sid is given'],
    [{ auth_token, api_key_secret: 'x' }, 'credentials.api_key_sid is required if api_key_secret is given'],
    [{ auth_token, region: 'us2' }, 'credentials.region must be one of us1, ie1, au1'],
  ])('are not complete, or not of twilio, with %j', async (others, fault) => {
    expect(await faults({ ...twilio, ...others })).toEqual([fault]);
  });
});

describe('a value in another’s field', () => {
  it.each([
    [
      { ...twilio, ...key, api_key_sid: AC },
      'credentials.api_key_sid must be SK followed by 32 hex digits: this is an Account SID; an API key SID begins with SK',
    ],
    [
      { ...twilio, auth_token, account_sid: SK },
      'credentials.account_sid must be AC followed by 32 hex digits: this is an API key SID; an Account SID begins with AC',
    ],
    [
      { provider: 'plivo', auth_id: AC, auth_token },
      'credentials.auth_id must be MA or SA followed by 18 of A–Z and 0–9: this is an Account SID; a Plivo Auth ID begins with MA or SA',
    ],
    [{ ...twilio, auth_token: AC }, 'credentials.auth_token must be the secret; this is an Account SID'],
    [{ ...twilio, auth_token: SK }, 'credentials.auth_token must be the secret; this is an API key SID'],
    [{ ...telnyx, api_key: MA }, 'credentials.api_key must be the secret; this is a Plivo Auth ID'],
    [{ ...vonage, signature_secret: MA }, 'credentials.signature_secret must be the secret; this is a Plivo Auth ID'],
  ])('is told what it is: %j', async (credentials, fault) => {
    expect(await faults(credentials)).toEqual([fault]);
  });
});

describe('credentials of telnyx', () => {
  it('may have the public key of webhooks', async () => {
    const public_key = btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(32))));

    expect(await stored({ ...telnyx, public_key })).toEqual({ ...telnyx, public_key });
    expect(await stored({ ...telnyx, public_key: null })).toEqual(telnyx);
  });

  it.each([31, 33, 0])('have no public key of %i bytes', async (length) => {
    const public_key = btoa(String.fromCharCode(...new Uint8Array(length)));

    expect(await faults({ ...telnyx, public_key })).toEqual(['credentials.public_key must be base64 of 32 bytes']);
  });
});

describe('credentials of vonage', () => {
  it('may have an application with its private key, as it is or with its line breaks as \\n', async () => {
    const private_key = await rsa();
    const complete = { ...vonage, application_id, private_key, signature_secret: 'plaintext-signature' };

    expect(await stored(complete)).toEqual(complete);
    expect(await stored({ ...complete, private_key: private_key.replaceAll('\n', '\\n') })).toEqual(complete);
    expect(await stored({ ...complete, private_key: private_key.replaceAll('\n', '\r\n') })).toEqual(complete);
    expect(await stored({ ...complete, private_key: private_key.trim() })).toEqual({
      ...complete,
      private_key: private_key.trim(),
    });
  });

  it('may have a private key of 4096 bits', async () => {
    const private_key = await rsa(4096);

    expect(await stored({ ...vonage, application_id, private_key })).toEqual({
      ...vonage,
      application_id,
      private_key,
    });
  });

  it('have both or neither', async () => {
    expect(await faults({ ...vonage, application_id })).toEqual([
      'credentials.private_key is required if application_id is given',
    ]);
    expect(await faults({ ...vonage, private_key: await rsa() })).toEqual([
      'credentials.application_id is required if private_key is given',
    ]);
  });

  it.each(['7b1b5b2e1c1d4a3b9a530123456789ab', 'app', `{${application_id}}`])(
    'have no application of the form %s',
    async (id) => {
      expect(await faults({ ...vonage, application_id: id, private_key: await rsa() })).toEqual([
        'credentials.application_id must be a UUID, as in the application’s settings',
      ]);
    },
  );

  const body = 'plaintext'.repeat(20);

  it.each([
    [`-----BEGIN RSA PRIVATE KEY-----\n${body}\n-----END RSA PRIVATE KEY-----`, 'must be in PKCS#8'],
    [`-----BEGIN ENCRYPTED PRIVATE KEY-----\n${body}\n-----END ENCRYPTED PRIVATE KEY-----`, 'must not be encrypted'],
    [`-----BEGIN PUBLIC KEY-----\n${body}\n-----END PUBLIC KEY-----`, 'must be the private key'],
    [`-----BEGIN PRIVATE KEY-----\n${body}\n-----END PRIVATE KEY-----`, 'must be an RSA key'],
    [`-----BEGIN PRIVATE KEY-----${body}-----END PRIVATE KEY-----`, 'must be a PKCS#8 PEM'],
    [`-----BEGIN PRIVATE KEY-----\n${'A'.repeat(4096)}\n-----END PRIVATE KEY-----`, 'must be a PKCS#8 PEM'],
    ['plaintext', 'must be a PKCS#8 PEM'],
    ['', 'must be a PKCS#8 PEM'],
  ])('have no private key like %.40j', async (private_key, message) => {
    const [fault] = await faults({ ...vonage, application_id, private_key });

    expect(fault).toContain(`credentials.private_key ${message}`);
  });

  it('have no private key of another kind than RSA', async () => {
    const private_key = await pemOf({ name: 'ECDSA', namedCurve: 'P-256' }, ['sign', 'verify']);

    expect(await faults({ ...vonage, application_id, private_key })).toEqual([
      'credentials.private_key must be an RSA key',
    ]);
  });
});

describe('credentials of plivo', () => {
  it.each([MA, 'SA0123456789ABCDEFGH'])('are of an account or a subaccount: %s', async (auth_id) => {
    const plivo = { provider: 'plivo', auth_id, auth_token };

    expect(await stored(plivo)).toEqual(plivo);
  });

  it.each(['MA0123456789abcdefgh', 'MA0123456789ABCDEFG', 'XA0123456789ABCDEFGH', '../Account'])(
    'are of no account %s',
    async (auth_id) => {
      expect(await faults({ provider: 'plivo', auth_id, auth_token })).toEqual([
        'credentials.auth_id must be MA or SA followed by 18 of A–Z and 0–9',
      ]);
    },
  );
});
