import { and, eq, isNull, not } from 'drizzle-orm';
import { revokeRecorded } from '../../worker/api-keys/revoke.ts';
import { existsIn } from '../../worker/d1/columns.ts';
import type { Builder, Placeholders } from '../../worker/d1/query.ts';
import { api_keys, audit_events } from '../../worker/d1/schema.ts';
import { eventParameters } from '../../worker/decision/call.ts';
import type { EventParameters } from '../../worker/decision/call.ts';
import { assertNothingInDoubt, carryOut, eventRecorder, isOfBatch } from '../../worker/decision/event.ts';
import { operatorCall } from '../call.ts';

/**
 * Predicate: no try of this call has revoked anything yet. So a late try does not revoke keys that were created since.
 */
const isFirst = (db: Builder, parameters: Placeholders<EventParameters>) =>
  not(existsIn(db, audit_events, isOfBatch(parameters)));

/**
 * Only keys that have not ended, so that there are no more than the quota allows, however many ended ones there are.
 */
const recordRevocations = eventRecorder<EventParameters>({
  table: api_keys,
  target_id: api_keys.key_id,
  action: 'api_key.revoked',
  where: (db, parameters) =>
    and(
      eq(api_keys.organization_id, parameters.organization_id),
      eq(api_keys.status, 'active'),
      isNull(api_keys.ended_at),
      isFirst(db, parameters),
    ),
  many: true,
});

/**
 * Revokes every key of an organization that has not ended, in one batch, so that no key can create another meanwhile.
 * From the commit on the keys can change nothing. They can read until the caches have forgotten them, at most 60 s.
 *
 * @param request_id of the call that this is a part of
 * @returns how many keys it revoked
 * @throws DomainError `temporarily_unavailable`, also if there was no key to revoke and an earlier try may still find
 *   some
 */
export async function revokeAllKeys(
  database: D1Database,
  organization_id: string,
  request_id?: string,
): Promise<number> {
  const parameters = eventParameters(operatorCall(organization_id, request_id));
  const { count, inDoubt } = await carryOut(database, [recordRevocations, revokeRecorded], parameters);
  // Without an event, a late try could still revoke keys that are created from now on.
  if (count === 0) assertNothingInDoubt(inDoubt);
  return count;
}
