import { describe, expect, it } from 'vitest';
import { atOnce } from '../../src/worker/core/at-once.ts';

const turn = () => new Promise((resolve) => setTimeout(resolve, 0));

describe('at once', () => {
  it('acts on each item in its order, and on no more at a time than it may', async () => {
    const begun: number[] = [];
    let open = 0;
    let most = 0;
    await atOnce(3, new Set([1, 2, 3, 4, 5, 6, 7]), async (item) => {
      begun.push(item);
      most = Math.max(most, ++open);
      await turn();
      open -= 1;
    });
    expect(begun).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect({ most, open }).toEqual({ most: 3, open: 0 });
  });

  it('has nothing to do without items', async () => {
    await expect(atOnce(3, [], () => Promise.reject(new Error('called')))).resolves.toBeUndefined();
  });

  it('throws the first error, and begins nothing after it', async () => {
    const begun: number[] = [];
    const acts = atOnce(2, [1, 2, 3, 4, 5, 6], async (item) => {
      begun.push(item);
      await turn();
      if (item === 2) throw new Error('the second failed');
    });
    await expect(acts).rejects.toThrow('the second failed');
    const sofar = [...begun];
    await turn();
    await turn();
    expect(begun).toEqual(sofar);
    expect(begun.length).toBeLessThan(6);
  });
});
