import { and, eq, sql } from 'drizzle-orm';
import { DomainError } from '../core/errors.ts';
import { batch } from '../d1/batch.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { onPrimary } from '../d1/replica-session.ts';
import { organizations } from '../d1/schema.ts';
import type { OperatorCall } from '../decision/call.ts';
import { eventRecorder, hasDecided } from '../decision/event.ts';
import { mayOperate, operatorMutation, operatorParameters } from '../decision/operator.ts';
import type { OperatorParameters } from '../decision/operator.ts';
import { assertNotOffboarded, findStatus, isOrganization, organizationState } from './organization.ts';
import type { OrganizationState } from './organization.ts';
import { findCounted, presentCounted } from './read.ts';
import type { CountedOrganization } from './read.ts';

export interface StatusParameters extends OperatorParameters {
  /** The organization's count before the first try. */
  change_count: number;
}

/** What a change of the organization is bound to, which first reads its count. */
export async function statusParameters(call: OperatorCall, organization_id: string): Promise<StatusParameters> {
  const [[seen]] = await onPrimary(call, (database) => batch(database, [findStatus.bind({ organization_id })]));
  // Without an organization, the batch still finds out who may ask, and what is remembered.
  return { ...operatorParameters(call, organization_id), change_count: seen?.change_count ?? 0 };
}

type Status = OrganizationState['status'];

/** The statements that change the status. If the organization has changed since it was read, even a first try that is late does nothing. */
function statusChange(action: 'organization.suspended' | 'organization.resumed', from: Status, to: Status) {
  const recordChange = eventRecorder<StatusParameters>({
    table: organizations,
    target_id: organizations.organization_id,
    action,
    where: (db, parameters) =>
      and(
        isOrganization(parameters),
        eq(organizations.status, from),
        eq(organizations.change_count, parameters.change_count),
        mayOperate('organizations:suspend', db, parameters),
      ),
  });

  const changeStatus = query((db, parameters: Placeholders<StatusParameters>) =>
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
  return [recordChange, changeStatus];
}

export const suspension = statusChange('organization.suspended', 'active', 'suspended');
export const resumption = statusChange('organization.resumed', 'suspended', 'active');

const found = { organization: findCounted };

function changer(statements: typeof suspension, to: Status) {
  const decide = operatorMutation<StatusParameters, typeof found>('organizations:suspend', { statements, found });

  return async function change(call: OperatorCall, organization_id: string): Promise<CountedOrganization> {
    const answer = await decide(call, await statusParameters(call, organization_id));
    const { organization } = answer.found;
    if (answer.outcome === 'undecided') {
      if (assertNotOffboarded(organization).status === to) return presentCounted(organization);
      throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
    }
    // A repeat tells of the change, whatever has become of the organization since. The counts are those of now.
    const before = organizationState.parse(JSON.parse(answer.event.state));
    return presentCounted(organization.map((now) => ({ ...now, ...before, status: to })));
  };
}

/**
 * Suspends an organization. From the commit on its keys can change nothing. They can read until the caches have forgotten
 * them, at most 60 s. Everything that it has stays. To suspend it again has no effect.
 *
 * @throws DomainError `organization_not_found`, `organization_offboarded`, and the errors of every operator's mutation
 *   (decision/operator.ts)
 */
export const suspendOrganization = changer(suspension, 'suspended');

/** Resumes a suspended organization. Its keys work again. To resume an active one has no effect. It throws the same. */
export const resumeOrganization = changer(resumption, 'active');
