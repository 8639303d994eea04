import { eq, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { foldedRange } from '../core/folded-name.ts';
import { text } from '../core/text.ts';
import { categories, integrationStatuses, providerNames, verificationStatuses } from '../core/vocabulary.ts';
import { AFTER_ALL, keysetList, listParameters, ofOneGroup } from '../d1/list.ts';
import type { FilterOf } from '../d1/list.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import type { ReadingCall } from '../d1/replica-session.ts';
import { nearest } from '../d1/replica-session.ts';
import { integrations } from '../d1/schema.ts';
import { integrationColumns, isIntegration, listedIntegrationColumns, MAX_NAME_LENGTH } from './integration.ts';
import type { IntegrationState, ListedIntegrationState } from './integration.ts';

const findIntegration = query((db, parameters: Placeholders<{ organization_id: string; integration_id: string }>) =>
  db.select(integrationColumns()).from(integrations).where(isIntegration(parameters)),
);

/** @throws DomainError `integration_not_found`, `temporarily_unavailable` */
export async function readIntegration(call: ReadingCall, integration_id: string): Promise<IntegrationState> {
  const { organization_id } = call;
  const {
    found: [found],
  } = await nearest(call, { found: findIntegration.bind({ organization_id, integration_id }) });
  if (!found) throw new DomainError('integration_not_found', {});
  return found;
}

export const integrationsQuery = z.lazy(() =>
  z
    .strictObject({
      provider: z.exactOptional(z.enum(providerNames)),
      category: z.exactOptional(z.enum(categories)),
      status: z.exactOptional(z.enum(integrationStatuses)),
      verification: z.exactOptional(z.enum(verificationStatuses)),
      name_prefix: z.exactOptional(text(1, MAX_NAME_LENGTH)),
      ...listParameters(),
    })
    .check(ofOneGroup([['name_prefix'], ['provider', 'status', 'verification']])),
);

type Filter = FilterOf<typeof integrationsQuery>;

const byTime = keysetList<Exclude<Filter, 'name_prefix'>, ListedIntegrationState>('integrations', {
  table: integrations,
  key: [integrations.created_at, integrations.integration_id],
  keyOf: ({ created_at, integration_id }) => [created_at, integration_id],
  range: () => [
    [0, ''],
    [AFTER_ALL, ''],
  ],
  predicates: {
    provider: (value) => eq(integrations.provider, value),
    category: (value) => eq(integrations.category, value),
    status: (value) => eq(integrations.status, value),
    verification: (value) => eq(integrations.verification_status, value),
  },
  page: (db, isListed, order, limit) =>
    db
      .select(listedIntegrationColumns())
      .from(integrations)
      .where(isListed)
      .orderBy(...order)
      .limit(limit),
});

const byName = keysetList<'category' | 'name_prefix', ListedIntegrationState & { name_folded: string }>(
  'integrations_by_name',
  {
    table: integrations,
    key: [integrations.name_folded, integrations.integration_id],
    keyOf: ({ name_folded, integration_id }) => [name_folded, integration_id],
    range: ({ name_prefix = '' }) => {
      const [from, to] = foldedRange(String(name_prefix), MAX_NAME_LENGTH);
      return [
        [from, ''],
        [to, ''],
      ];
    },
    predicates: { category: (value) => eq(integrations.category, value), name_prefix: undefined },
    page: (db, isListed, order, limit) =>
      db
        // Not null, because null is in no range.
        .select({
          ...listedIntegrationColumns(),
          name_folded: sql<string>`${integrations.name_folded}`.as('name_folded'),
        })
        .from(integrations)
        .where(isListed)
        .orderBy(...order)
        .limit(limit),
  },
);

/** The integrations: oldest first, or in the order of their folded names if these begin with `name_prefix`. */
export const listIntegrations = (call: ReadingCall, request: z.output<typeof integrationsQuery>) =>
  request.name_prefix === undefined ? byTime(call, request) : byName(call, request);
