import { and, asc, eq, sql } from 'drizzle-orm';
import { DomainError } from '../core/errors.ts';
import type { Reference } from '../core/errors.ts';
import { purge } from '../credentials/drain.ts';
import { credentialsKey } from '../credentials/kv-key.ts';
import { enqueuePurges } from '../credentials/outbox.ts';
import { batch, isForeignKeyViolation } from '../d1/batch.ts';
import { boundedCount, toldCount } from '../d1/bounded-count.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations, phone_numbers } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { mayDecide } from '../decision/caller.ts';
import { eventRecorder, hasDecided } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { assertMatched, isAsMatched, unmatchedTarget } from '../decision/precondition.ts';
import { integrationState, isIntegration, presentDeletedIntegration } from './integration.ts';
import type { DeletedIntegration } from './integration.ts';

/** The most references that an answer names. */
const MAX_NAMED = 100;

interface DeleteParameters extends MutationParameters {
  integration_id: string;
}

const isReference = ({ organization_id, integration_id }: Placeholders<DeleteParameters>) =>
  and(eq(phone_numbers.organization_id, organization_id), eq(phone_numbers.integration_id, integration_id));

const listReferences = query((db, parameters: Placeholders<DeleteParameters>) => {
  const count = boundedCount(db, phone_numbers, isReference(parameters));
  return db
    .select({
      phone_number_id: phone_numbers.phone_number_id,
      phone_number: phone_numbers.phone_number,
      reference_count: sql<number>`${count}`.as('reference_count'),
    })
    .from(phone_numbers)
    .where(isReference(parameters))
    .orderBy(asc(phone_numbers.phone_number))
    .limit(MAX_NAMED);
});

/** The rule: a delete is refused while a phone number references the integration. No other statement evaluates it. */
const recordDecision = eventRecorder<DeleteParameters>({
  table: integrations,
  target_id: integrations.integration_id,
  action: (db, parameters) =>
    sql`iif(${existsIn(db, phone_numbers, isReference(parameters))}, 'integration.delete_refused', 'integration.deleted')`,
  where: (db, parameters) =>
    and(
      isIntegration(parameters),
      isAsMatched(integrations.revision, parameters),
      mayDecide('integrations:delete', db, parameters),
    ),
});

const removeIntegration = query((db, parameters: Placeholders<DeleteParameters>) =>
  db.delete(integrations).where(and(isIntegration(parameters), hasDecided(db, parameters, 'integration.deleted'))),
);

// After a refusal the last two do nothing.
const decide = mutation('integrations:delete', {
  statements: [recordDecision, enqueuePurges, removeIntegration],
  found: { references: listReferences, unmatched: unmatchedTarget<DeleteParameters>(integrations, isIntegration) },
});

/**
 * Deletes an integration and its stored credentials, unless a phone number references it (docs/contract.md, DELETE
 * /api/integrations/{integration_id}).
 *
 * The row holds the data key, so nobody can read the credentials after the commit. The same batch puts their ciphertext
 * into the outbox, and it is removed from KV after the answer.
 *
 * @returns the integration as it was just before
 * @throws DomainError `integration_in_use`, `integration_not_found`, `precondition_failed`, and the errors of every
 *   mutation (decision/mutation.ts)
 */
export async function deleteIntegration(call: ApiCall, integration_id: string): Promise<DeletedIntegration> {
  const parameters = { ...mutationParameters(call), integration_id };
  const answer = await decide(call, parameters).catch((error: unknown) =>
    refuseIfStillReferenced(error, call, parameters),
  );
  if (answer.outcome === 'undecided') {
    assertMatched(answer.found.unmatched);
    throw new DomainError('integration_not_found', {});
  }
  if (answer.event.action === 'integration.delete_refused') {
    const { references } = answer.found;
    // A retry can find its earlier refusal after the numbers have gone. We can no longer name them.
    if (references.length === 0) throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
    throw inUse(references);
  }

  const state = integrationState.parse(JSON.parse(answer.event.state));
  const kv_key = credentialsKey(state.organization_id, integration_id, state.credentials_version);
  call.afterAnswer(() => purge(call.env, kv_key));
  return presentDeletedIntegration(state);
}

/**
 * `ON DELETE RESTRICT` backs the rule up: if the two ever disagree, the batch is rolled back, and the delete is refused
 * here.
 */
async function refuseIfStillReferenced(error: unknown, { env }: ApiCall, parameters: DeleteParameters): Promise<never> {
  if (!isForeignKeyViolation(error)) throw error;
  const [references] = await batch(env.DB, [listReferences.bind(parameters)]);
  throw inUse(references);
}

function inUse(rows: (Reference & { reference_count: number })[]): DomainError {
  const { count, exact } = toldCount(rows[0]?.reference_count ?? 0);
  return new DomainError('integration_in_use', {
    references: rows.map(({ phone_number_id, phone_number }) => ({ phone_number_id, phone_number })),
    reference_count: count,
    reference_count_exact: exact,
  });
}
