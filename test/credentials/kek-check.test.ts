/** Key-encryption keys are known by more than their names; what opens credentials does not stay in memory. */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { open, rewrap, seal } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { rewrapDataKeys } from '../../src/worker/credentials/rewrap.ts';
import { countedBindings } from '../bindings.ts';
import {
  call,
  changeKey,
  createIntegration,
  newClient,
  openCredentials,
  resources,
  rowOf,
  rows,
  twilio,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { sip } from '../mutations.ts';

const bytes = (text: string) => btoa(text.padEnd(32, '.'));
const ring = (current: string, keys: Record<string, string>) => JSON.stringify({ current, keys });
const poolKey = bytes('a test KEK').replace(/^.*$/s, () => Buffer.alloc(32, 'a test KEK').toString('base64'));

let client: Client;
let errors: unknown[];

beforeEach(async () => {
  client = await newClient();
  errors = [];
  vi.spyOn(console, 'info').mockImplementation(() => {});
  vi.spyOn(console, 'error').mockImplementation((line) => void errors.push(JSON.parse(String(line))));
});

afterEach(() => vi.restoreAllMocks());

const isMismatch = expect.objectContaining({ event: 'kek_mismatch' });

/** Everything that holds credentials of this organization, or names some. */
async function stored() {
  const { integrations, phone_numbers, credential_purges, CREDENTIALS } = await resources();
  return { integrations, phone_numbers, credential_purges, CREDENTIALS };
}

describe('a key-encryption key', () => {
  it('is known by a check value once it has wrapped, which is no plain hash of it', async () => {
    await createIntegration(client);

    const known = (await rows('key_encryption_keys')).find((row) => row['kek_id'] === 'k1');
    expect(known).toMatchObject({ kek_id: 'k1', check_value: expect.stringMatching(/^[A-Za-z0-9+/]{43}=$/) });
    const plain = await crypto.subtle.digest('SHA-256', Buffer.from(poolKey, 'base64'));
    expect(known?.['check_value']).not.toBe(Buffer.from(plain).toString('base64'));
  });

  it.each([
    ['a creation', 'POST', '/api/integrations', () => ({ name: 'Other bytes', credentials: twilio })],
    ['an import', 'POST', '/api/phone-numbers', () => sip()],
    ['an update', 'PUT', '/api/integrations/{id}', () => ({ credentials: twilio })],
  ])('of other bytes than its name is known by seals nothing: %s', async (_, method, path, body) => {
    const integration_id = await createIntegration(client);
    const before = await stored();
    const bindings = { ...env, CREDENTIALS_KEKS: ring('k1', { k1: bytes('other bytes') }) };

    const answer = await call(client, method, path.replace('{id}', integration_id), { body: body(), bindings });

    expect(answer).toMatchObject({ status: 503, body: { code: 'temporarily_unavailable', outcome: 'not_done' } });
    expect(await stored()).toEqual(before);
    expect(errors).toContainEqual({ event: 'kek_mismatch', kek_id: 'k1' });
    expect(JSON.stringify(errors)).not.toContain(bytes('other bytes'));
    expect(await openCredentials(integration_id)).toEqual(twilio);
  });

  it('is not known by what a refused request would have wrapped', async () => {
    await call(client, 'GET', '/api/nothing');
    const bindings = {
      ...env,
      CREDENTIALS_KEKS: ring('k_refused', { k_refused: bytes('a key of a refused request') }),
    };
    const create = () =>
      call(client, 'POST', '/api/integrations', { body: { name: 'x', credentials: twilio }, bindings });
    const limit = (value: number | null) =>
      env.DB.prepare('UPDATE organizations SET max_integrations = ? WHERE organization_id = ?')
        .bind(value, client.organization_id)
        .run();
    const isKnown = async () => (await rows('key_encryption_keys')).some(({ kek_id }) => kek_id === 'k_refused');

    await limit(0);
    expect((await create()).status).toBe(409);
    expect(await isKnown()).toBe(false);

    await limit(null);
    await changeKey(client, `status = 'revoked'`);
    expect((await create()).status).toBe(401);
    expect(await isKnown()).toBe(false);
  });

  it('of other bytes is no business of a caller whose key is dead', async () => {
    await createIntegration(client);
    await changeKey(client, `status = 'revoked'`);
    const bindings = { ...env, CREDENTIALS_KEKS: ring('k1', { k1: bytes('other bytes') }) };

    const answer = await call(client, 'POST', '/api/integrations', {
      body: { name: 'x', credentials: twilio },
      bindings,
    });

    expect(answer).toMatchObject({ status: 401, body: { code: 'invalid_api_key' } });
  });

  it('is checked for itself: another one of the same ring seals', async () => {
    await createIntegration(client);
    const CREDENTIALS_KEKS = ring('k_new', { k1: bytes('other bytes'), k_new: bytes('a new key') });

    const { status } = await call(client, 'POST', '/api/integrations', {
      body: { name: 'New', credentials: twilio },
      bindings: { ...env, CREDENTIALS_KEKS },
    });

    expect(status).toBe(201);
    expect(errors).toEqual([]);
  });

  it('costs no trip of its own', async () => {
    await call(client, 'GET', '/api/nothing');
    const { bindings, calls } = countedBindings();

    await call(client, 'POST', '/api/integrations', { body: { name: 'New', credentials: twilio }, bindings });

    expect(calls).toEqual(['DB.batch', 'provider.fetch', 'CREDENTIALS.put', 'DB.batch']);
  });

  it('of other bytes wraps no data key anew', async () => {
    const integration_id = await createIntegration(client);
    const before = await rowOf('integrations', integration_id);
    const rotated = { k1: poolKey, k_rotated: bytes('the rotated key') };
    await rewrapDataKeys({ ...env, CREDENTIALS_KEKS: ring('k_rotated', rotated) });
    const wrapped = await rowOf('integrations', integration_id);
    expect(wrapped['kek_id']).toBe('k_rotated');

    await rewrapDataKeys({ ...env, CREDENTIALS_KEKS: ring('k1', { ...rotated, k1: bytes('other bytes') }) });

    expect(await rowOf('integrations', integration_id)).toEqual(wrapped);
    expect(errors).toContainEqual(isMismatch);
    await rewrapDataKeys({ ...env, CREDENTIALS_KEKS: ring('k1', rotated) });
    expect(await rowOf('integrations', integration_id)).toMatchObject({ kek_id: before['kek_id'] });
  });
});

describe('a ring', () => {
  it.each([
    ['a key of all zeros', ring('k1', { k1: btoa('\0'.repeat(32)) }), 'the key k1 is all zeros'],
    [
      'two keys that are the same',
      ring('k1', { k1: bytes('same'), k2: bytes('other'), k3: bytes('same') }),
      'k1 and k3 are the same key',
    ],
  ])('with %s is refused, and told by names alone', async (_, secret, message) => {
    const error: unknown = await parseKekRing(secret).catch((thrown: unknown) => thrown);

    expect(String(error)).toContain(message);
    expect(String(error)).not.toContain(bytes('same'));
  });
});

describe('a data key', () => {
  const kv_key = 'v1/org_a/intg_0123456789ab/version';
  const isZero = (buffer: ArrayBufferLike) => new Uint8Array(buffer).every((byte) => byte === 0);

  it('is overwritten once it has sealed', async () => {
    const made: ArrayBufferLike[] = [];
    const random = crypto.getRandomValues.bind(crypto);
    vi.spyOn(crypto, 'getRandomValues').mockImplementation((array) => {
      if (array && array.byteLength === 32) made.push(array.buffer);
      return random(array);
    });

    await seal(await parseKekRing(env.CREDENTIALS_KEKS), kv_key, { secret: 'plaintext' });

    expect(made.map(isZero)).toEqual([true]);
  });

  it.each(['rewrap', 'open'] as const)('is overwritten once it was unwrapped: %s', async (act) => {
    const kekRing = await parseKekRing(env.CREDENTIALS_KEKS);
    const { ciphertext, ...wrapped } = await seal(kekRing, kv_key, { secret: 'plaintext' });
    const unwrapped: ArrayBuffer[] = [];
    const decrypt = crypto.subtle.decrypt.bind(crypto.subtle);
    vi.spyOn(crypto.subtle, 'decrypt').mockImplementation(async (...parameters) => {
      const text = await decrypt(...parameters);
      if (text.byteLength === 32) unwrapped.push(text);
      return text;
    });

    if (act === 'rewrap') await rewrap(kekRing, kv_key, wrapped);
    else await open(kekRing, kv_key, wrapped, ciphertext);

    expect(unwrapped.map(isZero)).toEqual([true]);
  });
});
