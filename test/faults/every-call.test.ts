/**
 * Every mutation, with every kind of fault at one of the calls that it makes on a binding: another call for each fault in
 * turn. every-call.exhaustive.test.ts goes through all of them.
 */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { mutations } from '../mutations.ts';
import { assertWithstands, faults, referenceOf, withoutWaiting } from './every-call.ts';

const turns = faults.map((fault, turn) => ({ ...fault, turn }));

beforeEach(withoutWaiting);

describe.each(mutations)('$name', (mutation) => {
  let reference: Awaited<ReturnType<typeof referenceOf>>;

  beforeAll(async () => {
    reference = await referenceOf(mutation);
  });

  it.each(turns)('is true and leaves nothing over where one of its calls $name', async ({ turn, ...fault }) => {
    expect(reference.status).toBe(mutation.status);

    await assertWithstands(mutation, fault, turn % reference.calls, reference);
  });
});
