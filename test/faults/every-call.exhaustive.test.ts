/** Every mutation, with every kind of fault at every call that it makes on a binding. */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { mutations } from '../mutations.ts';
import { assertWithstands, faults, referenceOf, withoutWaiting } from './every-call.ts';

let cases = 0;

beforeEach(withoutWaiting);

describe.each(mutations)('$name', (mutation) => {
  let reference: Awaited<ReturnType<typeof referenceOf>>;

  beforeAll(async () => {
    reference = await referenceOf(mutation);
  });

  it.each(faults)(
    'tells the client the truth and leaves nothing behind, whichever of its calls $name',
    async (fault) => {
      expect(reference.status).toBe(mutation.status);

      for (let failing = 0; failing < reference.calls; failing += 1) {
        cases += 1;
        await assertWithstands(mutation, fault, failing, reference);
      }
    },
  );
});

it('goes through every call of every mutation with every fault: 2,000 cases and more', async ({ annotate }) => {
  await annotate(`${cases} cases`);

  expect(cases).toBeGreaterThan(2000);
});
