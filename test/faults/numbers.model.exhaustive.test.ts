/** Many interleavings of deletes that reassign or remove numbers, with all that can happen to those (model.ts). */
import { beforeEach, expect, it } from 'vitest';
import { withoutBackOff } from './every-call.ts';
import { failureOf, ofNumbers } from './model.ts';

const RUNS = 1_000;
/** The gate runs the same each time; another seed runs others. */
const SEED = 20_261_129;

beforeEach(withoutBackOff);

it(`loses no number and leaves none behind, whatever happens to integrations at once, in ${RUNS} interleavings`, async () => {
  expect(await failureOf({ numRuns: RUNS, seed: SEED }, ofNumbers)).toBeUndefined();
}, 3_600_000);
