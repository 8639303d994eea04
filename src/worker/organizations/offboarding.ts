import { and, desc, eq, ne, not, or, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { revocationOfAll } from '../api-keys/revoke-all.ts';
import { DomainError, invalid } from '../core/errors.ts';
import { logEvent } from '../core/log.ts';
import { batch } from '../d1/batch.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { audit_events, integrations, organizations, phone_numbers, webhook_endpoints } from '../d1/schema.ts';
import { eventParameters } from '../decision/call.ts';
import type { Call, EventParameters, OperatorCall } from '../decision/call.ts';
import { carryOut, eventRecorder, hasDecided, isOfTarget } from '../decision/event.ts';
import { isByCommand, mayOperate, operatorMutation } from '../decision/operator.ts';
import type { Bindings } from '../env.ts';
import { isAsSeen, parametersAsSeen } from './as-seen.ts';
import type { AsSeenParameters } from './as-seen.ts';
import { inBatches } from './in-batches.ts';
import type { Budget } from './in-batches.ts';
import { isOrganization } from './organization.ts';
import { findCounted, presentCounted } from './read.ts';
import type { CountedOrganization } from './read.ts';

/** Of 100 rows each, with 5 statements. The platform allows 1,000 statements in one invocation, and the cron has other tasks. */
const BATCHES_PER_TURN = 60;
/** Organizations that one run of the cron deletes the rows of. They share its batches evenly. */
const ORGANIZATIONS_PER_RUN = 10;

type OrganizationParameters = Placeholders<Pick<EventParameters, 'organization_id'>>;

/** Offboarding is final, so there is only one such event. A command asks before; a key must have suspended before. */
const recordOffboarding = eventRecorder<AsSeenParameters>({
  table: organizations,
  target_id: organizations.organization_id,
  action: 'organization.offboarded',
  where: (db, parameters) =>
    and(
      isAsSeen(parameters),
      ne(organizations.status, 'offboarded'),
      or(isByCommand(parameters), eq(organizations.status, 'suspended')),
      mayOperate('organizations:offboard', db, parameters),
    ),
});

const markOffboarded = query((db, parameters: Placeholders<EventParameters>) =>
  db
    .update(organizations)
    .set({ status: 'offboarded', is_offboarding: sql`1`, change_count: sql`${organizations.change_count} + 1` })
    .where(and(isOrganization(parameters), ne(organizations.status, 'offboarded'), hasDecided(db, parameters))),
);

/**
 * The statements that begin it. From their commit on no key works and none can be created, so nothing new can appear while
 * the rest is deleted.
 */
export const beginning = [recordOffboarding, markOffboarded];

const isOffboarded = (db: Builder, parameters: OrganizationParameters) =>
  existsIn(db, organizations, and(isOrganization(parameters), eq(organizations.status, 'offboarded')));

const deletePhoneNumbers = inBatches({
  table: phone_numbers,
  id: phone_numbers.phone_number_id,
  action: 'phone_number.deleted',
  condition: isOffboarded,
  act: (db, isRecorded) => db.delete(phone_numbers).where(isRecorded),
});

const deleteIntegrations = inBatches({
  table: integrations,
  id: integrations.integration_id,
  action: 'integration.deleted',
  condition: isOffboarded,
  act: (db, isRecorded) => db.delete(integrations).where(isRecorded),
});

/** With their secrets and deliveries, which a trigger deletes. */
const deleteWebhookEndpoints = inBatches({
  table: webhook_endpoints,
  id: webhook_endpoints.endpoint_id,
  action: 'webhook_endpoint.deleted',
  condition: isOffboarded,
  act: (db, isRecorded) => db.delete(webhook_endpoints).where(isRecorded),
});

/** What is deleted in batches. The phone numbers come before the integrations, which they reference. */
const steps = [
  ['webhook_endpoints', deleteWebhookEndpoints],
  ['phone_numbers', deletePhoneNumbers],
  ['integrations', deleteIntegrations],
] as const;

export type OffboardingStep = (typeof steps)[number][0];

const revokeAll = revocationOfAll<EventParameters>(isOffboarded);

const endOffboarding = query((db, parameters: Placeholders<EventParameters>) =>
  db
    .update(organizations)
    .set({ is_offboarding: sql`0` })
    .where(
      and(
        isOrganization(parameters),
        eq(organizations.status, 'offboarded'),
        ...[organizations.phone_number_count, organizations.integration_count, organizations.api_key_count].map(
          (count) => eq(count, sql`0`),
        ),
        not(existsIn(db, webhook_endpoints, eq(webhook_endpoints.organization_id, sql`${parameters.organization_id}`))),
      ),
    ),
);

/**
 * Deletes what an offboarded organization has, as far as the budget goes: every phone number (assigned ones too), every
 * integration with its data key, and then revokes every key. The outbox gets the ciphertext. The audit events stay. A second
 * call finishes what is left.
 *
 * @param onProgress called after each batch of a step
 * @returns how much this call deleted and revoked
 * @throws DomainError `temporarily_unavailable`
 */
export async function continueOffboarding(
  database: D1Database,
  call: Call,
  budget: Budget,
  onProgress?: (step: OffboardingStep, done: number, total: number) => void,
): Promise<Record<OffboardingStep | 'keys', number>> {
  const ended = { webhook_endpoints: 0, phone_numbers: 0, integrations: 0, keys: 0 };
  for (const [step, endAll] of steps) {
    const onBatch = onProgress && ((done: number, total: number) => onProgress(step, done, total));
    ended[step] = await endAll(database, call, budget, onBatch);
  }
  if (budget.batches <= 0) return ended;
  const { count } = await carryOut(database, [...revokeAll, endOffboarding], eventParameters(call));
  return { ...ended, keys: count };
}

/** Who has offboarded an organization, and in which call: its other events are of the same. */
const findOffboarder = query((db, { organization_id }: OrganizationParameters) =>
  db
    .select({
      actor_type: audit_events.actor_type,
      actor_id: audit_events.actor_id,
      actor_name: audit_events.actor_name,
      request_id: audit_events.request_id,
    })
    .from(audit_events)
    .where(isOfTarget(audit_events, { organization_id, target_id: organization_id }, ['organization.offboarded']))
    .orderBy(desc(audit_events.created_at), desc(audit_events.sequence))
    .limit(1),
);

async function takeTurn({ DB }: Bindings, organization_id: string, batches: number): Promise<void> {
  const [[offboarder]] = await batch(DB, [findOffboarder.bind({ organization_id })]);
  const { actor_type, actor_id = null, actor_name = null, request_id = crypto.randomUUID() } = offboarder ?? {};
  const actor = { type: actor_type ?? 'operator', id: actor_id, name: actor_name } as const;
  const ended = await continueOffboarding(DB, { organization_id, actor, request_id }, { batches });
  logEvent('offboarding_continued', { organization_id, ...ended });
}

const findOffboarding = query((db) =>
  db
    .select({ organization_id: organizations.organization_id })
    .from(organizations)
    .where(and(eq(organizations.status, sql`'offboarded'`), eq(organizations.is_offboarding, sql`1`)))
    // At random, so that those which fail each time do not hold up the others.
    .orderBy(sql`random()`)
    .limit(ORGANIZATIONS_PER_RUN),
);

/**
 * A task of the cron: continues every offboarding.
 *
 * @throws the first error, after all have had their turn: one that fails each time must not hold up the others
 */
export async function continueOffboardings(env: Bindings): Promise<void> {
  const [found] = await batch(env.DB, [findOffboarding.bind({})]);
  const failures: unknown[] = [];
  for (const { organization_id } of found) {
    try {
      await takeTurn(env, organization_id, Math.floor(BATCHES_PER_TURN / found.length));
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

const found = { organization: findCounted };

const decide = operatorMutation<AsSeenParameters, typeof found>('organizations:offboard', {
  statements: beginning,
  found,
});

/** The organization once more, as a confirmation. */
export const offboarding = z.lazy(() => z.strictObject({ organization_id: z.string() }));

/**
 * Offboards a suspended organization, for good (docs/contract.md, Operators). After the answer it deletes what the
 * organization has; the cron continues that, and so does every repeat.
 *
 * @returns the organization, with what is left of it
 * @throws DomainError `validation_failed`, `organization_not_found`, `organization_not_suspended`, and the errors of every
 *   operator's mutation (decision/operator.ts)
 */
export async function offboardOrganization(
  call: OperatorCall,
  organization_id: string,
  confirmed: z.output<typeof offboarding>,
): Promise<CountedOrganization> {
  if (confirmed.organization_id !== organization_id) {
    throw invalid('organization_id', 'must be the organization of the path');
  }
  const answer = await decide(call, await parametersAsSeen(call, organization_id));
  const organization = presentCounted(answer.found.organization);
  if (answer.outcome === 'undecided' && organization.status === 'active') {
    throw new DomainError('organization_not_suspended', {});
  }
  // It has changed since it was read.
  if (organization.status === 'suspended') throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  if (organization.status === 'offboarding') {
    call.afterAnswer(() => takeTurn(call.env, organization_id, BATCHES_PER_TURN));
  }
  return organization;
}
