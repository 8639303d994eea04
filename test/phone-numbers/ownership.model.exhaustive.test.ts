/** Many sequences of two organizations that want the same numbers. */
import { beforeEach, expect, it, vi } from 'vitest';
import { emptyStorage } from '../fixtures.ts';
import { failureOf } from './ownership.model.ts';

const RUNS = 300;
/** The gate runs the same each time; another seed runs others. */
const SEED = 20_261_129;

beforeEach(() => {
  for (const method of ['info', 'warn', 'error'] as const) vi.spyOn(console, method).mockImplementation(() => {});
});

it(`a number has one holder, as the model says, in ${RUNS} sequences`, { timeout: 3_600_000 }, async () => {
  expect(await failureOf({ numRuns: RUNS, seed: SEED }, emptyStorage)).toBeUndefined();
});
