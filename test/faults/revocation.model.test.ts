/** Some schedules, the same each time: revocation.model.exhaustive.test.ts tries many others, and mutants. */
import { expect, it } from 'vitest';
import { schedules } from './revocation.model.ts';

const RUNS = 60;
const SEED = 20_261_128;

it(
  `a key that has ended changes nothing, and reads nothing 60 s later, in ${RUNS} schedules`,
  { timeout: 600_000 },
  async () => {
    const { failure, seen } = await schedules({ numRuns: RUNS, seed: SEED });

    expect(failure).toBeUndefined();
    // It has seen what it is about.
    expect(seen.byReplica).toBeGreaterThan(RUNS / 2);
    expect(seen.sentOn).toBeGreaterThan(RUNS / 4);
    expect(seen.refusedReads).toBeGreaterThan(RUNS / 4);
    expect(seen.refusedMutations).toBeGreaterThan(RUNS / 10);
    expect(seen.actingMutations).toBeGreaterThan(RUNS / 10);
  },
);
