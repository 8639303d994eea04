/** Many random interleavings of a revocation with stale answers of KV (kv.ts), others each time. */
import { afterEach, expect, it, vi } from 'vitest';
import { failureOf } from './kv.ts';

const RUNS = 200;

afterEach(() => {
  vi.useRealTimers();
});

it(
  `a revoked key changes nothing, and reads nothing 61 s later, whatever KV answers, in ${RUNS} random runs`,
  { timeout: 3_600_000 },
  async () => {
    expect(await failureOf({ numRuns: RUNS })).toBeUndefined();
  },
);
