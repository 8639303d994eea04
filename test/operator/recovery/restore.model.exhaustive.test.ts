/** What is true of many random sequences around a restore (sequences.ts), and which mutants they must find. */
import { beforeEach, describe, expect, it } from 'vitest';
import type { ExportedRow } from '../../../src/operator/recovery/export.ts';
import { failureOf, prepare } from './sequences.ts';
import type { Mutant } from './sequences.ts';

const RUNS = 5_000;
const TEST_MILLISECONDS = 3_600_000;

beforeEach(prepare);

it(
  `a replay ends again what had ended and loses nothing that lives, in ${RUNS} random sequences`,
  async () => {
    expect(await failureOf(RUNS)).toBeUndefined();
  },
  TEST_MILLISECONDS,
);

describe('500 random sequences notice', () => {
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
      expect(await failureOf(500, mutant)).toBeDefined();
    },
    TEST_MILLISECONDS,
  );
});
