/** Some sequences of two organizations, the same each time: ownership.model.exhaustive.test.ts tries many others. */
import { beforeEach, expect, it, vi } from 'vitest';
import { emptyStorage } from '../fixtures.ts';
import { failureOf } from './ownership.model.ts';

const RUNS = 20;
const SEED = 20_261_127;

beforeEach(() => {
  for (const method of ['info', 'warn', 'error'] as const) vi.spyOn(console, method).mockImplementation(() => {});
});

it(`a number has one holder, as the model says, in ${RUNS} sequences`, { timeout: 600_000 }, async () => {
  expect(await failureOf({ numRuns: RUNS, seed: SEED }, emptyStorage)).toBeUndefined();
});
