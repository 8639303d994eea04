/** Many random interleavings (model.ts), and a mutant that they must find. */
import { env } from 'cloudflare:workers';
import { beforeEach, expect, it } from 'vitest';
import { withoutBackOff } from './every-call.ts';
import { failureOf } from './model.ts';

const RUNS = 500;
/** The gate runs the same each time; another seed runs others. */
const SEED = 20_261_127;
const TEST_MILLISECONDS = 3_600_000;

beforeEach(withoutBackOff);

it(
  `answers random mutations as the model does, in ${RUNS} interleavings`,
  async () => {
    expect(await failureOf({ numRuns: RUNS, seed: SEED })).toBeUndefined();
  },
  TEST_MILLISECONDS,
);

it(
  'notices a sequence that is taken from the event’s id, which is made before the commit',
  async () => {
    const digit = (place: number) => `instr('123456789abcdef', substr(NEW.event_id, ${place}, 1))`;
    const milliseconds = [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13].reduce(
      (sum, place) => `(${sum} * 16 + ${digit(place)})`,
      '0',
    );
    await env.DB.prepare(
      `CREATE TRIGGER sequence_of_id AFTER INSERT ON audit_events BEGIN
         UPDATE audit_events SET sequence = ${milliseconds}, created_at = ${milliseconds} / 1000
         WHERE organization_id = NEW.organization_id AND event_id = NEW.event_id;
       END`,
    ).run();
    try {
      const failure = await failureOf({ numRuns: 100, seed: SEED });

      expect(String(failure?.errorInstance)).toContain('a reader has read');
    } finally {
      await env.DB.prepare('DROP TRIGGER sequence_of_id').run();
    }
  },
  TEST_MILLISECONDS,
);
