import { eq } from 'drizzle-orm';
import * as z from 'zod';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { organizations } from '../d1/schema.ts';
import { organizationStatuses, tiers } from '../core/vocabulary.ts';
import { toIso } from '../core/time.ts';

/** An organization as it is in the `state` of its audit events. */
export const organizationState = z.lazy(() =>
  z.object({
    organization_id: z.string(),
    tier: z.enum(tiers),
    created_at: z.int(),
    status: z.enum(organizationStatuses),
  }),
);

export type OrganizationState = z.output<typeof organizationState>;

/** Selects one organization. */
export const isOrganization = ({ organization_id }: Placeholders<{ organization_id: string }>) =>
  eq(organizations.organization_id, organization_id);

/** An offboarded organization cannot be given anything again. */
export class OffboardedError extends Error {
  constructor(organization_id: string) {
    super(`${organization_id} is offboarded, for good`);
    this.name = 'OffboardedError';
  }
}

/** The organization has changed since the command looked at it. */
export class ChangedMeanwhileError extends Error {
  constructor(organization_id: string) {
    super(`${organization_id} was changed meanwhile`);
    this.name = 'ChangedMeanwhileError';
  }
}

export const readStatus = query((db, parameters: Placeholders<{ organization_id: string }>) =>
  db
    .select({ status: organizations.status, change_count: organizations.change_count })
    .from(organizations)
    .where(isOrganization(parameters)),
);

/** An organization as clients see it in their audit events. */
export function presentOrganization(state: OrganizationState) {
  return {
    client_id: state.organization_id,
    tier: state.tier,
    status: state.status,
    created_at: toIso(state.created_at),
  };
}

export type Organization = ReturnType<typeof presentOrganization>;
