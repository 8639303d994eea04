/** The second half of the sequences (restore.model.test.ts). */
import { beforeEach, expect, it } from 'vitest';
import { failureOf, prepare, TEST_MILLISECONDS } from './sequences.ts';

const RUNS = 2_500;

beforeEach(prepare);

it(
  `a replay ends again what had ended and loses nothing that lives, in ${RUNS} more random sequences`,
  async () => {
    expect(await failureOf(RUNS)).toBeUndefined();
  },
  TEST_MILLISECONDS,
);
