import { eq } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { toIso } from '../core/time.ts';
import { storedOrganizationStatuses, tiers } from '../core/vocabulary.ts';
import type { OrganizationStatus } from '../core/vocabulary.ts';
import { columnsOf } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { organizations } from '../d1/schema.ts';

export const MAX_ORGANIZATION_NAME_LENGTH = 100;

const fields = () => ({
  organization_id: z.string(),
  tier: z.enum(tiers),
  created_at: z.int(),
  status: z.enum(storedOrganizationStatuses),
  /** The events of earlier versions lack the next two, and no event has the last one: until it is offboarded, it is 0. */
  name: z._default(z.nullable(z.string()), null),
  metadata: z._default(z.string(), '{}'),
  is_offboarding: z._default(z.int(), 0),
});

/** An organization as it is in the `state` of its audit events. */
export const organizationState = z.lazy(() => z.object(fields()));

export type OrganizationState = z.output<typeof organizationState>;

/** The columns that {@link presentOrganization} needs. */
export const organizationColumns = () => columnsOf(organizations, fields());

/** Selects one organization. */
export const isOrganization = ({ organization_id }: Placeholders<{ organization_id: string }>) =>
  eq(organizations.organization_id, organization_id);

/** What there is to know of an organization before an act on it; no row if there is none. */
export const findStatus = query((db, parameters: Placeholders<{ organization_id: string }>) =>
  db
    .select({ status: organizations.status, change_count: organizations.change_count })
    .from(organizations)
    .where(isOrganization(parameters)),
);

/**
 * @param found by {@link findStatus}
 * @throws DomainError `organization_not_found`, `organization_offboarded`
 */
export function assertNotOffboarded<Found extends Pick<OrganizationState, 'status'>>([found]: readonly Found[]): Found {
  if (!found) throw new DomainError('organization_not_found', {});
  if (found.status === 'offboarded') throw new DomainError('organization_offboarded', {});
  return found;
}

const statusOf = ({
  status,
  is_offboarding,
}: Pick<OrganizationState, 'status' | 'is_offboarding'>): OrganizationStatus =>
  status === 'offboarded' && is_offboarding === 1 ? 'offboarding' : status;

/** An organization as its own clients see it, in their audit events. */
export function presentOrganization(state: OrganizationState) {
  return {
    client_id: state.organization_id,
    name: state.name,
    tier: state.tier,
    status: state.status,
    created_at: toIso(state.created_at),
  };
}

export type Organization = ReturnType<typeof presentOrganization>;

const stringsByName = z.record(z.string(), z.string());

/** An organization as operators see it (docs/contract.md, Operators). */
export function presentOrganizationToOperator(state: OrganizationState) {
  return {
    organization_id: state.organization_id,
    name: state.name,
    tier: state.tier,
    status: statusOf(state),
    metadata: stringsByName.parse(JSON.parse(state.metadata)),
    created_at: toIso(state.created_at),
  };
}

export type OperatedOrganization = ReturnType<typeof presentOrganizationToOperator>;
