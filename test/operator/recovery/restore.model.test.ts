/** What is true of random sequences around a restore (sequences.ts), and which mutants they kill. */
import * as fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import type { ExportedRow } from '../../../src/operator/recovery/export.ts';
import { failureOf, prepare, run, SEED, sequences, TEST_MILLISECONDS } from './sequences.ts';
import type { Mutant } from './sequences.ts';

const RUNS = 5_000;

beforeEach(prepare);

it(
  `a replay ends again what had ended and loses nothing that lives, in ${RUNS} random sequences`,
  async () => {
    expect(await failureOf(RUNS)).toBeUndefined();
  },
  TEST_MILLISECONDS,
);

describe('the sequences alone kill, within 500 runs,', () => {
  const byId = (one: ExportedRow, next: ExportedRow) =>
    'event_id' in one && 'event_id' in next ? (one.event_id < next.event_id ? -1 : 1) : 0;

  it.each<[string, Mutant]>([
    [
      'a replay of the events in the order of their ids',
      (exported) =>
        exported.toSorted(byId).map((row, index) => ('event_id' in row ? { ...row, sequence: index + 1 } : row)),
    ],
    ['a replay without the removals that were owed', (exported) => exported.filter((row) => !('kv_key' in row))],
    [
      'a replay without what tells where numbers went',
      (exported) => exported.filter((row) => 'kv_key' in row || 'event_id' in row),
    ],
  ])(
    '%s',
    async (_, mutant) => {
      const { failed } = await fc.check(
        fc.asyncProperty(sequences, (sequence) => run(sequence, mutant)),
        { numRuns: 500, endOnFailure: true, seed: SEED },
      );

      expect(failed).toBe(true);
    },
    TEST_MILLISECONDS,
  );
});
