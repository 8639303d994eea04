/** Many random runs (late.model.ts), and mutants that they must find, with seeds that once found them. */
import { beforeEach, describe, expect, it } from 'vitest';
import { without } from '../bindings.ts';
import { withoutBackOff } from './every-call.ts';
import { failureOf } from './late.model.ts';
import type { Mutant } from './late.model.ts';

const RUNS = 300;
/** The gate runs the same each time; another seed runs others. */
const SEED = 20_261_127;
const TEST_MILLISECONDS = 3_600_000;

beforeEach(withoutBackOff);

it(
  `no late try of any batch brings back what was deleted, or loses a purge, in ${RUNS} random runs`,
  async () => {
    expect(await failureOf({ numRuns: RUNS, seed: SEED })).toBeUndefined();
  },
  TEST_MILLISECONDS,
);

const inStatement =
  (begins: RegExp, mutant: Mutant): Mutant =>
  (sql) =>
    begins.test(sql) ? mutant(sql) : sql;

const eventCondition = without(/not exists \(select 1 from "audit_events" where \([^()]*\)\)/g);
const intendedCondition = without(/"credential_purges"\."state" = \?/g);
/** As it was: whichever row of the outbox had no attempt was an intent, and no event was asked for. */
const oldInsert = inStatement(/^insert into "integrations"/, (sql) => intendedCondition(eventCondition(sql)));

describe('500 random runs notice', () => {
  it.each<[string, number, Mutant]>([
    ['an insert that takes what is owed for its intent', -588452121, oldInsert],
    [
      'a withdrawal that takes what is owed for its intent',
      -955382198,
      inStatement(/^delete from "credential_purges" where [^]*"audit_events"/, intendedCondition),
    ],
    [
      'a deletion that owes its purge in the form of an intent',
      434372749,
      (sql) =>
        inStatement(/^insert into "credential_purges" [^]* from "audit_events"/, (text) =>
          text.replace("'owed'", "'intended'"),
        )(inStatement(/^insert into "integrations"/, eventCondition)(sql)),
    ],
  ])(
    '%s',
    async (_, seed, mutant) => {
      const applied = new Set<string>();
      const noted: Mutant = (sql) => {
        const mutated = mutant(sql);
        if (mutated !== sql) applied.add(sql);
        return mutated;
      };
      const failure = await failureOf({ numRuns: 500, seed }, noted);

      expect(applied.size).toBeGreaterThan(0);
      expect(failure).toBeDefined();
    },
    TEST_MILLISECONDS,
  );
});
