import { and, eq, gt, not } from 'drizzle-orm';
import { assertNothingInDoubt, eventRecorder, operatorEventParameters, readEvent } from '../audit/record.ts';
import type { RecordParameters } from '../audit/record.ts';
import { batchOfGroups, bindEach, existsIn, query } from '../query.ts';
import type { Builder, Placeholders } from '../query.ts';
import { audit_events, organizations } from '../schema.ts';
import { isOrganization, organizationState } from './organization.ts';
import type { OrganizationState } from './organization.ts';

/**
 * Predicate: no later event is about the organization itself. It keeps a late try of a suspension from undoing the
 * resumption that followed. (A clock that is behind another operator's has nothing done, instead of half.)
 */
const isLastEvent = (db: Builder, { organization_id, event_id }: Placeholders<RecordParameters>) =>
  not(
    existsIn(
      db,
      audit_events,
      and(
        eq(audit_events.organization_id, organization_id),
        eq(audit_events.target_id, organization_id),
        gt(audit_events.event_id, event_id),
      ),
    ),
  );

function statusChange(
  action: 'organization.suspended' | 'organization.resumed',
  from: OrganizationState['status'],
  to: OrganizationState['status'],
) {
  const mayChange = (db: Builder, parameters: Placeholders<RecordParameters>) =>
    and(isOrganization(parameters), eq(organizations.status, from), isLastEvent(db, parameters));

  const recordChange = eventRecorder<RecordParameters>(organizations, organizations.organization_id, action, mayChange);

  // The event is there by the same condition, in the same transaction.
  const changeStatus = query((db, parameters: Placeholders<RecordParameters>) =>
    db.update(organizations).set({ status: to }).where(mayChange(db, parameters)),
  );

  return async function change(database: D1Database, organization_id: string): Promise<OrganizationState | undefined> {
    const parameters = operatorEventParameters(organization_id);
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
