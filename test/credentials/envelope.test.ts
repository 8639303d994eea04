import { describe, expect, it } from 'vitest';
import { open, seal } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { credentialsKey } from '../../src/worker/credentials/kv-key.ts';

const kek = (fill: number) => btoa(String.fromCharCode(...new Uint8Array(32).fill(fill)));
const ringOf = (current: string, keys: Record<string, string>) => parseKekRing(JSON.stringify({ current, keys }));
const place = credentialsKey('org_a', 'intg_a1b2c3d4e5f6', 'v');
const credentials = { provider: 'telnyx', api_key: 'plaintext-key' };

const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

describe('sealed credentials', () => {
  it('open at their place with their data key', async () => {
    const ring = await ringOf('k1', { k1: kek(1) });

    const { ciphertext, ...wrapped } = await seal(ring, place, credentials);

    expect(await open(ring, place, wrapped, ciphertext)).toEqual(credentials);
    expect(wrapped.kek_id).toBe('k1');
  });

  it('open after another key has become the current one', async () => {
    const { ciphertext, ...wrapped } = await seal(await ringOf('k1', { k1: kek(1) }), place, credentials);

    const rotated = await ringOf('k2', { k1: kek(1), k2: kek(2) });

    expect(await open(rotated, place, wrapped, ciphertext)).toEqual(credentials);
    expect(await seal(rotated, place, credentials)).toMatchObject({ kek_id: 'k2' });
  });

  it('are other bytes each time, in ciphertext and data key', async () => {
    const ring = await ringOf('k1', { k1: kek(1) });

    const [first, second] = [await seal(ring, place, credentials), await seal(ring, place, credentials)];

    expect(hex(first.ciphertext)).not.toBe(hex(second.ciphertext));
    expect(first.data_key).not.toBe(second.data_key);
    expect(hex(first.ciphertext.subarray(0, 12))).not.toBe(hex(second.ciphertext.subarray(0, 12)));
  });

  it('have a nonce, the text’s length and a tag, and the data key likewise', async () => {
    const { ciphertext, data_key } = await seal(await ringOf('k1', { k1: kek(1) }), place, credentials);

    expect(ciphertext.length).toBe(12 + JSON.stringify(credentials).length + 16);
    expect(atob(data_key).length).toBe(12 + 32 + 16);
  });

  it.each([
    ['another organization', credentialsKey('org_b', 'intg_a1b2c3d4e5f6', 'v')],
    ['another integration', credentialsKey('org_a', 'intg_000000000000', 'v')],
    ['another version', credentialsKey('org_a', 'intg_a1b2c3d4e5f6', 'w')],
  ])('do not open in %s', async (_, elsewhere) => {
    const ring = await ringOf('k1', { k1: kek(1) });
    const { ciphertext, ...wrapped } = await seal(ring, place, credentials);

    await expect(open(ring, elsewhere, wrapped, ciphertext)).rejects.toThrow();
  });

  it('do not open with another version’s data key, nor does a data key open elsewhere', async () => {
    const ring = await ringOf('k1', { k1: kek(1) });
    const mine = await seal(ring, place, credentials);
    const elsewhere = credentialsKey('org_a', 'intg_000000000000', 'v');
    const other = await seal(ring, elsewhere, credentials);

    await expect(open(ring, place, other, mine.ciphertext)).rejects.toThrow();
    await expect(open(ring, elsewhere, mine, other.ciphertext)).rejects.toThrow();
    await expect(open(ring, place, mine, other.ciphertext)).rejects.toThrow();
  });

  it.each([0, 12, -1])('do not open with the byte at %i changed', async (at) => {
    const ring = await ringOf('k1', { k1: kek(1) });
    const { ciphertext, ...wrapped } = await seal(ring, place, credentials);
    const index = at < 0 ? ciphertext.length + at : at;
    ciphertext[index] = (ciphertext[index] ?? 0) ^ 1;

    await expect(open(ring, place, wrapped, ciphertext)).rejects.toThrow();
  });

  it('do not open with another key of the same name, nor without their key', async () => {
    const { ciphertext, ...wrapped } = await seal(await ringOf('k1', { k1: kek(1) }), place, credentials);

    await expect(open(await ringOf('k1', { k1: kek(2) }), place, wrapped, ciphertext)).rejects.toThrow();
    await expect(open(await ringOf('k2', { k2: kek(1) }), place, wrapped, ciphertext)).rejects.toThrow('no key k1');
  });
});

describe('the ring', () => {
  it.each([
    ['no JSON', 'plaintext'],
    ['of another form', '{"k1": "plaintext"}'],
    ['without its current key', JSON.stringify({ current: 'k2', keys: { k1: kek(1) } })],
    ['with a current key that every object has', JSON.stringify({ current: 'toString', keys: { k1: kek(1) } })],
    ['with a key that is no base64', JSON.stringify({ current: 'k1', keys: { k1: 'plain-text!' } })],
    ['with a key of 16 bytes', JSON.stringify({ current: 'k1', keys: { k1: btoa('plaintext-16-byt') } })],
  ])('is refused where the secret is %s, without a word of it', async (_, secret) => {
    const error = await parseKekRing(secret).catch((thrown: unknown) => thrown);

    expect(error).toMatchObject({ message: expect.stringMatching(/^CREDENTIALS_KEKS is not /) });
    expect(String(error)).not.toContain('plain');
  });
});
