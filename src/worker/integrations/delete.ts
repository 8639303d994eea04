import { and, sql } from 'drizzle-orm';
import { BULK_CALL_MILLISECONDS } from '../core/deadlines.ts';
import { DomainError } from '../core/errors.ts';
import { unixNow } from '../core/time.ts';
import { purge } from '../credentials/drain.ts';
import { credentialsKey } from '../credentials/kv-key.ts';
import { enqueuePurges } from '../credentials/outbox.ts';
import { beginAgain, notDone } from '../credentials/store.ts';
import { batch, isForeignKeyViolation } from '../d1/batch.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { audit_events, integrations, phone_numbers } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import {
  decisionSaw,
  eventIdBesideOf,
  eventRecorder,
  hasDecided,
  isNewestOfTrail,
  updateTime,
} from '../decision/event.ts';
import { isOtherEventOfDecision, mutation } from '../decision/mutation.ts';
import type { Outcome } from '../decision/mutation.ts';
import {
  askTarget,
  assertMay,
  deletionParameters,
  inUse,
  isConditional,
  isSameAccount,
  newOwnership,
  reasons,
  rules,
  wayOf,
  whyRefused,
  whyUndecided,
} from './deletion.ts';
import type { DeletionParameters, DeletionRequest, Reasons, Way } from './deletion.ts';
import { deletedState, isIntegration, presentDeletedIntegration } from './integration.ts';
import type { DeletedIntegration } from './integration.ts';
import { isReference } from './references.ts';

type Parameters = Placeholders<DeletionParameters>;

/** The event is the decision, and no other statement of the batch evaluates the rule. */
const recordDecision = (way: Way) => {
  const { isDecided, isRefused } = rules[way];
  return eventRecorder<DeletionParameters>({
    table: integrations,
    target_id: integrations.integration_id,
    action: (db, parameters) =>
      sql`iif(${isRefused(db, parameters)}, 'integration.delete_refused', 'integration.deleted')`,
    where: isDecided,
    precededBy: (db, parameters) =>
      way === 'refuse' ? sql`0` : sql`iif(${isRefused(db, parameters)}, 0, ${integrations.phone_number_count})`,
  });
};

/** Selects the phone numbers, if this very try of the batch has decided to delete their integration. */
const isDecidedNow = (db: Builder, parameters: Parameters) =>
  and(isReference(parameters), hasDecided(db, parameters, 'integration.deleted'), isNewestOfTrail(db, parameters));

/** The event of the number that a statement selects. */
const ownEvent = ({ organization_id, event_id }: Parameters) => ({
  organization_id,
  event_id: eventIdBesideOf(event_id, phone_numbers.phone_number_id),
});

const recordReassignments = eventRecorder<DeletionParameters>({
  table: phone_numbers,
  target_id: phone_numbers.phone_number_id,
  action: 'phone_number.updated',
  where: isDecidedNow,
  changes: (parameters, db) => ({
    integration_id: sql`${parameters.target_id}`,
    ownership: newOwnership(db, parameters),
  }),
  many: true,
  order: phone_numbers.phone_number,
  precedeDecision: true,
});

const reassignNumbers = query((db, parameters: Parameters) => {
  const ownership = newOwnership(db, parameters);
  const due_at = sql`iif(${ownership} = 'confirmed', NULL, ${parameters.now})`;
  return db
    .update(phone_numbers)
    .set({
      integration_id: sql`${parameters.target_id}`,
      ownership,
      ownership_due_at: sql`iif(${isSameAccount(db, parameters)}, ${phone_numbers.ownership_due_at}, ${due_at})`,
      updated_at: updateTime(db, ownEvent(parameters), phone_numbers.updated_at),
      revision: sql`${phone_numbers.revision} + 1`,
    })
    .where(and(isReference(parameters), decisionSaw(db, ownEvent(parameters), phone_numbers.revision)));
});

const recordRemovals = eventRecorder<DeletionParameters>({
  table: phone_numbers,
  target_id: phone_numbers.phone_number_id,
  action: 'phone_number.deleted',
  where: isDecidedNow,
  many: true,
  order: phone_numbers.phone_number,
  precedeDecision: true,
});

const removeNumbers = query((db, parameters: Parameters) =>
  db
    .delete(phone_numbers)
    .where(and(isReference(parameters), hasDecided(db, ownEvent(parameters), 'phone_number.deleted'))),
);

const removeIntegration = query((db, parameters: Parameters) =>
  db.delete(integrations).where(and(isIntegration(parameters), hasDecided(db, parameters, 'integration.deleted'))),
);

