import { and, isNull, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { BULK_CALL_MILLISECONDS } from '../core/deadlines.ts';
import { DomainError } from '../core/errors.ts';
import { purgeSome } from '../credentials/drain.ts';
import { credentialsKey } from '../credentials/kv-key.ts';
import { enqueuePurges } from '../credentials/outbox.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { phone_numbers } from '../d1/schema.ts';
import { withoutKey } from '../decision/call.ts';
import type { ApiCall } from '../decision/call.ts';
import { confirmAndRead, mayDecide } from '../decision/caller.ts';
import { eventRecorder } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import {
  actedOn,
  assertRefused,
  assertSelectable,
  eachWay,
  findOthers,
  findSource,
  isEachOfAll,
  isLeftUndone,
  isOneSelection,
  isRecorded,
  itemsOf,
  selectionFields,
  selectionParameters,
} from './selection.ts';
import type { Item, Selection, SelectionParameters, Selector } from './selection.ts';

export const bulkDeletion = z.lazy(() => z.strictObject(selectionFields()).check(isOneSelection()));

/** The rule: no number is deleted while one of them is assigned to an agent. */
const canBeDeleted = isNull(phone_numbers.assigned_agent_id);

const removeNumbers = query((db, parameters: Placeholders<SelectionParameters>) =>
  db.delete(phone_numbers).where(isRecorded(db, parameters)),
);

function deletionOf(selector: Selector) {
  const recordDeletions = eventRecorder<SelectionParameters>({
    table: phone_numbers,
    target_id: phone_numbers.phone_number_id,
    action: 'phone_number.deleted',
    where: (db, parameters) =>
      and(isEachOfAll(selector, db, parameters, canBeDeleted), mayDecide('phone_numbers:delete', db, parameters)),
    many: true,
    order: phone_numbers.phone_number,
    firstDecides: true,
  });

  const findNumbers = query((db, parameters: Placeholders<SelectionParameters>) =>
    db
      .select({
        phone_number_id: phone_numbers.phone_number_id,
        phone_number: phone_numbers.phone_number,
        assigned_agent_id: phone_numbers.assigned_agent_id,
        can_be_deleted: sql<number>`${canBeDeleted}`.as('can_be_deleted'),
      })
      .from(phone_numbers)
      .where(isLeftUndone(selector, db, parameters)),
  );

  const found = { source: findSource, numbers: findNumbers, others: findOthers };
  return {
    decide: mutation<SelectionParameters, typeof found>('phone_numbers:delete', {
      statements: [recordDeletions, enqueuePurges, removeNumbers],
      found,
      milliseconds: BULK_CALL_MILLISECONDS,
    }),
    found,
  };
}

const deletionBy = eachWay(deletionOf);

/**
 * Deletes phone numbers with their SIP credentials, all of them or none (docs/contract.md, Phone numbers).
 *
 * @param isDryRun whether to tell only what would come of it
 * @returns the numbers. None was deleted if one of them has a refusal: `phone_number_not_found` or `phone_number_assigned`
 * @throws DomainError `integration_not_found`, `too_many_references`, and the errors of every mutation
 *   (decision/mutation.ts)
 */
export async function deletePhoneNumbers(call: ApiCall, request: Selection, isDryRun: boolean): Promise<Item[]> {
  const acting = isDryRun ? withoutKey(call) : call;
  const deletion = deletionBy(request);
  const parameters = { ...mutationParameters(acting), ...selectionParameters(request) };
  if (isDryRun) return explain(request, await look(acting, deletion, parameters));
  const answer = await deletion.decide(acting, parameters);
  if (answer.outcome === 'undecided') {
    const items = explain(request, answer.found);
    assertRefused(items);
    return items;
  }
  const deleted = actedOn(answer);
  const kv_keys = deleted.flatMap(({ phone_number_id, credentials_version }) =>
    credentials_version === null ? [] : [credentialsKey(call.organization_id, phone_number_id, credentials_version)],
  );
  call.afterAnswer(() => purgeSome(call.env, kv_keys));
  return itemsOf(request, deleted, () => null);
}

/** What the batch that decides would find if it did nothing. D1 confirms the caller. */
const look = (call: ApiCall, { found }: ReturnType<typeof deletionOf>, parameters: SelectionParameters) =>
  confirmAndRead('phone_numbers:delete', call, parameters, {
    source: found.source.bind(parameters),
    numbers: found.numbers.bind(parameters),
  });

interface Found {
  source: { count: number }[];
  numbers: {
    phone_number_id: string;
    phone_number: string;
    assigned_agent_id: string | null;
    can_be_deleted: number;
  }[];
}

/**
 * What stands against each number, by what was found.
 *
 * @throws DomainError what stands against the call as a whole
 */
function explain(request: Selection, { source, numbers }: Found): Item[] {
  assertSelectable(request, source);
  return itemsOf(request, numbers, ({ can_be_deleted, assigned_agent_id }) =>
    can_be_deleted || assigned_agent_id === null
      ? null
      : new DomainError('phone_number_assigned', { assigned_agent_id }),
  );
}
