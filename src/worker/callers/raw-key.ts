/**
 * The format of raw keys: `bk_live_` or, of an operator, `bk_operator_`; then 50 random base62 characters, and a checksum of
 * 6 characters, the base62 CRC-32 of all before them (docs/contract.md, API keys). With the checksum, a mistyped key is
 * refused without any I/O.
 */
import { customAlphabet } from 'nanoid';
import { sha256Hex } from '../core/sha-256.ts';

const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const RANDOM_LENGTH = 50;
const CHECKSUM_LENGTH = 6;
const DISPLAYED_LENGTH = 'xxxx'.length;

const randomCharacters = customAlphabet(BASE62, RANDOM_LENGTH);
const afterStart = /^[0-9A-Za-z]{56}$/;

/** How the raw keys of organizations, and those of operators, begin. */
export type KeyStart = 'bk_live_' | 'bk_operator_';

/** A new raw key with 297 random bits. Its owner sees it once, and it is not stored. */
export function newRawKey(start: KeyStart = 'bk_live_'): string {
  const unchecked = start + randomCharacters();
  return unchecked + checksum(unchecked);
}

/** Whether the start, the format and the checksum are right. */
export function isWellFormed(rawKey: string, start: KeyStart = 'bk_live_'): boolean {
  return (
    rawKey.startsWith(start) &&
    afterStart.test(rawKey.slice(start.length)) &&
    rawKey.slice(-CHECKSUM_LENGTH) === checksum(rawKey.slice(0, -CHECKSUM_LENGTH))
  );
}

/** Lower-case hex SHA-256: the only form in which a key is stored and cached. */
export function hashKey(rawKey: string): Promise<string> {
  return sha256Hex(rawKey);
}

/** The first characters of a key, which answers show: `bk_live_xxxx`. */
export function displayedPrefix(rawKey: string, start: KeyStart = 'bk_live_'): string {
  return rawKey.slice(0, start.length + DISPLAYED_LENGTH);
}

function checksum(text: string): string {
  let rest = crc32(text);
  let digits = '';
  for (let length = 0; length < CHECKSUM_LENGTH; length += 1) {
    digits = BASE62.charAt(rest % 62) + digits;
    rest = Math.floor(rest / 62);
  }
  return digits;
}

/** By bits: a table would make the bundle larger, and the text is short. It is ASCII. */
function crc32(text: string): number {
  let crc = -1;
  for (let index = 0; index < text.length; index += 1) {
    crc ^= text.charCodeAt(index);
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 && 0xedb88320);
  }
  return ~crc >>> 0;
}
