/** Many random sequences (model.ts). */
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { withoutBackOff } from '../faults/every-call.ts';
import { failureOf } from './model.ts';

const RUNS = 120;
/** The gate runs the same each time; another seed runs others. */
const SEED = 20_261_129;

beforeEach(withoutBackOff);
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it(`delivers all events, and none that did not happen, in ${RUNS} sequences`, { timeout: 3_600_000 }, async () => {
  expect(await failureOf({ numRuns: RUNS, seed: SEED })).toBeUndefined();
});
