import { and, eq } from 'drizzle-orm';
import * as z from 'zod';
import { toIso } from '../core/time.ts';
import { categories, integrationStatuses, providerNames } from '../core/vocabulary.ts';
import { columnsOf } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations } from '../d1/schema.ts';

/** An integration as it is in the `state` of its audit events. */
export const integrationState = z.lazy(() =>
  z.object({
    integration_id: z.string(),
    organization_id: z.string(),
    name: z.string(),
    provider: z.enum(providerNames),
    category: z.enum(categories),
    status: z.enum(integrationStatuses),
    credentials_version: z.string(),
    created_at: z.int(),
    updated_at: z.int(),
  }),
);

export type IntegrationState = Omit<z.output<typeof integrationState>, 'credentials_version'>;

/** The columns that {@link presentIntegration} needs. */
export const integrationColumns = () =>
  columnsOf(integrations, integrationState.unwrap().omit({ credentials_version: true }));

interface IntegrationParameters {
  organization_id: string;
  /** Null selects no integration. */
  integration_id: string | null;
}

/** Selects one integration of one organization. */
export const isIntegration = ({ organization_id, integration_id }: Placeholders<IntegrationParameters>) =>
  and(eq(integrations.organization_id, organization_id), eq(integrations.integration_id, integration_id));

/** The provider of one integration. It explains refusals: without a row, there is no such integration. */
export const findProvider = query((db, parameters: Placeholders<IntegrationParameters>) =>
  db.select({ provider: integrations.provider }).from(integrations).where(isIntegration(parameters)),
);

/**
 * An integration as clients see it, with the members in the order of docs/contract.md (DELETE
 * /api/integrations/{integration_id}).
 */
export function presentIntegration(state: IntegrationState) {
  return {
    integration_id: state.integration_id,
    client_id: state.organization_id,
    name: state.name,
    provider: state.provider,
    category: state.category,
    status: state.status,
    created_at: toIso(state.created_at),
    updated_at: toIso(state.updated_at),
  };
}

export type Integration = ReturnType<typeof presentIntegration>;
