/** Many schedules of calls with keys that end (revocation.model.ts), and mutants that the same schedules must find. */
import { describe, expect, it } from 'vitest';
import { without } from '../bindings.ts';
import { schedules } from './revocation.model.ts';
import type { Mutant } from './revocation.model.ts';

const RUNS = 1000;
/** The gate runs the same each time; another seed runs others. */
const SEED = 20_261_128;
const TEST_MILLISECONDS = 3_600_000;

it(
  `a key that has ended changes nothing, and reads nothing 60 s later, in ${RUNS} schedules`,
  async () => {
    const { failure, seen, numRuns } = await schedules({ numRuns: RUNS, seed: SEED });

    expect(failure).toBeUndefined();
    expect(numRuns).toBe(RUNS);
    expect(seen.worstAge).toBeLessThanOrEqual(60);
    // So close that it is no slack of the model that keeps the bound.
    expect(seen.worstAge).toBeGreaterThan(55);
    expect(seen.byReplica).toBeGreaterThan(RUNS / 2);
    expect(seen.sentOn).toBeGreaterThan(RUNS / 4);
    expect(seen.stale).toBeGreaterThan(RUNS / 10);
    expect(seen.refusedReads).toBeGreaterThan(RUNS / 4);
    expect(seen.refusedMutations).toBeGreaterThan(RUNS / 10);
    expect(seen.actingMutations).toBeGreaterThan(RUNS / 10);
  },
  TEST_MILLISECONDS,
);

const withoutStatus = without(/"(?:api_keys|organizations)"\."status" = \?/g);

const mutants: [string, Mutant][] = [
  [
    'a deadline from the time of a replica’s answer, not from its heartbeat',
    {
      sql: (sql, { isReplica, clock }) =>
        isReplica ? sql.replace(/\(SELECT [^()]*"beat_at" FROM "heartbeats"[^()]*\)/, String(clock)) : sql,
    },
  ],
  ['a look-up whose no is ignored', { sql: (sql) => (/"is_alive"|LIMIT iif\(/.test(sql) ? withoutStatus(sql) : sql) }],
  [
    'a read that is released before the look-up of its key has said anything',
    {
      nearest: (original) => async (call, reads) => {
        // What the key's own organization is, it cannot know before.
        if ('organization_id' in call && call.organization_id === '') return original(call, reads);
        void original(call, {}).catch(() => {});
        const read = await original({ ...call, key: {} }, reads);
        // Else the call is an error: it is answered before its caller is known.
        delete call.key.lookup;
        return read;
      },
    },
  ],
  [
    'an entry in KV whose deadline counts from when it is read',
    { kv: (text, clock) => text.replace(/"deadline":\d+/, `"deadline":${clock + 56}`) },
  ],
  [
    'a deadline without allowance for clocks that are off',
    {
      sql: (sql, { isReplica }) =>
        isReplica ? sql.replace(/\(SELECT [^()]*"beat_at" FROM "heartbeats"[^()]*\)/, '($& + 4)') : sql,
    },
  ],
];

describe('the same schedules notice', () => {
  it.each(mutants)(
    '%s',
    async (_, mutant) => {
      const { failure } = await schedules({ numRuns: RUNS, seed: SEED }, mutant);

      expect(String(failure?.errorInstance)).toMatch(/after its key had ended|had something read/);
    },
    TEST_MILLISECONDS,
  );
});
