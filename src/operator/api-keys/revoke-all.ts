import { and, eq, inArray, isNull, not } from 'drizzle-orm';
import {
  assertNothingInDoubt,
  countRecorded,
  eventsRecorder,
  isOfOperation,
  operatorEventParameters,
} from '../../worker/decision/event.ts';
import type { RecordParameters } from '../../worker/decision/event.ts';
import { batchOfGroups, bindEach, existsIn, query } from '../../worker/d1/query.ts';
import type { Builder, Placeholders } from '../../worker/d1/query.ts';
import { api_keys, audit_events } from '../../worker/d1/schema.ts';
import { isKeyOf } from '../../worker/api-keys/api-key.ts';

/** Predicate: no try of this operation has revoked anything yet, so that a late one leaves the keys that were made since. */
const isFirst = (db: Builder, parameters: Placeholders<RecordParameters>) =>
  not(existsIn(db, audit_events, isOfOperation(parameters)));

/** Of keys that have not ended: as many as the quota admits, however many have been dead for long. */
const recordRevocations = eventsRecorder<RecordParameters>(
  api_keys,
  api_keys.key_id,
  'api_key.revoked',
  (db, parameters) =>
    and(
      eq(api_keys.organization_id, parameters.organization_id),
      eq(api_keys.status, 'active'),
      isNull(api_keys.ended_at),
      isFirst(db, parameters),
    ),
);

/** Follows the events of an operation that revokes, in its batch. */
export const revokeRecorded = query((db, parameters: Placeholders<RecordParameters>) => {
  const recorded = db.select({ target_id: audit_events.target_id }).from(audit_events).where(isOfOperation(parameters));
  return db
    .update(api_keys)
    .set({ status: 'revoked' })
    .where(and(isKeyOf(parameters), inArray(api_keys.key_id, recorded)));
});

/**
 * Revokes every key of an organization that has not ended, in one batch, lest a living one make another meanwhile: they change
 * nothing from its commit on, and read nothing once the caches have forgotten them, 60 s later at most.
 *
 * @param request_id of what it is a part of
 * @returns how many keys it revoked
 * @throws DomainError `temporarily_unavailable`, also where there was no key to revoke and an earlier try may yet find some
 */
export async function revokeAllKeys(
  database: D1Database,
  organization_id: string,
  request_id: string = crypto.randomUUID(),
): Promise<number> {
  const operation = { ...operatorEventParameters(organization_id), request_id };
  const { results, inDoubt } = await batchOfGroups(database, [
    bindEach({ recordRevocations, revokeRecorded, countRecorded }, operation),
  ]);
  const count = results[0].countRecorded[0]?.count ?? 0;
  // It left no event, which would keep a try that is late from the keys that are made from now on.
  if (count === 0) assertNothingInDoubt(inDoubt);
  return count;
}
