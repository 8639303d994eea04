/**
 * Quotas: how much an organization may have (docs/contract.md, Quotas). The organization's row has a counter for each,
 * and the limits that an operator has set (d1/schema.ts). So a check reads only that row.
 */
import { and, not, or, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
import { DomainError } from '../core/errors.ts';
import type { Quota, Tier } from '../core/vocabulary.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { organizations } from '../d1/schema.ts';
import { isOrganization } from './organization.ts';

/** The limits of each tier, unless an operator has set others in the organization's row. */
export const quotaDefaults: Record<Tier, Record<Quota, number>> = {
  starter: { integrations: 50, phone_numbers: 1_000, unconfirmed_numbers: 50, api_keys: 50, audit_events: 40_000 },
  pro: { integrations: 500, phone_numbers: 20_000, unconfirmed_numbers: 1_000, api_keys: 1_000, audit_events: 400_000 },
  enterprise: {
    integrations: 10_000,
    phone_numbers: 1_000_000,
    unconfirmed_numbers: 100_000,
    api_keys: 10_000,
    audit_events: 4_000_000,
  },
};

const columns: Record<Quota, { held: SQLiteColumn; limit: SQLiteColumn }> = {
  integrations: { held: organizations.integration_count, limit: organizations.max_integrations },
  phone_numbers: { held: organizations.phone_number_count, limit: organizations.max_phone_numbers },
  unconfirmed_numbers: { held: organizations.unconfirmed_number_count, limit: organizations.max_unconfirmed_numbers },
  api_keys: { held: organizations.api_key_count, limit: organizations.max_api_keys },
  audit_events: { held: organizations.audit_event_count, limit: organizations.max_audit_events },
};

/** The organization's own limit, or else its tier's. For a statement that selects from `organizations`. */
export function limitOf(quota: Quota): SQL<number> {
  const byTier = Object.entries(quotaDefaults).map(
    ([tier, limits]) => sql`WHEN ${sql.raw(`'${tier}'`)} THEN ${sql.raw(String(limits[quota]))}`,
  );
  const { limit } = columns[quota];
  return sql<number>`coalesce(${limit}, CASE ${organizations.tier} ${sql.join(byTier, sql` `)} END)`;
}

/** How many more the organization may have; negative if it has too many. For a statement that selects from `organizations`. */
export const roomFor = (quota: Quota) => sql<number>`(${limitOf(quota)} - ${columns[quota].held})`;

const isFull = (quota: Quota) => sql`${columns[quota].held} >= ${limitOf(quota)}`;

/** Predicate: none of these quotas is reached. For a statement that selects from `organizations`. */
export const hasRoomFor = (quotas: readonly Quota[]) => and(...quotas.map((quota) => not(isFull(quota))));

export interface FullQuota {
  quota: Quota;
  limit: number;
}

/**
 * Predicate: the quota has room for so many more. If they are none, or fewer than before, it always has. For a statement
 * that selects from `organizations`.
 */
export const hasRoomForCount = (quota: Quota, count: SQL<number>) => sql`${count} <= max(${roomFor(quota)}, 0)`;

/** Makes the query that explains a refusal: the first of these quotas that is reached. */
export const fullQuota = (quotas: readonly Quota[]) =>
  quotaWithout(() => quotas.map((quota) => [quota, isFull(quota)]));

/** Makes the query that explains a refusal: the first quota whose predicate holds, which says that it lacks room. */
export const quotaWithout = <Parameters extends { organization_id: string }>(
  lacks: (db: Builder, parameters: Placeholders<Parameters>) => (readonly [Quota, SQL])[],
) =>
  query((db, parameters: Placeholders<Parameters>) => {
    const lacking = lacks(db, parameters);
    const ofFirst = <Value>(value: (quota: Quota) => SQL<Value>) =>
      sql<Value>`CASE ${sql.join(
        lacking.map(([quota, lacksRoom]) => sql`WHEN ${lacksRoom} THEN ${value(quota)}`),
        sql` `,
      )} END`;
    return db
      .select({
        quota: ofFirst((quota) => sql<Quota>`${sql.raw(`'${quota}'`)}`).as('quota'),
        limit: ofFirst(limitOf).as('limit'),
      })
      .from(organizations)
      .where(and(isOrganization(parameters), or(...lacking.map(([, lacksRoom]) => lacksRoom))));
  });

/** @throws DomainError `quota_exceeded` if a quota is reached */
export function assertRoom([full]: FullQuota[]): void {
  if (full) throw new DomainError('quota_exceeded', full);
}
