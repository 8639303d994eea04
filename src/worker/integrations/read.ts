import { eq } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { categories, integrationStatuses, providerNames, verificationStatuses } from '../core/vocabulary.ts';
import { batch } from '../d1/batch.ts';
import { AFTER_ALL, keysetList, listParameters } from '../d1/list.ts';
import type { FilterOf } from '../d1/list.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import type { ReadingCall } from '../d1/replica-session.ts';
import { nearest } from '../d1/replica-session.ts';
import { integrations } from '../d1/schema.ts';
import { integrationColumns, isIntegration, presentIntegration } from './integration.ts';
import type { Integration, IntegrationState } from './integration.ts';

const findIntegration = query((db, parameters: Placeholders<{ organization_id: string; integration_id: string }>) =>
  db.select(integrationColumns()).from(integrations).where(isIntegration(parameters)),
);

/** @throws DomainError `integration_not_found`, `temporarily_unavailable` */
export async function readIntegration(call: ReadingCall, integration_id: string): Promise<Integration> {
  const { organization_id } = call;
  const [[found]] = await nearest(call, (database) =>
    batch(database, [findIntegration.bind({ organization_id, integration_id })]),
  );
  if (!found) throw new DomainError('integration_not_found', {});
  return presentIntegration(found);
}

export const integrationsQuery = z.lazy(() =>
  z.strictObject({
    provider: z.exactOptional(z.enum(providerNames)),
    category: z.exactOptional(z.enum(categories)),
    status: z.exactOptional(z.enum(integrationStatuses)),
    verification: z.exactOptional(z.enum(verificationStatuses)),
    ...listParameters(),
  }),
);

/** The integrations, oldest first. */
export const listIntegrations = keysetList<FilterOf<typeof integrationsQuery>, IntegrationState>('integrations', {
  table: integrations,
  key: [integrations.created_at, integrations.integration_id],
  keyOf: ({ created_at, integration_id }) => [created_at, integration_id],
  range: () => [
    [0, ''],
    [AFTER_ALL.number, ''],
  ],
  predicates: {
    provider: (value) => eq(integrations.provider, value),
    category: (value) => eq(integrations.category, value),
    status: (value) => eq(integrations.status, value),
    verification: (value) => eq(integrations.verification_status, value),
  },
  page: (db, isListed, order, limit) =>
    db
      .select(integrationColumns())
      .from(integrations)
      .where(isListed)
      .orderBy(...order)
      .limit(limit),
});
