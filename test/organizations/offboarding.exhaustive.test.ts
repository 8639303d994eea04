/** An offboarding of 25,000 rows, killed again and again, in the request and in the cron: the cron's turns alone end it. */
import { beforeEach, expect, it, vi } from 'vitest';
import { newOperator } from '../fixtures.ts';
import {
  assertEnded,
  belongings,
  filled,
  isUnderWay,
  killedBindings,
  newBystander,
  requestOffboarding,
  rowsIn,
  turn,
  turnsUntilEnded,
} from './offboardings.ts';

const SIZE = { numbers: 19_000, sip: 400, integrations: 2000, keys: 4000 };
/** A turn has 60 batches of 100 rows; the keys are one batch, behind all others. */
const TURNS = Math.ceil((SIZE.numbers + SIZE.integrations) / 6000) + 1;
const TEST_MILLISECONDS = 3_600_000;
/** Calls that the other tasks of a turn make before it comes to the offboarding, and those that an offboarding makes at most. */
const CALLS = 80;

beforeEach(() => {
  vi.spyOn(console, 'info').mockImplementation(() => {});
  vi.spyOn(console, 'error').mockImplementation(() => {});
  return () => vi.restoreAllMocks();
});

it.each([
  ['is not killed', 1, 1, 'before', 0],
  ['is killed early in each turn, before a call is carried out', 12, 7, 'before', 60],
  ['is killed early in each turn, after a call was carried out', 12, 5, 'after', 60],
  ['is killed anywhere in each turn, before a call is carried out', CALLS, 17, 'before', 60],
  ['is killed anywhere in each turn, after a call was carried out', CALLS, 23, 'after', 60],
] as const)(
  'ends with one event for each row, where it %s',
  async (_, range, step, when, mostKills) => {
    expect(rowsIn(SIZE)).toBe(25_000);
    const bystander = await newBystander();
    const before = await belongings(bystander);
    const operator = await newOperator();
    const client = await filled(SIZE);

    // Early in what goes on behind the answer, so that the cron has nearly everything to do.
    await requestOffboarding(operator, client, killedBindings({ call: 8, when }).bindings);
    expect(await isUnderWay(client)).toBe(true);
    let kills = 0;
    for (; kills < mostKills && (await isUnderWay(client)); kills += 1) {
      await turn(killedBindings({ call: 10 + (((kills + 1) * step) % range), when }).bindings);
    }
    const turns = await turnsUntilEnded(client, TURNS);

    expect(kills + turns).toBeGreaterThan(3);
    await assertEnded(operator, client, SIZE);
    expect(await belongings(bystander)).toEqual(before);
  },
  TEST_MILLISECONDS,
);
