import { and, eq, sql } from 'drizzle-orm';
import type { Placeholder } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { foldedRange } from '../core/folded-name.ts';
import { text } from '../core/text.ts';
import { organizationStatuses, tiers } from '../core/vocabulary.ts';
import { isRare } from '../d1/columns.ts';
import { AFTER_ALL, keysetList, listParameters } from '../d1/list.ts';
import type { FilterOf } from '../d1/list.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { nearest } from '../d1/replica-session.ts';
import type { SessionCall } from '../d1/replica-session.ts';
import { integrations, organizations } from '../d1/schema.ts';
import {
  isOrganization,
  MAX_ORGANIZATION_NAME_LENGTH,
  organizationColumns,
  presentOrganizationToOperator,
} from './organization.ts';
import type { OperatedOrganization, OrganizationState } from './organization.ts';

/** The other counts are columns; this one reads a row for each. */
const MAX_COUNTED = 1000;

/** How much an organization has. `refused_verifications`: its integrations whose provider refuses their credentials, up to 1,000. */
interface OrganizationCounts {
  integrations: number;
  phone_numbers: number;
  /** Those that have not ended. */
  api_keys: number;
  refused_verifications: number;
}

export type CountedOrganization = OperatedOrganization & { counts: OrganizationCounts };

/** An organization with what {@link presentCounted} needs; no row if there is none. */
export const findCounted = query((db, parameters: Placeholders<{ organization_id: string }>) => {
  const refused = db
    .select({ one: sql`1`.as('one') })
    .from(integrations)
    .where(
      and(
        eq(integrations.organization_id, parameters.organization_id),
        eq(integrations.verification_status, sql`'refused'`),
      ),
    )
    .limit(MAX_COUNTED);
  return db
    .select({
      ...organizationColumns(),
      integration_count: organizations.integration_count,
      phone_number_count: organizations.phone_number_count,
      api_key_count: organizations.api_key_count,
      refused_count: sql<number>`(SELECT count(*) FROM ${refused})`.as('refused_count'),
    })
    .from(organizations)
    .where(isOrganization(parameters));
});

type FoundOrganization = OrganizationState &
  Record<'integration_count' | 'phone_number_count' | 'api_key_count' | 'refused_count', number>;

/** @throws DomainError `organization_not_found` if there is none */
export function presentCounted([found]: readonly FoundOrganization[]): CountedOrganization {
  if (!found) throw new DomainError('organization_not_found', {});
  return {
    ...presentOrganizationToOperator(found),
    counts: {
      integrations: found.integration_count,
      phone_numbers: found.phone_number_count,
      api_keys: found.api_key_count,
      refused_verifications: found.refused_count,
    },
  };
}

/** @throws DomainError `organization_not_found`, `temporarily_unavailable` */
export async function readOrganization(call: SessionCall, organization_id: string): Promise<CountedOrganization> {
  const { found } = await nearest(call, { found: findCounted.bind({ organization_id }) });
  return presentCounted(found);
}

export const organizationsQuery = z.lazy(() =>
  z.strictObject({
    name_prefix: z.exactOptional(text(1, MAX_ORGANIZATION_NAME_LENGTH)),
    status: z.exactOptional(z.enum(organizationStatuses)),
    tier: z.exactOptional(z.enum(tiers)),
    ...listParameters(),
  }),
);

type Filter = FilterOf<typeof organizationsQuery>;

const predicates = {
  /** Asks both columns that the status is made of, as the indexes have them. Each is rare by itself: SQLite splits the AND. */
  status: (status: Placeholder) =>
    sql`(${isRare(sql`${organizations.status} = iif(${status} = 'offboarding', 'offboarded', ${status})`)} AND ${isRare(sql`${organizations.is_offboarding} = (${status} = 'offboarding')`)})`,
  tier: (tier: Placeholder) => eq(organizations.tier, tier),
};

const byTime = keysetList<Exclude<Filter, 'name_prefix'>, OrganizationState>('organizations', {
  table: organizations,
  ofAllOrganizations: true,
  key: [organizations.created_at, organizations.organization_id],
  keyOf: ({ created_at, organization_id }) => [created_at, organization_id],
  range: () => [
    [0, ''],
    [AFTER_ALL, ''],
  ],
  predicates,
  page: (db, isListed, order, limit) =>
    db
      .select(organizationColumns())
      .from(organizations)
      .where(isListed)
      .orderBy(...order)
      .limit(limit),
});

const byName = keysetList<Filter, OrganizationState & { name_folded: string }>('organizations_by_name', {
  table: organizations,
  ofAllOrganizations: true,
  key: [organizations.name_folded, organizations.organization_id],
  keyOf: ({ name_folded, organization_id }) => [name_folded, organization_id],
  range: ({ name_prefix = '' }) => {
    const [from, to] = foldedRange(String(name_prefix), MAX_ORGANIZATION_NAME_LENGTH);
    return [
      [from, ''],
      [to, ''],
    ];
  },
  predicates: { ...predicates, name_prefix: undefined },
  page: (db, isListed, order, limit) =>
    db
      // Not null, because null is in no range.
      .select({ ...organizationColumns(), name_folded: sql<string>`${organizations.name_folded}`.as('name_folded') })
      .from(organizations)
      .where(isListed)
      .orderBy(...order)
      .limit(limit),
});

/** The organizations: oldest first, or in the order of their folded names if these begin with `name_prefix`. */
export const listOrganizations = (call: SessionCall, request: z.output<typeof organizationsQuery>) => {
  const ofAll = { ...call, organization_id: null };
  return request.name_prefix === undefined ? byTime(ofAll, request) : byName(ofAll, request);
};
