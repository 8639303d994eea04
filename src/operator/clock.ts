/** D1's clock. Isolates and operators' machines have clocks that differ; this one is the same for all. */
import { sql } from 'drizzle-orm';
import { batch } from '../worker/d1/batch.ts';
import { query } from '../worker/d1/query.ts';

const readClock = query((db) => db.select({ now: sql<number>`unixepoch()`.as('now') }).from(sql`(SELECT 1)`));

/**
 * @returns unix seconds
 * @throws DomainError `temporarily_unavailable`
 */
export async function databaseNow(database: D1Database): Promise<number> {
  const [[clock]] = await batch(database, [readClock.bind({})]);
  if (!clock) throw new Error('D1 returned no time.');
  return clock.now;
}