/** How many phone numbers the call that decided has reassigned or removed. */
const countOthers = query((db, parameters: Parameters) =>
  db
    .select({ count: sql<number>`count(*)`.as('count') })
    .from(audit_events)
    .where(isOtherEventOfDecision(db, parameters)),
);

// Numbers with an integration have no credentials of their own, so only the integration's are enqueued.
const plain = [recordDecision('refuse'), enqueuePurges, removeIntegration];
const milliseconds = BULK_CALL_MILLISECONDS;

const decideBy = {
  refuse: mutation('integrations:delete', { statements: plain, found: reasons.refuse }),
  refuseOrFail: mutation('integrations:delete', { statements: plain, found: reasons.refuseOrFail }),
  reassign: mutation('integrations:delete', {
    statements: [recordDecision('reassign'), enqueuePurges, recordReassignments, reassignNumbers, removeIntegration],
    found: { ...reasons.reassign, others: countOthers },
    milliseconds,
  }),
  remove: mutation('integrations:delete', {
    statements: [recordDecision('remove'), enqueuePurges, recordRemovals, removeNumbers, removeIntegration],
    found: { ...reasons.remove, others: countOthers },
    milliseconds,
  }),
};

type Found = Reasons & { others?: { count: number }[] };

export interface Deleted {
  integration: DeletedIntegration;
  /** How many of its phone numbers were reassigned or removed. */
  count: number;
}

/**
 * Deletes an integration and its stored credentials (docs/contract.md, DELETE /api/integrations/{integration_id}). Its phone
 * numbers refuse that, or the same batch reassigns or removes them.
 *
 * The row holds the data key, so nobody can read the credentials after the commit. The same batch puts their ciphertext
 * into the outbox, and it is removed from KV after the answer.
 *
 * It takes one batch. If numbers go to another account, that account is asked for them, and a second batch decides.
 *
 * @returns the integration as it was just before
 * @throws DomainError `integration_in_use`, `phone_number_assigned`, `integration_not_found`, `permission_denied`,
 *   `precondition_failed`, `too_many_references`, `quota_exceeded`, the errors of {@link askTarget}, and those of every
 *   mutation (decision/mutation.ts)
 */
export async function deleteIntegration(
  call: ApiCall,
  integration_id: string,
  request: DeletionRequest,
): Promise<Deleted> {
  const way = wayOf(request);
  if (call.key.holder) assertMay(way, call.key.holder);
  const parameters = deletionParameters(call, integration_id, request);
  const { event, found } = await beginAgain(() => attempt(call, way, parameters));
  if (event.action === 'integration.delete_refused') {
    // A retry can find its earlier refusal after the numbers have gone. We can no longer name them.
    throw whyRefused(integration_id, found) ?? new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  }

  const state = deletedState.parse(JSON.parse(event.state));
  const kv_key = credentialsKey(state.organization_id, integration_id, state.credentials_version);
  call.afterAnswer(() => purge(call.env, kv_key));
  return { integration: presentDeletedIntegration(state), count: found.others?.[0]?.count ?? 0 };
}

async function attempt(call: ApiCall, way: Way, parameters: DeletionParameters) {
  const first = await decide(call, way, parameters);
  if (first.outcome !== 'undecided') return first;
  const asked = await askTarget(call, whyNot(way, parameters, first));
  // The account may have been slow: the caller's key must still be alive now.
  const second = await decide(call, way, { ...parameters, ...asked, now: unixNow() });
  if (second.outcome !== 'undecided') return second;
  whyNot(way, parameters, second);
  throw notDone({ kv_key: null });
}

async function decide(call: ApiCall, way: Way, parameters: DeletionParameters): Promise<Outcome<Found>> {
  const mayFail = way === 'refuse' && isConditional(parameters);
  try {
    return await decideBy[mayFail ? 'refuseOrFail' : way](call, parameters);
  } catch (error) {
    if (!isForeignKeyViolation(error)) throw error;
    // `ON DELETE RESTRICT` backs the rule up: if the two ever disagree, the batch is rolled back.
    const [references] = await batch(call.env.DB, [reasons.refuse.references.bind(parameters)]);
    throw inUse(parameters.integration_id, references);
  }
}

/**
 * What is found where nothing stands against the call.
 *
 * @throws the DomainError that does
 */
function whyNot(
  way: Way,
  parameters: DeletionParameters,
  { caller, found }: Outcome<Found> & { outcome: 'undecided' },
): Found {
  assertMay(way, caller);
  const error = whyUndecided(way, parameters, found);
  if (error) throw error;
  return found;
}
