import { and, eq, ne, sql } from 'drizzle-orm';
import { batch } from '../../worker/d1/batch.ts';
import { existsIn } from '../../worker/d1/columns.ts';
import { query } from '../../worker/d1/query.ts';
import type { Builder, Placeholders } from '../../worker/d1/query.ts';
import { integrations, organizations, phone_numbers } from '../../worker/d1/schema.ts';
import { eventParameters } from '../../worker/decision/call.ts';
import type { EventParameters } from '../../worker/decision/call.ts';
import { carryOut, eventRecorder, hasDecided } from '../../worker/decision/event.ts';
import { isOrganization } from '../../worker/organizations/organization.ts';
import { revokeAllKeys } from '../api-keys/revoke-all.ts';
import { operatorCall } from '../call.ts';
import { inBatches } from '../in-batches.ts';
import { readStatus } from './status.ts';

type OrganizationParameters = Placeholders<Pick<EventParameters, 'organization_id'>>;

/** Offboarding is final, so there is only one such event, however often the command is run. */
const recordOffboarding = eventRecorder<EventParameters>({
  table: organizations,
  target_id: organizations.organization_id,
  action: 'organization.offboarded',
  where: (_, parameters) => and(isOrganization(parameters), ne(organizations.status, 'offboarded')),
});

const markOffboarded = query((db, parameters: Placeholders<EventParameters>) =>
  db
    .update(organizations)
    .set({ status: 'offboarded', change_count: sql`${organizations.change_count} + 1` })
    .where(and(isOrganization(parameters), ne(organizations.status, 'offboarded'), hasDecided(db, parameters))),
);

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

/** What is deleted in batches. The phone numbers come first, because they reference the integrations. */
const steps = [
  ['phone_numbers', deletePhoneNumbers],
  ['integrations', deleteIntegrations],
] as const;

export type OffboardingStep = (typeof steps)[number][0];

/**
 * Offboards an organization, for good. Every phone number (assigned ones too) and every integration is deleted with its
 * data key, the outbox gets their ciphertext, and every key is revoked. The audit events stay.
 *
 * The first batch sets the status to offboarded. From then on no key works and none can be created, so nothing new can
 * appear while the rest is deleted. If this is interrupted, a second call finishes it.
 *
 * @param onProgress called after each batch of a step
 * @returns how much this call deleted and revoked; undefined if there is no such organization
 * @throws DomainError `temporarily_unavailable`
 */
export async function offboardOrganization(
  database: D1Database,
  organization_id: string,
  onProgress: (step: OffboardingStep, done: number, total: number) => void = () => {},
): Promise<Record<OffboardingStep | 'keys', number> | undefined> {
  const call = operatorCall(organization_id);
  const { event: begun } = await carryOut(database, [recordOffboarding, markOffboarded], eventParameters(call));
  // Offboarded already, or no organization. A try that is in doubt changes neither.
  if (!begun) {
    const [[organization]] = await batch(database, [readStatus.bind({ organization_id })]);
    if (!organization) return undefined;
  }
  const ended = { phone_numbers: 0, integrations: 0, keys: 0 };
  for (const [step, endAll] of steps) {
    ended[step] = await endAll(database, call, (done, total) => onProgress(step, done, total));
  }
  ended.keys = await revokeAllKeys(database, organization_id, call.request_id);
  return ended;
}
