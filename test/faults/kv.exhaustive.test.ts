/** Many random interleavings of a revocation with stale answers of KV (kv.ts). */
import { afterEach, expect, it, vi } from 'vitest';
import { failureOf } from './kv.ts';

const RUNS = 200;
/** The gate runs the same each time; another seed runs others. */
const SEED = 20_261_127;

afterEach(() => {
  vi.useRealTimers();
});

it(
  `a revoked key changes nothing, and reads nothing 61 s later, whatever KV answers, in ${RUNS} random runs`,
  { timeout: 3_600_000 },
  async () => {
    expect(await failureOf({ numRuns: RUNS, seed: SEED })).toBeUndefined();
  },
);
