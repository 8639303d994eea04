/** Which endpoints have something to send now. */
import { and, eq, isNull, lt, lte, or, sql } from 'drizzle-orm';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { organizations, webhook_deliveries, webhook_endpoints } from '../d1/schema.ts';

const hasDueDelivery = (db: Builder, { now }: Placeholders<{ now: number }>) =>
  existsIn(
    db,
    webhook_deliveries,
    and(
      eq(webhook_deliveries.organization_id, webhook_endpoints.organization_id),
      eq(webhook_deliveries.endpoint_id, webhook_endpoints.endpoint_id),
      lte(webhook_deliveries.next_attempt_at, now),
    ),
  );

/**
 * Predicate of an endpoint, for a statement that selects from `organizations` too: nobody sends to it now, and it has yet to
 * answer a test, or there are events that have not been tried, or an attempt is due.
 */
const isDue = (db: Builder, parameters: Placeholders<{ now: number }>) =>
  and(
    eq(webhook_endpoints.enabled, sql`1`),
    eq(organizations.organization_id, webhook_endpoints.organization_id),
    eq(organizations.status, 'active'),
    lte(webhook_endpoints.claimed_until, parameters.now),
    lte(webhook_endpoints.resting_until, parameters.now),
    or(
      isNull(webhook_endpoints.verified_at),
      lt(webhook_endpoints.cursor_sequence, organizations.last_sequence),
      hasDueDelivery(db, parameters),
    ),
  );

/** {@link isDue}, for a statement that selects from the endpoints alone. */
export const isDueEndpoint = (db: Builder, parameters: Placeholders<{ now: number }>) =>
  existsIn(db, organizations, isDue(db, parameters));

/** What is due of what is woken, a JSON array of wake-ups. */
export const findDue = query((db, parameters: Placeholders<{ woken: string; now: number }>) =>
  db
    .select({ organization_id: webhook_endpoints.organization_id, endpoint_id: webhook_endpoints.endpoint_id })
    .from(webhook_endpoints)
    .where(
      and(
        sql`EXISTS (SELECT 1 FROM json_each(${parameters.woken}) WHERE value ->> 'organization_id' = ${webhook_endpoints.organization_id}
          AND coalesce(value ->> 'endpoint_id', ${webhook_endpoints.endpoint_id}) = ${webhook_endpoints.endpoint_id})`,
        sql`${webhook_endpoints.organization_id} IN (SELECT value ->> 'organization_id' FROM json_each(${parameters.woken}))`,
        isDueEndpoint(db, parameters),
      ),
    ),
);

/** Organizations with endpoints that are due: at random, so that those which fail each time do not hold up the others. */
export const findOrganizationsDue = query((db, parameters: Placeholders<{ now: number; limit: number }>) =>
  db
    .selectDistinct({ organization_id: webhook_endpoints.organization_id })
    .from(webhook_endpoints)
    .crossJoin(organizations)
    .where(isDue(db, parameters))
    .orderBy(sql`random()`)
    .limit(parameters.limit),
);
