import { expect, it } from 'vitest';
import { addKek, newestKek, newKekId, promoteNewest } from '../../../src/operator/keks/ring.ts';

const KEY = btoa('a KEK for tests, of 32 bytes, yes');
const added = 'k20301124T105850Z';
const later = 'k20301124T105851Z';
const ringOf = (current: string, ...ids: string[]) => ({
  current,
  keys: Object.fromEntries(ids.map((id) => [id, KEY])),
});

it.each([
  ['the current one of a ring that was written by hand, in any order', 'k2', ['k2', 'k1'], 'k2'],
  ['the current one, though ids of digits come first in any object', 'k1', ['7', 'k1'], 'k1'],
  ['the one that was added to it', 'k1', [added, 'k1'], added],
  ['the last of those that were added, in any order', added, [later, added, 'k9'], later],
  ['the current one, where it was added last', later, [later, added, 'k9'], later],
])('the newest KEK is %s', (_, current, ids, newest) => {
  expect(newestKek(ringOf(current, ...ids))).toBe(newest);
  expect(promoteNewest(ringOf(current, ...ids)).current).toBe(newest);
});

it('a KEK that is added now is the newest, and not current', () => {
  const ring = addKek(ringOf('k2', 'k2', 'k1'), newKekId());

  expect(Object.keys(ring.keys)).toEqual(['k2', 'k1', newestKek(ring)]);
  expect(ring.current).toBe('k2');
  expect(newestKek(ring)).not.toBe('k2');
});
