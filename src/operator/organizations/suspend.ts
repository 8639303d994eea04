import { batch } from '../../worker/d1/batch.ts';
import { assertNothingInDoubt, carryOut } from '../../worker/decision/event.ts';
import { findStatus, organizationState } from '../../worker/organizations/organization.ts';
import type { OrganizationState } from '../../worker/organizations/organization.ts';
import { resumption, suspension } from '../../worker/organizations/suspension.ts';
import { commandCall, commandParameters } from '../call.ts';

const changer = (statements: typeof suspension) =>
  async function change(database: D1Database, organization_id: string): Promise<OrganizationState | undefined> {
    const [[seen]] = await batch(database, [findStatus.bind({ organization_id })]);
    if (!seen) return undefined;
    const parameters = { ...commandParameters(commandCall(organization_id)), change_count: seen.change_count };
    const { event, inDoubt } = await carryOut(database, statements, parameters);
    if (!event) assertNothingInDoubt(inDoubt);
    return event && organizationState.parse(JSON.parse(event.state));
  };

/**
 * Suspends an active organization. From the commit on its keys can change nothing. They can read until the caches have
 * forgotten them, at most 60 s. Everything that it has stays.
 *
 * @returns the organization as it was just before; undefined if there is none, or it is not active
 * @throws DomainError `temporarily_unavailable`
 */
export const suspendOrganization = changer(suspension);

/**
 * Resumes a suspended organization. Its keys work again.
 *
 * @returns the organization as it was just before; undefined if there is none, or it is not suspended
 * @throws DomainError `temporarily_unavailable`
 */
export const resumeOrganization = changer(resumption);
