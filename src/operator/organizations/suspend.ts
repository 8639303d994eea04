import { and, eq, sql } from 'drizzle-orm';
import { batch } from '../../worker/d1/batch.ts';
import { query } from '../../worker/d1/query.ts';
import type { Placeholders } from '../../worker/d1/query.ts';
import { organizations } from '../../worker/d1/schema.ts';
import { eventParameters } from '../../worker/decision/call.ts';
import type { EventParameters } from '../../worker/decision/call.ts';
import { assertNothingInDoubt, carryOut, eventRecorder, hasDecided } from '../../worker/decision/event.ts';
import { isOrganization, organizationState } from '../../worker/organizations/organization.ts';
import type { OrganizationState } from '../../worker/organizations/organization.ts';
import { operatorCall } from '../call.ts';
import { readStatus } from './status.ts';

interface ChangeParameters extends EventParameters {
  /** The organization's count before the first try. */
  change_count: number;
}

function statusChange(
  action: 'organization.suspended' | 'organization.resumed',
  from: OrganizationState['status'],
  to: OrganizationState['status'],
) {
  /** If the organization has changed since it was read, even a first try that is late does nothing. */
  const recordChange = eventRecorder<ChangeParameters>({
    table: organizations,
    target_id: organizations.organization_id,
    action,
    where: (_, parameters) =>
      and(
        isOrganization(parameters),
        eq(organizations.status, from),
        eq(organizations.change_count, parameters.change_count),
      ),
  });

  const changeStatus = query((db, parameters: Placeholders<ChangeParameters>) =>
    db
      .update(organizations)
      .set({ status: to, change_count: sql`${organizations.change_count} + 1` })
      .where(
        and(
          isOrganization(parameters),
          eq(organizations.status, from),
          hasDecided(db, parameters),
          eq(organizations.change_count, parameters.change_count),
        ),
      ),
  );

  return async function change(database: D1Database, organization_id: string): Promise<OrganizationState | undefined> {
    const [[seen]] = await batch(database, [readStatus.bind({ organization_id })]);
    if (!seen) return undefined;
    const parameters = { ...eventParameters(operatorCall(organization_id)), change_count: seen.change_count };
    const { event, inDoubt } = await carryOut(database, [recordChange, changeStatus], parameters);
    if (!event) assertNothingInDoubt(inDoubt);
    return event && organizationState.parse(JSON.parse(event.state));
  };
}

/**
 * Suspends an active organization. From the commit on its keys can change nothing. They can read until the caches have
 * forgotten them, at most 60 s. Everything that it has stays.
 *
 * @returns the organization as it was just before; undefined if there is none, or it is not active
 * @throws DomainError `temporarily_unavailable`
 */
export const suspendOrganization = statusChange('organization.suspended', 'active', 'suspended');

/**
 * Resumes a suspended organization. Its keys work again.
 *
 * @returns the organization as it was just before; undefined if there is none, or it is not suspended
 * @throws DomainError `temporarily_unavailable`
 */
export const resumeOrganization = statusChange('organization.resumed', 'suspended', 'active');
