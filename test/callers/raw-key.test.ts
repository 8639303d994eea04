import { describe, expect, it } from 'vitest';
import { displayedPrefix, hashKey, isWellFormed, newRawKey } from '../../src/worker/callers/raw-key.ts';

describe('a raw key', () => {
  it('is bk_live_ and 56 base62 characters, never the same twice', () => {
    const keys = Array.from({ length: 100 }, newRawKey);

    for (const key of keys) expect(key).toMatch(/^bk_live_[0-9A-Za-z]{56}$/);
    expect(new Set(keys).size).toBe(100);
  });

  it('ends in the CRC-32 of all before, as computed by another hand', () => {
    const key = newRawKey();

    const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
    const stated = key
      .slice(-6)
      .split('')
      .reduce((value, digit) => value * 62 + digits.indexOf(digit), 0);
    let crc = 0xffffffff;
    for (const byte of new TextEncoder().encode(key.slice(0, -6))) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    }
    expect(stated).toBe((crc ^ 0xffffffff) >>> 0);
  });

  it('is well-formed as it is made', () => {
    expect(isWellFormed(newRawKey())).toBe(true);
  });

  it.each([
    ['a character is changed', (key: string) => key.slice(0, 20) + (key[20] === 'a' ? 'b' : 'a') + key.slice(21)],
    ['the checksum is changed', (key: string) => key.slice(0, -1) + (key.endsWith('0') ? '1' : '0')],
    ['it is cut short', (key: string) => key.slice(0, -1)],
    ['it is longer', (key: string) => `${key}0`],
    ['its prefix is another', () => `bk_test_${'a'.repeat(50)}3mgdDO`],
    ['it has white space around it', (key: string) => `${key}\n`],
    ['it is empty', () => ''],
  ])('is malformed where %s', (_, change) => {
    expect(isWellFormed(change(newRawKey()))).toBe(false);
  });

  it('is known by its SHA-256', async () => {
    // NIST's example for "abc" (FIPS 180-4).
    expect(await hashKey('abc')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  });

  it('is shown as its first twelve characters', () => {
    expect(displayedPrefix('bk_live_abcdefgh')).toBe('bk_live_abcd');
  });
});
