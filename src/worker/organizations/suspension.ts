import { and, eq, sql } from 'drizzle-orm';
import { DomainError } from '../core/errors.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { organizations } from '../d1/schema.ts';
import type { OperatorCall } from '../decision/call.ts';
import { eventRecorder, hasDecided } from '../decision/event.ts';
import { mayOperate, operatorMutation } from '../decision/operator.ts';
import { isAsSeen, parametersAsSeen } from './as-seen.ts';
import type { AsSeenParameters } from './as-seen.ts';
import { assertNotOffboarded, organizationState } from './organization.ts';
import type { OrganizationState } from './organization.ts';
import { findCounted, presentCounted } from './read.ts';
import type { CountedOrganization } from './read.ts';

type Status = OrganizationState['status'];

/** The statements that change the status. */
function statusChange(action: 'organization.suspended' | 'organization.resumed', from: Status, to: Status) {
  const recordChange = eventRecorder<AsSeenParameters>({
    table: organizations,
    target_id: organizations.organization_id,
    action,
    where: (db, parameters) =>
      and(isAsSeen(parameters), eq(organizations.status, from), mayOperate('organizations:suspend', db, parameters)),
  });

  const changeStatus = query((db, parameters: Placeholders<AsSeenParameters>) =>
    db
      .update(organizations)
      .set({ status: to, change_count: sql`${organizations.change_count} + 1` })
      .where(and(isAsSeen(parameters), eq(organizations.status, from), hasDecided(db, parameters))),
  );
  return [recordChange, changeStatus];
}

export const suspension = statusChange('organization.suspended', 'active', 'suspended');
export const resumption = statusChange('organization.resumed', 'suspended', 'active');

const found = { organization: findCounted };

function changer(statements: typeof suspension, to: Status) {
  const decide = operatorMutation<AsSeenParameters, typeof found>('organizations:suspend', { statements, found });

  return async function change(call: OperatorCall, organization_id: string): Promise<CountedOrganization> {
    const answer = await decide(call, await parametersAsSeen(call, organization_id));
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
