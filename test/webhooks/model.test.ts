/** Some sequences, the same each time: model.exhaustive.test.ts tries many others. */
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { withoutBackOff } from '../faults/every-call.ts';
import { failureOf } from './model.ts';

const RUNS = 25;
const SEED = 20_261_128;

beforeEach(withoutBackOff);
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it(`delivers all events, and none that did not happen, in ${RUNS} sequences`, { timeout: 600_000 }, async () => {
  expect(await failureOf({ numRuns: RUNS, seed: SEED })).toBeUndefined();
});
