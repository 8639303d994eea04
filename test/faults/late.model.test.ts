/** Some runs, the same each time: late.model.exhaustive.test.ts tries many others. */
import { beforeEach, expect, it } from 'vitest';
import { withoutBackOff } from './every-call.ts';
import { failureOf } from './late.model.ts';

const RUNS = 25;
const SEED = 20_261_127;

beforeEach(withoutBackOff);

it(
  `no late try of any batch brings back what was deleted, or loses a purge, in ${RUNS} random runs`,
  { timeout: 600_000 },
  async () => {
    expect(await failureOf({ numRuns: RUNS, seed: SEED })).toBeUndefined();
  },
);
