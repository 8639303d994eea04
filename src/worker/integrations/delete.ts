import { and, asc, eq, sql } from 'drizzle-orm';
import { eventExists, eventParameters, eventRecorder } from '../decision/event.ts';
import type { EventParameters } from '../decision/event.ts';
import { callerMay } from '../decision/caller.ts';
import { purge } from '../credentials/drain.ts';
import { credentialsKey, enqueuePurge } from '../credentials/store.ts';
import { boundedCount, toldCount } from '../d1/bounded-count.ts';
import type { Operation } from '../env.ts';
import { mutation } from '../decision/mutation.ts';
import { DomainError } from '../core/errors.ts';
import type { Reference } from '../core/errors.ts';
import { batch, existsIn, isForeignKeyViolation, query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations, phone_numbers } from '../d1/schema.ts';
import { integrationState, isIntegration, presentIntegration } from './integration.ts';
import type { Integration } from './integration.ts';

/** How many references an answer names. */
const MAX_NAMED = 100;

interface DeleteParameters extends EventParameters {
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

/** The rule, and the only statement that evaluates it: refused while a phone number references the integration. */
const recordDecision = eventRecorder(
  integrations,
  integrations.integration_id,
  (db, parameters: Placeholders<DeleteParameters>) =>
    sql`iif(${existsIn(db, phone_numbers, isReference(parameters))}, 'integration.delete_refused', 'integration.deleted')`,
  (db, parameters) => and(isIntegration(parameters), callerMay('integrations:delete', db, parameters)),
);

const removeIntegration = query((db, parameters: Placeholders<DeleteParameters>) =>
  db.delete(integrations).where(and(isIntegration(parameters), eventExists(db, parameters, 'integration.deleted'))),
);

const decide = mutation('integrations:delete', {
  explain: { references: listReferences },
  act: { recordDecision, enqueuePurge, removeIntegration },
});

/**
 * Deletes an integration and its stored credentials, unless a phone number references it
 * (contract.md, DELETE /api/integrations/{integration_id}).
 *
 * One batch asks, decides, acts and reads the decision back. The row holds the data key, so the credentials end at its
 * commit; their ciphertext is in the outbox by the same commit and leaves KV after the answer.
 *
 * @returns the integration as it stood just before
 * @throws DomainError `integration_in_use`, `integration_not_found`, and what any mutation does (mutation.ts)
 */
export async function deleteIntegration(operation: Operation, integration_id: string): Promise<Integration> {
  const { env, afterAnswer } = operation;
  const parameters = { ...eventParameters(operation), integration_id };
  const { event, found } = await decide(operation, parameters).catch((error: unknown) =>
    refuseIfStillReferenced(error, operation, parameters),
  );
  if (!event) throw new DomainError('integration_not_found', {});
  if (event.action === 'integration.delete_refused') {
    // Only a repeat of the batch can find its refusal without what it was for: the references went in between.
    if (found.references.length === 0) throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
    throw inUse(found.references);
  }
  const state = integrationState.parse(JSON.parse(event.state));
  afterAnswer(() => purge(env, credentialsKey(state.organization_id, integration_id, state.credentials_version)));
  return presentIntegration(state);
}

/** `ON DELETE RESTRICT` stands behind the rule: where the two ever disagree, the batch is rolled back and this refuses. */
async function refuseIfStillReferenced(
  error: unknown,
  { env }: Operation,
  parameters: DeleteParameters,
): Promise<never> {
  if (!isForeignKeyViolation(error)) throw error;
  const [references] = await batch(env.DB, [listReferences.bind(parameters)]);
  throw inUse(references);
}

function inUse(rows: (Reference & { reference_count: number })[]) {
  const { count, exact } = toldCount(rows[0]?.reference_count ?? 0);
  return new DomainError('integration_in_use', {
    references: rows.map(({ phone_number_id, phone_number }) => ({ phone_number_id, phone_number })),
    reference_count: count,
    reference_count_exact: exact,
  });
}
