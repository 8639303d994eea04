/** Some interleavings, the same each time: numbers.model.exhaustive.test.ts tries 1,000 others. */
import { beforeEach, expect, it } from 'vitest';
import { withoutBackOff } from './every-call.ts';
import { failureOf, ofNumbers } from './model.ts';

const RUNS = 40;
const SEED = 20_261_128;

beforeEach(withoutBackOff);

it(
  `loses no number and leaves none behind, whatever happens to integrations at once, in ${RUNS} interleavings`,
  { timeout: 600_000 },
  async () => {
    expect(await failureOf({ numRuns: RUNS, seed: SEED }, ofNumbers)).toBeUndefined();
  },
);
