import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toIso, toUnix } from '../../src/worker/core/time.ts';

const LAST_SECOND_OF_9999 = 253_402_300_799;

describe('a time as clients see it', () => {
  it.each([
    [0, '1970-01-01T00:00:00Z'],
    [1_705_314_600, '2024-01-15T10:30:00Z'],
    [1_709_164_799, '2024-02-28T23:59:59Z'],
    [1_709_164_800, '2024-02-29T00:00:00Z'],
    [-1, '1969-12-31T23:59:59Z'],
    [LAST_SECOND_OF_9999, '9999-12-31T23:59:59Z'],
  ])('of %d is %s', (seconds, iso) => {
    expect(toIso(seconds)).toBe(iso);
  });

  it('is what Date says, whichever time was asked for before', () => {
    fc.assert(
      fc.property(fc.integer({ min: -50_000_000_000, max: LAST_SECOND_OF_9999 }), (seconds) => {
        expect(toIso(seconds)).toBe(new Date(seconds * 1000).toISOString().replace('.000Z', 'Z'));
        expect(toUnix(toIso(seconds))).toBe(seconds);
      }),
    );
  });

  it('that no Date can tell is an error each time', () => {
    expect(() => toIso(1e15)).toThrow(RangeError);
    expect(() => toIso(1e15)).toThrow(RangeError);
  });
});
