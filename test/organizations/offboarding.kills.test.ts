/**
 * An offboarding of a few hundred rows, killed at every call that it makes on a binding, before and after the call is carried
 * out: the cron ends it. offboarding.exhaustive.test.ts does so with 25,000 rows.
 */
import { beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { interceptedBindings } from '../bindings.ts';
import { emptyStorage, newOperator } from '../fixtures.ts';
import type { Client, Operator } from '../fixtures.ts';
import {
  assertEnded,
  belongings,
  filled,
  isUnderWay,
  killedBindings,
  newBystander,
  requestOffboarding,
  turn,
  turnsUntilEnded,
} from './offboardings.ts';

const SIZE = { numbers: 215, sip: 5, integrations: 4, keys: 12 };
/** One for what was asked again of it, and one that finds nothing left. */
const MOST_TURNS = 2;

let operator: Operator;

beforeAll(async () => {
  operator = await newOperator();
});

beforeEach(() => {
  vi.spyOn(console, 'info').mockImplementation(() => {});
  vi.spyOn(console, 'error').mockImplementation(() => {});
  return () => vi.restoreAllMocks();
});

/** An offboarding that has been begun, and no more. */
async function begun(): Promise<Client> {
  const client = await filled(SIZE);
  let isDecided = false;
  const bindings = interceptedBindings(async (_, carryOut, { statements }) => {
    if (isDecided) throw new Error('SQLITE_ABORT: killed');
    const result = await carryOut();
    isDecided = statements.some(({ sql }) => sql.startsWith('update "organizations"'));
    return result;
  });
  expect((await requestOffboarding(operator, client, bindings)).status).toBe(202);
  expect(await isUnderWay(client)).toBe(true);
  return client;
}

const kills = (calls: number) =>
  Array.from({ length: calls }, (_, index) => index).flatMap((killed) =>
    (['before', 'after'] as const).map((when) => ({ call: killed, when })),
  );

describe('an offboarding', () => {
  it('that is killed at any call of the request, or behind its answer, is begun wholly or not at all, and the cron ends it', async () => {
    const whole = killedBindings(undefined);
    await requestOffboarding(operator, await filled(SIZE), whole.bindings);
    const bystander = await newBystander();
    const before = await belongings(bystander);

    let ended = 0;
    for (const kill of kills(whole.calls())) {
      const client = await filled(SIZE);
      const answer = await requestOffboarding(operator, client, killedBindings(kill).bindings);
      if (await isUnderWay(client)) await turnsUntilEnded(client, MOST_TURNS);
      // A client that has heard of nothing asks again.
      const last = answer.status === 202 ? answer : await requestOffboarding(operator, client);
      expect(last.status).toBe(202);
      await assertEnded(operator, client, SIZE);
      ended += 1;
    }

    expect(ended).toBeGreaterThan(20);
    expect(await belongings(bystander)).toEqual(before);
  });

  it('that is killed at any call of the cron ends by its next turns', async () => {
    await emptyStorage();
    operator = await newOperator();
    const whole = killedBindings(undefined);
    await begun();
    await turn(whole.bindings);
    const bystander = await newBystander();
    const before = await belongings(bystander);

    let ended = 0;
    for (const kill of kills(whole.calls())) {
      const client = await begun();
      await turn(killedBindings(kill).bindings);
      await turnsUntilEnded(client, MOST_TURNS);
      await assertEnded(operator, client, SIZE);
      ended += 1;
    }

    expect(ended).toBeGreaterThan(20);
    expect(await belongings(bystander)).toEqual(before);
  });

  it('may be asked for again at any call of the cron', async () => {
    await emptyStorage();
    operator = await newOperator();
    const whole = killedBindings(undefined);
    await begun();
    await turn(whole.bindings);

    for (let asked = 0; asked < whole.calls(); asked += 1) {
      const client = await begun();
      let calls = 0;
      const answers: number[] = [];
      await turn(
        interceptedBindings(async (_, carryOut) => {
          calls += 1;
          if (calls === asked + 1) answers.push((await requestOffboarding(operator, client)).status);
          return carryOut();
        }),
      );
      expect(answers).toEqual([202]);
      await turnsUntilEnded(client, MOST_TURNS);
      await assertEnded(operator, client, SIZE);
    }
  });

  it('may go on in several places at once, beside that of another organization', async () => {
    const [one, other] = [await filled(SIZE), await filled(SIZE)];

    const answers = await Promise.all([one, other, one, other].map((client) => requestOffboarding(operator, client)));
    await Promise.all([turn(), turn(), turn()]);

    expect(answers.map(({ status }) => status)).toEqual([202, 202, 202, 202]);
    for (const client of [one, other]) {
      await turnsUntilEnded(client, MOST_TURNS);
      await assertEnded(operator, client, SIZE);
    }
  });

  it('is a share of each turn where there are more than a turn continues, and the others come after them', async () => {
    await emptyStorage();
    operator = await newOperator();
    const clients: Client[] = [];
    for (let count = 0; count < 11; count += 1) clients.push(await begun());

    await turn();
    const afterOne = await Promise.all(clients.map(isUnderWay));
    for (const client of clients) await turnsUntilEnded(client, MOST_TURNS);

    expect(afterOne.filter(Boolean)).toHaveLength(1);
    for (const client of clients) await assertEnded(operator, client, SIZE);
  });

  it('goes on though that of another organization fails', async () => {
    await emptyStorage();
    operator = await newOperator();
    const [broken, other] = [await begun(), await begun()];
    const bindings = interceptedBindings((_, carryOut, { statements }) => {
      if (statements.some(({ values }) => values.includes(broken.organization_id))) {
        throw new Error('SQLITE_CORRUPT: of this organization alone');
      }
      return carryOut();
    });

    await turn(bindings);
    await turn(bindings);

    expect(await isUnderWay(broken)).toBe(true);
    await assertEnded(operator, other, SIZE);
    await turnsUntilEnded(broken, MOST_TURNS);
    await assertEnded(operator, broken, SIZE);
  });
});
