import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import type { ActResult, NumberResult } from '../core/errors.ts';
import { idSchema } from '../core/ids.ts';
import { answer, answerUnlessKnown } from '../http/answer.ts';
import { newRoutes } from '../http/new-routes.ts';
import { detailOf } from '../http/problem.ts';
import { mutates, operatorMutates, operatorReads, reads, verifies, verifyQuery } from '../http/route.ts';
import { bulkDeletion, deletePhoneNumbers } from './bulk-delete.ts';
import { bulkChanges, updatePhoneNumbers } from './bulk-update.ts';
import { importPhoneNumbers, newPhoneNumbers } from './bulk.ts';
import { deletePhoneNumber } from './delete.ts';
import type { ImportOutcome } from './import-numbers.ts';
import { importPhoneNumber, newPhoneNumber } from './import.ts';
import { presentPhoneNumber, tagOf } from './phone-number.ts';
import { listPhoneNumbers, phoneNumbersQuery, readPhoneNumber } from './read.ts';
import { heldNumberQuery, numberToRelease, readHeldNumber, releasePhoneNumber } from './release.ts';
import type { Item } from './selection.ts';
import { phoneNumberChanges, updatePhoneNumber } from './update.ts';
import { verifyPhoneNumber } from './verify.ts';

const path = z.object({ phone_number_id: idSchema('phon') });

/** Of calls that may bring a number to an account. */
export const ownershipQuery = verifyQuery();

/** Of calls that act on many numbers. */
export const bulkQuery = z.lazy(() =>
  z.strictObject({
    verify: z.exactOptional(z.enum(['true', 'false'])),
    dry_run: z.exactOptional(z.enum(['true', 'false'])),
  }),
);

/** An inferred type would be that of the first alone, of which the second is a subtype: the typed client needs both. */
type ActedOr<DryRun> = Promise<Answered<Results> | Answered<Results & DryRun>>;
type Answered<Data> = ReturnType<typeof answer<{ success: boolean; message: string; data: Data }, 200>>;
interface Results {
  results: ActResult[];
}

const isDryRun = ({ dry_run }: z.output<typeof bulkQuery>) => dry_run === 'true';

