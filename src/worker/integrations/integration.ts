import { and, eq } from 'drizzle-orm';
import * as z from 'zod';
import { toIso } from '../core/time.ts';
import { categories, integrationStatuses, providerNames, verificationStatuses } from '../core/vocabulary.ts';
import { columnsOf } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations } from '../d1/schema.ts';

/** An integration as it is in the `state` of its audit events. Events older than verification lack what has a default. */
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
    account_hint: z.string().nullable().default(null),
    verification_status: z.enum(verificationStatuses).default('unverified'),
    verification_checked_at: z.int().nullable().default(null),
    verification_provider_status: z.int().nullable().default(null),
    verification_provider_code: z.string().nullable().default(null),
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
 * A deleted integration as clients see it, with the members in the order of docs/contract.md (DELETE
 * /api/integrations/{integration_id}).
 */
export function presentDeletedIntegration(state: IntegrationState) {
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

export type DeletedIntegration = ReturnType<typeof presentDeletedIntegration>;

/** An integration as clients see it. */
export function presentIntegration(state: IntegrationState) {
  const { verification_checked_at: checked_at } = state;
  return {
    ...presentDeletedIntegration(state),
    account_hint: state.account_hint,
    verification: {
      status: state.verification_status,
      checked_at: checked_at === null ? null : toIso(checked_at),
      provider_status: state.verification_provider_status,
      provider_code: state.verification_provider_code,
      detail: detailOf(state),
    },
  };
}

export type Integration = ReturnType<typeof presentIntegration>;

/** What the outcome of a check means, as a sentence for people. */
function detailOf({ verification_status, verification_provider_status }: IntegrationState): string {
  switch (verification_status) {
    case 'unverified':
      return 'The provider has not been asked about these credentials.';
    case 'verified':
      return 'The provider accepted the credentials.';
    case 'limited':
      return 'The provider knows the credentials, but did not permit the call: they are restricted, or the account is suspended.';
    case 'refused':
      return 'The provider refused the credentials.';
    case 'unreachable':
      return verification_provider_status === null
        ? 'The provider did not answer.'
        : `The provider answered with status ${verification_provider_status} in a way that says nothing about the credentials.`;
  }
}
