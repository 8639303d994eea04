import { eq } from 'drizzle-orm';
import * as z from 'zod/mini';
import { toIso } from '../core/time.ts';
import { organizationStatuses, tiers } from '../core/vocabulary.ts';
import { columnsOf } from '../d1/columns.ts';
import type { Placeholders } from '../d1/query.ts';
import { organizations } from '../d1/schema.ts';

const fields = () => ({
  organization_id: z.string(),
  tier: z.enum(tiers),
  created_at: z.int(),
  status: z.enum(organizationStatuses),
});

/** An organization as it is in the `state` of its audit events. */
export const organizationState = z.lazy(() => z.object(fields()));

export type OrganizationState = z.output<typeof organizationState>;

/** The columns that {@link presentOrganization} needs. */
export const organizationColumns = () => columnsOf(organizations, fields());

/** Selects one organization. */
export const isOrganization = ({ organization_id }: Placeholders<{ organization_id: string }>) =>
  eq(organizations.organization_id, organization_id);

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
