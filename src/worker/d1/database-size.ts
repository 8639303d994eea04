/**
 * What is done before a database is full: D1 refuses every write then, deletions too
 * (https://developers.cloudflare.com/d1/platform/limits/: 10 GB).
 */
import { createMiddleware } from 'hono/factory';
import type { AppEnv, Bindings } from '../env.ts';
import { logAlert } from '../core/log.ts';
import { DomainError } from '../core/errors.ts';
import { batch, databaseSize, query } from './query.ts';
import { organizations } from './schema.ts';

const MAX_BYTES = 10e9;
const GROWTH_ENDS_AT_BYTES = 0.95 * MAX_BYTES;
const ALERT_AT_BYTES = 0.7 * MAX_BYTES;

/**
 * Middleware behind `authenticate`: refuses what makes the database grow once it is nearly full, by the size that the isolate
 * saw last. What reads and what deletes goes on.
 *
 * @throws DomainError `temporarily_unavailable` (`not_done`)
 */
export const refuseGrowth = createMiddleware<AppEnv>(async (c, next) => {
  const grows = c.req.method === 'POST' || c.req.method === 'PUT';
  if (grows && databaseSize() > GROWTH_ENDS_AT_BYTES) {
    throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  }
  await next();
});

const askForSize = query((db) => db.select({ tier: organizations.tier }).from(organizations).limit(1));

/** The cron's turn: alerts by `database_filling` from 70 % on. */
export async function watchSize({ DB }: Bindings): Promise<void> {
  await batch(DB, [askForSize.bind({})]);
  const bytes = databaseSize();
  if (bytes > ALERT_AT_BYTES) {
    logAlert('database_filling', { bytes, percent: Math.round((bytes / MAX_BYTES) * 100) });
  }
}
