import { and, eq, isNull, not, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { api_keys, audit_events } from '../d1/schema.ts';
import type { EventParameters, OperatorCall } from '../decision/call.ts';
import { eventRecorder, isOfBatch } from '../decision/event.ts';
import { isOfBatchOf } from '../decision/mutation.ts';
import { decisiveEvent, mayOperate, operatorMutation, operatorParameters } from '../decision/operator.ts';
import type { OperatorParameters } from '../decision/operator.ts';
import { assertNotOffboarded, findStatus } from '../organizations/organization.ts';
import { revokeRecorded } from './revoke.ts';

/**
 * Predicate: no try of this call has revoked anything yet. So a late try does not revoke keys that were created since.
 */
const isFirst = (db: Builder, parameters: Placeholders<EventParameters>) =>
  not(existsIn(db, audit_events, isOfBatch(parameters)));

/**
 * Makes the statements that revoke every key of an organization that has not ended, in one batch, so that no key can create
 * another meanwhile. (The quota bounds how many these are, however many ended ones there are.)
 *
 * @param mayRevoke who may
 */
export const revocationOfAll = <Parameters extends EventParameters>(
  mayRevoke: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined,
) => [
  eventRecorder<Parameters>({
    table: api_keys,
    target_id: api_keys.key_id,
    action: 'api_key.revoked',
    where: (db, parameters) =>
      and(
        eq(api_keys.organization_id, parameters.organization_id),
        eq(api_keys.status, 'active'),
        isNull(api_keys.ended_at),
        isFirst(db, parameters),
        mayRevoke(db, parameters),
      ),
    many: true,
    order: api_keys.key_id,
    firstDecides: true,
  }),
  revokeRecorded,
];

/** By an operator: a key of it, or a command. */
export const operatorsRevocationOfAll = revocationOfAll<OperatorParameters>((db, parameters) =>
  mayOperate('keys:mint', db, parameters),
);

const countRevoked = query((db, parameters: Placeholders<OperatorParameters>) =>
  db
    .select({ count: sql<number>`count(*)`.as('count') })
    .from(audit_events)
    .where(isOfBatchOf(db, decisiveEvent(db, parameters))),
);

const found = { organization: findStatus, revoked: countRevoked };

const decide = operatorMutation<OperatorParameters, typeof found>('keys:mint', {
  statements: operatorsRevocationOfAll,
  found,
});

/**
 * Revokes every API key of an organization that has not ended (docs/contract.md, Operators). From the commit on the keys can
 * change nothing. They can read until the caches have forgotten them, at most 60 s.
 *
 * @returns how many keys it revoked
 * @throws DomainError `organization_not_found`, `organization_offboarded` if no key was left to revoke, and the errors of
 *   every operator's mutation (decision/operator.ts)
 */
export async function revokeAllKeys(call: OperatorCall, organization_id: string): Promise<{ revoked_count: number }> {
  const { outcome, found: read } = await decide(call, operatorParameters(call, organization_id));
  if (outcome === 'undecided') assertNotOffboarded(read.organization);
  return { revoked_count: read.revoked[0]?.count ?? 0 };
}