export const phoneNumberRoutes = newRoutes()
  .post('/', mutates('phone_numbers:create', { query: ownershipQuery, body: newPhoneNumber }), async (c) => {
    const imported = await importPhoneNumber(c.get('call'), c.req.valid('json'), verifies(c.req.valid('query')));
    const message = `Phone number imported successfully with ${imported.provider}`;
    return answer(c, 201, { success: true, message, data: presentPhoneNumber(imported) }, { ETag: tagOf(imported) });
  })
  .post('/bulk', mutates('phone_numbers:create', { query: ownershipQuery, body: newPhoneNumbers }), async (c) => {
    const outcomes = await importPhoneNumbers(c.get('call'), c.req.valid('json'), verifies(c.req.valid('query')));
    const results = outcomes.map(({ phone_number, outcome }) => presentResult(phone_number, outcome));
    const count = results.filter(({ status }) => status === 'imported').length;
    if (count === 0) throw new DomainError('phone_numbers_not_imported', { data: { results } });
    const message = `${count} of ${results.length} phone numbers imported successfully`;
    return answer(c, 200, { success: true, message, data: { results } });
  })
  .post(
    '/bulk-update',
    mutates('phone_numbers:update', { query: bulkQuery, body: bulkChanges }),
    async (c): ActedOr<{ would_update: boolean }> => {
      const query = c.req.valid('query');
      const items = await updatePhoneNumbers(c.get('call'), c.req.valid('json'), verifies(query), isDryRun(query));
      const results = presentItems(items, 'updated');
      const would_update = isDone(results);
      if (isDryRun(query)) {
        const message = wouldBe(results, 'updated');
        return answer(c, 200, { success: true, message, data: { would_update, results } });
      }
      if (!would_update) throw new DomainError('phone_numbers_not_updated', { data: { results } });
      return answer(c, 200, { success: true, message: `${counted(results)} updated successfully`, data: { results } });
    },
  )
  .post(
    '/bulk-delete',
    mutates('phone_numbers:delete', { query: bulkQuery, body: bulkDeletion }),
    async (c): ActedOr<{ would_delete: boolean }> => {
      const query = c.req.valid('query');
      const items = await deletePhoneNumbers(c.get('call'), c.req.valid('json'), isDryRun(query));
      const results = presentItems(items, 'deleted');
      const would_delete = isDone(results);
      if (isDryRun(query)) {
        const message = wouldBe(results, 'deleted');
        return answer(c, 200, { success: true, message, data: { would_delete, results } });
      }
      if (!would_delete) throw new DomainError('phone_numbers_not_deleted', { data: { results } });
      return answer(c, 200, { success: true, message: `${counted(results)} deleted successfully`, data: { results } });
    },
  )
  .get('/', reads('phone_numbers:read', { query: phoneNumbersQuery }), async (c) => {
    const { rows, pagination } = await listPhoneNumbers(c.get('call'), c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentPhoneNumber), pagination });
  })
  .get('/:phone_number_id', reads('phone_numbers:read', { path }, { conditional: true }), async (c) => {
    const found = await readPhoneNumber(c.get('call'), c.req.valid('param').phone_number_id);
    return answerUnlessKnown(c, tagOf(found), { success: true, data: presentPhoneNumber(found) });
  })
  .put(
    '/:phone_number_id',
    mutates('phone_numbers:update', { path, query: ownershipQuery, body: phoneNumberChanges }, { conditional: true }),
    async (c) => {
      const { phone_number_id } = c.req.valid('param');
      const updated = await updatePhoneNumber(
        c.get('call'),
        phone_number_id,
        c.req.valid('json'),
        verifies(c.req.valid('query')),
      );
      const message = 'Phone number updated successfully';
      return answer(c, 200, { success: true, message, data: presentPhoneNumber(updated) }, { ETag: tagOf(updated) });
    },
  )
  .post('/:phone_number_id/verify', mutates('phone_numbers:update', { path }), async (c) => {
    const checked = await verifyPhoneNumber(c.get('call'), c.req.valid('param').phone_number_id);
    const message = 'Phone number checked successfully';
    return answer(c, 200, { success: true, message, data: presentPhoneNumber(checked) }, { ETag: tagOf(checked) });
  })
  .delete('/:phone_number_id', mutates('phone_numbers:delete', { path }, { conditional: true }), async (c) => {
    const data = await deletePhoneNumber(c.get('call'), c.req.valid('param').phone_number_id);
    return answer(c, 200, { success: true, message: 'Phone number deleted successfully', data });
  });

function presentResult(phone_number: string, outcome: ImportOutcome): NumberResult {
  return outcome instanceof DomainError
    ? { phone_number, status: 'failed', phone_number_id: null, code: outcome.code, detail: detailOf(outcome) }
    : { phone_number, status: 'imported', phone_number_id: outcome.phone_number_id, code: null, detail: null };
}

/** If one of them has a refusal, nothing is done with the others. */
function presentItems(items: readonly Item[], done: 'updated' | 'deleted'): ActResult[] {
  const status = items.every(({ refusal }) => refusal === null) ? done : 'not_done';
  return items.map(({ refusal, ...item }) =>
    refusal
      ? { ...item, status: 'failed', code: refusal.code, detail: detailOf(refusal) }
      : { ...item, status, code: null, detail: null },
  );
}

const isDone = (results: readonly ActResult[]) => results.every(({ status }) => status !== 'failed');

const counted = ({ length }: readonly unknown[]) => `${length} phone number${length === 1 ? '' : 's'}`;

const wouldBe = (results: readonly ActResult[], done: string) =>
  isDone(results) ? `${counted(results)} would be ${done}` : `No phone number would be ${done}`;

/** What operators do with phone numbers, whatever organization has them. */
export const operatorPhoneNumberRoutes = newRoutes()
  .get('/', operatorReads('organizations:read', { query: heldNumberQuery }), async (c) => {
    const data = await readHeldNumber(c.get('operatorCall'), c.req.valid('query').phone_number);
    return answer(c, 200, { success: true, data });
  })
  .post('/release', operatorMutates('numbers:release', { body: numberToRelease }), async (c) => {
    const data = await releasePhoneNumber(c.get('operatorCall'), c.req.valid('json'));
    return answer(c, 200, { success: true, message: 'Phone number released successfully', data });
  });
