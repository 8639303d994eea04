/**
 * Keeps the database from getting full. D1 refuses every write to a full database, deletes too. The limit is 10 GB:
 * https://developers.cloudflare.com/d1/platform/limits/
 */
import { logAlert } from '../core/log.ts';
import type { Bindings } from '../env.ts';
import { batch, databaseSize } from './batch.ts';
import { beat } from './heartbeat.ts';
import { query } from './query.ts';
import { organizations } from './schema.ts';

const MAX_BYTES = 10e9;
const GROWTH_ENDS_AT_BYTES = 0.95 * MAX_BYTES;
const ALERT_AT_BYTES = 0.7 * MAX_BYTES;

/** Whether calls that make the database grow must be refused, by the size that this isolate saw last. */
export const isNearlyFull = (): boolean => databaseSize() > GROWTH_ENDS_AT_BYTES;

const askForSize = query((db) => db.select({ tier: organizations.tier }).from(organizations).limit(1));

/**
 * A task of the cron: logs the alert `database_filling` when the database is more than 70 % full. It also renews the heartbeat,
 * for hours when nobody else writes.
 */
export async function watchSize({ DB }: Bindings): Promise<void> {
  await batch(DB, [beat.bind({}), askForSize.bind({})]);
  const bytes = databaseSize();
  if (bytes > ALERT_AT_BYTES) {
    logAlert('database_filling', { bytes, percent: Math.round((bytes / MAX_BYTES) * 100) });
  }
}
