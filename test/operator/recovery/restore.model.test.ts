/** Some random sequences around a restore, the same each time: restore.model.exhaustive.test.ts goes on behind them. */
import { beforeEach, expect, it } from 'vitest';
import { failureOf, prepare } from './sequences.ts';

const RUNS = 50;

beforeEach(prepare);

it(
  `a replay ends again what had ended and loses nothing that lives, in ${RUNS} random sequences`,
  { timeout: 600_000 },
  async () => {
    expect(await failureOf(RUNS)).toBeUndefined();
  },
);
