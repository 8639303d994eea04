import { afterEach, describe, expect, it, vi } from 'vitest';
import { RecentMap } from '../../src/worker/core/recent-map.ts';

describe('a map of what is recent', () => {
  afterEach(() => vi.useRealTimers());

  it('forgets what has not been used for the longest time', () => {
    const map = new RecentMap<string, number>(2);
    map.set('one', 1);
    map.set('two', 2);
    map.get('one');

    map.set('three', 3);

    expect([map.get('one'), map.get('two'), map.get('three')]).toEqual([1, undefined, 3]);
  });

  it('has the newest value of a key, and forgets no other for it', () => {
    const map = new RecentMap<string, number>(2);
    map.set('one', 1);
    map.set('two', 2);

    map.set('two', 3);

    expect([map.get('one'), map.get('two')]).toEqual([1, 3]);
  });

  it('forgets what is deleted', () => {
    const map = new RecentMap<string, number>(2);
    map.set('one', 1);

    map.delete('one');

    expect(map.get('one')).toBeUndefined();
  });

  it('forgets after its time, however often it is used meanwhile', () => {
    vi.useFakeTimers();
    const map = new RecentMap<string, number>(2, 1000);
    map.set('one', 1);
    vi.advanceTimersByTime(999);
    expect(map.get('one')).toBe(1);

    vi.advanceTimersByTime(1);

    expect(map.get('one')).toBeUndefined();
  });
});
