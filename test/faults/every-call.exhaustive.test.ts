/** Every mutation, with every kind of fault at every call that it makes on a binding. */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { asListed, assertWithstands, faults, referenceOf, subjects, withoutWaiting } from './every-call.ts';

let cases = 0;

beforeEach(withoutWaiting);

describe.each(subjects)('$name', (subject) => {
  let reference: Awaited<ReturnType<typeof referenceOf>>;

  beforeAll(async () => {
    reference = await referenceOf(subject);
  });

  it.each(faults)(
    'tells the client the truth and leaves nothing behind, whichever of its calls $name',
    async (fault) => {
      expect(reference).toMatchObject(asListed(subject));

      for (let failing = 0; failing < reference.calls; failing += 1) {
        cases += 1;
        await assertWithstands(subject, fault, failing, reference);
      }
    },
  );
});

it('goes through every call of every mutation with every fault: 5,000 cases and more', async ({ annotate }) => {
  await annotate(`${cases} cases`);

  expect(cases).toBeGreaterThan(5000);
});
