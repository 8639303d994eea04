/**
 * Counts the credentials that providers refuse. After 20 in an hour, nothing of the organization is checked for an hour, so
 * that nobody can find out by us which of many stolen credentials work.
 */
import { and, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import { DomainError } from '../core/errors.ts';
import { logAlert, logWarning } from '../core/log.ts';
import type { Provider } from '../core/vocabulary.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { organizations } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { isOrganization } from '../organizations/organization.ts';

export const MAX_REFUSALS = 20;
const PERIOD_SECONDS = 3600;

interface RefusalParameters {
  organization_id: string;
  /** Unix seconds. */
  now: number;
}

/**
 * Makes the statement that counts a refusal, and returns the new count, where `isNew` holds. It must no longer hold after
 * the batch, so that a late try counts nothing.
 */
export const refusalCounter = <Parameters extends RefusalParameters>(
  isNew: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined,
) =>
  query((db, parameters: Placeholders<Parameters>) => {
    const { now } = parameters;
    const { refused_check_count, refused_checks_since, checks_stopped_until } = organizations;
    const isOver = sql`${refused_checks_since} + ${sql.raw(String(PERIOD_SECONDS))} <= ${now}`;
    const count = sql<number>`iif(${isOver}, 0, ${refused_check_count}) + 1`;
    const stop = sql`${now} + ${sql.raw(String(PERIOD_SECONDS))}`;
    return db
      .update(organizations)
      .set({
        refused_check_count: count,
        refused_checks_since: sql`iif(${isOver}, ${now}, ${refused_checks_since})`,
        checks_stopped_until: sql`iif(${count} >= ${sql.raw(String(MAX_REFUSALS))}, ${stop}, ${checks_stopped_until})`,
      })
      .where(and(isOrganization(parameters), isNew(db, parameters)))
      .returning({ refused_check_count });
  });

/**
 * Logs what {@link refusalCounter} counted.
 *
 * @returns whether nothing of the organization is checked from now on
 */
export function logRefusal(
  organization_id: string,
  provider: Provider,
  [counted]: { refused_check_count: number }[],
): boolean {
  if (!counted) return false;
  const count = counted.refused_check_count;
  logWarning('credentials_refused', { organization_id, provider, count });
  if (count < MAX_REFUSALS) return false;
  logAlert('verification_limited', { organization_id, count });
  return true;
}

/** @throws DomainError `verification_limited` */
export function assertNotStopped({ told }: ApiCall, checks_stopped_until: number, now: number): void {
  if (checks_stopped_until <= now) return;
  told.exhausted = { name: 'refused_credentials', calls: MAX_REFUSALS, period_seconds: PERIOD_SECONDS };
  throw new DomainError('verification_limited', { retry_after_seconds: checks_stopped_until - now });
}
