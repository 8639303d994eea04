import { and, eq, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { SQLiteTable } from 'drizzle-orm/sqlite-core';
import { batch } from '../../worker/d1/batch.ts';
import { query } from '../../worker/d1/query.ts';
import type { Builder, Placeholders } from '../../worker/d1/query.ts';
import { api_keys, integrations, organizations, phone_numbers } from '../../worker/d1/schema.ts';
import { isOrganization, organizationColumns } from '../../worker/organizations/organization.ts';
import type { OrganizationState } from '../../worker/organizations/organization.ts';

/** An organization with the counts of what it has. */
export interface OrganizationHoldings extends OrganizationState {
  active_keys: number;
  integrations: number;
  phone_numbers: number;
}

const countOf = (db: Builder, table: SQLiteTable, condition: SQL | undefined) =>
  sql<number>`${db
    .select({ count: sql`count(*)` })
    .from(table)
    .where(condition)}`;

const findHoldings = query((db, parameters: Placeholders<{ organization_id: string }>) => {
  const { organization_id } = parameters;
  return db
    .select({
      ...organizationColumns(),
      active_keys: countOf(
        db,
        api_keys,
        and(eq(api_keys.organization_id, organization_id), eq(api_keys.status, 'active')),
      ).as('active_keys'),
      integrations: countOf(db, integrations, eq(integrations.organization_id, organization_id)).as('integrations'),
      phone_numbers: countOf(db, phone_numbers, eq(phone_numbers.organization_id, organization_id)).as('phone_numbers'),
    })
    .from(organizations)
    .where(isOrganization(parameters));
});

/** An organization with its counts, for the preview of a command; undefined if there is none. */
export async function readOrganization(
  database: D1Database,
  organization_id: string,
): Promise<OrganizationHoldings | undefined> {
  const [[found]] = await batch(database, [findHoldings.bind({ organization_id })]);
  return found;
}
