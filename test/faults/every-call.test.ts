/**
 * Every mutation, with every other kind of fault at one of the calls that it makes on a binding: faults and calls take
 * turns. every-call.exhaustive.test.ts goes through all of them.
 */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { asListed, assertWithstands, faults, referenceOf, subjects, withoutWaiting } from './every-call.ts';

const turns = faults.map((fault, turn) => ({ ...fault, turn }));
const numbered = subjects.map((subject, number) => ({ ...subject, number }));

beforeEach(withoutWaiting);

describe.each(numbered)('$name', ({ number, ...subject }) => {
  const itsTurns = turns.filter(({ turn }) => (turn + number) % 2 === 0);
  let reference: Awaited<ReturnType<typeof referenceOf>>;

  beforeAll(async () => {
    reference = await referenceOf(subject);
  });

  it.each(itsTurns)(
    'tells the client the truth and leaves nothing behind, where one of its calls $name',
    async ({ turn, ...fault }) => {
      expect(reference).toMatchObject(asListed(subject));

      await assertWithstands(subject, fault, Math.floor((turn + number) / 2) % reference.calls, reference);
    },
  );
});
