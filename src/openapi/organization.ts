import * as z from 'zod';
import { storedOrganizationStatuses, tiers } from '../worker/core/vocabulary.ts';
import type { Organization } from '../worker/organizations/organization.ts';
import { time } from './operation.ts';

/** An organization as its own clients see it. */
export const organizationSchema = z
  .object({
    client_id: z.string().meta({ description: 'The organization.' }),
    name: z.string().nullable().meta({ description: 'Null if it was given none.' }),
    tier: z.enum(tiers),
    status: z.enum(storedOrganizationStatuses),
    created_at: time,
  })
  .meta({ id: 'Organization', title: 'Organization' }) satisfies z.ZodType<Organization>;

export const organizationExample: Organization = {
  client_id: 'org_abc123',
  name: 'Acme',
  tier: 'pro',
  status: 'active',
  created_at: '2024-01-15T10:30:00Z',
};
