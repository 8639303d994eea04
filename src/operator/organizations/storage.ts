/**
 * How much of the database each organization uses. D1 has no `dbstat`, so this counts rows and multiplies by the
 * measured size of a row of each table.
 */
import { sql } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import { batch } from '../../worker/d1/batch.ts';
import { query } from '../../worker/d1/query.ts';
import {
  api_keys,
  credential_purges,
  idempotency_keys,
  organizations,
  webhook_deliveries,
  webhook_endpoints,
  webhook_secrets,
} from '../../worker/d1/schema.ts';

export const storedTables = [
  'integrations',
  'phone_numbers',
  'api_keys',
  'audit_events',
  'idempotency_keys',
  'credential_purges',
  'webhook_endpoints',
  'webhook_secrets',
  'webhook_deliveries',
] as const;

type StoredTable = (typeof storedTables)[number];

/** The size of a typical row with its index entries. `test/storage.test.ts` measures it. */
export const bytesPerRow: Record<StoredTable, number> = {
  integrations: 850,
  phone_numbers: 800,
  api_keys: 430,
  audit_events: 1000,
  idempotency_keys: 330,
  credential_purges: 170,
  webhook_endpoints: 230,
  webhook_secrets: 280,
  webhook_deliveries: 500,
};

export interface StoredRows {
  table: StoredTable;
  rows: number;
  /** An estimate. */
  bytes: number;
}

export interface OrganizationStorage {
  organization_id: string;
  bytes: number;
  /** The biggest first, without empty ones. */
  tables: StoredRows[];
}

const counters = query((db) =>
  db
    .select({
      organization_id: organizations.organization_id,
      integrations: sql<number>`${organizations.integration_count}`.as('integrations'),
      phone_numbers: sql<number>`${organizations.phone_number_count}`.as('phone_numbers'),
      audit_events:
        sql<number>`${organizations.audit_event_count} + ${organizations.refusal_count} + ${organizations.read_count}`.as(
          'audit_events',
        ),
    })
    .from(organizations),
);

const countByOrganization = (table: SQLiteTable & { organization_id: SQLiteColumn }) =>
  query((db) =>
    db
      .select({
        organization_id: sql<string>`${table.organization_id}`.as('organization_id'),
        rows: sql<number>`count(*)`.as('rows'),
      })
      .from(table)
      .groupBy(table.organization_id),
  );

const countKeys = countByOrganization(api_keys);
const countIdempotencyKeys = countByOrganization(idempotency_keys);
const countPurges = countByOrganization(credential_purges);
const countEndpoints = countByOrganization(webhook_endpoints);
const countSecrets = countByOrganization(webhook_secrets);
const countDeliveries = countByOrganization(webhook_deliveries);

/**
 * How much each organization uses, the biggest first.
 *
 * @throws DomainError `temporarily_unavailable`
 */
export async function readStorage(database: D1Database): Promise<OrganizationStorage[]> {
  const [counted, ...others] = await batch(database, [
    counters.bind({}),
    countKeys.bind({}),
    countIdempotencyKeys.bind({}),
    countPurges.bind({}),
    countEndpoints.bind({}),
    countSecrets.bind({}),
    countDeliveries.bind({}),
  ]);
  const [keys, remembered, purges, endpoints, secrets, deliveries] = others.map(byOrganization);

  const stored = counted.map(({ organization_id, ...held }) => {
    const rowsOf: Record<StoredTable, number> = {
      ...held,
      api_keys: keys?.get(organization_id) ?? 0,
      idempotency_keys: remembered?.get(organization_id) ?? 0,
      credential_purges: purges?.get(organization_id) ?? 0,
      webhook_endpoints: endpoints?.get(organization_id) ?? 0,
      webhook_secrets: secrets?.get(organization_id) ?? 0,
      webhook_deliveries: deliveries?.get(organization_id) ?? 0,
    };
    const tables = storedTables
      .map((table) => ({ table, rows: rowsOf[table], bytes: rowsOf[table] * bytesPerRow[table] }))
      .filter(({ rows }) => rows > 0)
      .toSorted((one, other) => other.bytes - one.bytes);
    return { organization_id, bytes: tables.reduce((sum, { bytes }) => sum + bytes, 0), tables };
  });
  return stored.toSorted((one, other) => other.bytes - one.bytes);
}

const byOrganization = (counted: { organization_id: string; rows: number }[]) =>
  new Map(counted.map(({ organization_id, rows }) => [organization_id, rows]));
