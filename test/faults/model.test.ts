/** Some interleavings, the same each time: model.exhaustive.test.ts tries many others. */
import { beforeEach, expect, it } from 'vitest';
import { withoutBackOff } from './every-call.ts';
import { failureOf } from './model.ts';

const RUNS = 25;
const SEED = 20_261_127;

beforeEach(withoutBackOff);

it(`answers random mutations as the model does, in ${RUNS} interleavings`, { timeout: 600_000 }, async () => {
  expect(await failureOf({ numRuns: RUNS, seed: SEED })).toBeUndefined();
});
