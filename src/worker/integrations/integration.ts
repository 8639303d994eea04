import { and, eq } from 'drizzle-orm';
import * as z from 'zod/mini';
import { toIso } from '../core/time.ts';
import { categories, integrationStatuses, providerNames, verificationStatuses } from '../core/vocabulary.ts';
import { columnsOf } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations } from '../d1/schema.ts';
import { entityTag } from '../http/entity-tags.ts';

export const MAX_NAME_LENGTH = 100;

/** What the answer to a delete shows, and the version of the credentials. Every event has it. */
const oldestFields = () => ({
  integration_id: z.string(),
  organization_id: z.string(),
  name: z.string(),
  provider: z.enum(providerNames),
  category: z.enum(categories),
  status: z.enum(integrationStatuses),
  credentials_version: z.string(),
  created_at: z.int(),
  updated_at: z.int(),
});

const fields = () => ({
  ...oldestFields(),
  revision: z._default(z.int(), 1),
  account_hint: z._default(z.nullable(z.string()), null),
  verification_status: z._default(z.enum(verificationStatuses), 'unverified'),
  verification_checked_at: z._default(z.nullable(z.int()), null),
  verification_provider_status: z._default(z.nullable(z.int()), null),
  verification_provider_code: z._default(z.nullable(z.string()), null),
});

/** An integration as it is in the `state` of its audit events. Older events lack what has a default. */
export const integrationState = z.lazy(() => z.object(fields()));

/** What a delete needs of it. */
export const deletedState = z.lazy(() => z.object(oldestFields()));

export type IntegrationState = Omit<z.output<typeof integrationState>, 'credentials_version'>;

/** The columns that {@link presentIntegration} needs. */
export const integrationColumns = () => {
  const { credentials_version: _, ...shown } = fields();
  return columnsOf(integrations, shown);
};

interface IntegrationParameters {
  organization_id: string;
  /** Null selects no integration. */
  integration_id: string | null;
}

/** Selects one integration of one organization. */
export const isIntegration = ({ organization_id, integration_id }: Placeholders<IntegrationParameters>) =>
  and(eq(integrations.organization_id, organization_id), eq(integrations.integration_id, integration_id));

/** What a number's integration must be. It explains refusals: without a row, there is no such integration. */
export const findTarget = query((db, parameters: Placeholders<IntegrationParameters>) =>
  db
    .select({ provider: integrations.provider, credentials_version: integrations.credentials_version })
    .from(integrations)
    .where(isIntegration(parameters)),
);

export type Target = Pick<typeof integrations.$inferSelect, 'provider' | 'credentials_version'>;

/**
 * A deleted integration as clients see it, with the members in the order of docs/contract.md (DELETE
 * /api/integrations/{integration_id}).
 */
export function presentDeletedIntegration(state: Omit<z.output<typeof deletedState>, 'credentials_version'>) {
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

/** The ETag of an integration. A check changes what clients see, and not the revision. */
export const tagOf = ({ revision, verification_checked_at }: IntegrationState) =>
  entityTag(revision, verification_checked_at ?? 0);

export type Integration = ReturnType<typeof presentIntegration>;

/** The columns that {@link presentListedIntegration} needs. */
export const listedIntegrationColumns = () => ({
  ...integrationColumns(),
  phone_number_count: integrations.phone_number_count,
});

export type ListedIntegrationState = IntegrationState & { phone_number_count: number };

/** An integration in a list. Its own answers do not tell the count, because that changes without it. */
export const presentListedIntegration = (state: ListedIntegrationState) => ({
  ...presentIntegration(state),
  phone_number_count: state.phone_number_count,
});

export type ListedIntegration = ReturnType<typeof presentListedIntegration>;

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
