import { and, eq, sql } from 'drizzle-orm';
import {
  assertNothingInDoubt,
  eventRecorder,
  eventExists,
  operatorEventParameters,
  readEvent,
} from '../../worker/decision/event.ts';
import type { RecordParameters } from '../../worker/decision/event.ts';
import { batch, batchOfGroups, bindEach, query } from '../../worker/d1/query.ts';
import type { Placeholders } from '../../worker/d1/query.ts';
import { organizations } from '../../worker/d1/schema.ts';
import { isOrganization, organizationState, readStatus } from '../../worker/organizations/organization.ts';
import type { OrganizationState } from '../../worker/organizations/organization.ts';

interface ChangeParameters extends RecordParameters {
  /** Of the organization as it was seen before the first try. */
  change_count: number;
}

function statusChange(
  action: 'organization.suspended' | 'organization.resumed',
  from: OrganizationState['status'],
  to: OrganizationState['status'],
) {
  /** A first try that is so late that the organization has changed since does nothing either. */
  const recordChange = eventRecorder<ChangeParameters>(
    organizations,
    organizations.organization_id,
    action,
    (_, parameters) =>
      and(
        isOrganization(parameters),
        eq(organizations.status, from),
        eq(organizations.change_count, parameters.change_count),
      ),
  );

  const changeStatus = query((db, parameters: Placeholders<ChangeParameters>) =>
    db
      .update(organizations)
      .set({ status: to, change_count: sql`${organizations.change_count} + 1` })
      .where(
        and(
          isOrganization(parameters),
          eq(organizations.status, from),
          eventExists(db, parameters),
          eq(organizations.change_count, parameters.change_count),
        ),
      ),
  );

  return async function change(database: D1Database, organization_id: string): Promise<OrganizationState | undefined> {
    const [[seen]] = await batch(database, [readStatus.bind({ organization_id })]);
    if (!seen) return undefined;
    const parameters = { ...operatorEventParameters(organization_id), change_count: seen.change_count };
    const { results, inDoubt } = await batchOfGroups(database, [
      bindEach({ recordChange, changeStatus }, parameters),
      { event: readEvent.bind(parameters) },
    ]);
    const [event] = results[1].event;
    if (event) return organizationState.parse(JSON.parse(event.state));
    assertNothingInDoubt(inDoubt);
    return undefined;
  };
}

/**
 * Suspends an active organization: its keys change nothing from the commit on, and read nothing once the caches have
 * forgotten them, 60 s later at most. Everything it has stays.
 *
 * @returns the organization as it stood just before; nothing where there is no active one
 * @throws DomainError `temporarily_unavailable`
 */
export const suspendOrganization = statusChange('organization.suspended', 'active', 'suspended');

/**
 * Resumes a suspended organization: its keys are what they were.
 *
 * @returns the organization as it stood just before; nothing where there is no suspended one
 * @throws DomainError `temporarily_unavailable`
 */
export const resumeOrganization = statusChange('organization.resumed', 'suspended', 'active');
