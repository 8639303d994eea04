/** Counts are exact up to 1,000; we count no further (docs/contract.md, Conventions). */
import { sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { SQLiteTable } from 'drizzle-orm/sqlite-core';
import type { Builder } from './query.ts';

const MAX_COUNTED = 1000;

/** Selects `{ count }` of the table's rows that meet the condition; 1,001 means "more than 1,000". */
export function boundedCount(db: Builder, table: SQLiteTable, condition: SQL | undefined) {
  const counted = db
    .select({ one: sql`1`.as('one') })
    .from(table)
    .where(condition)
    .limit(MAX_COUNTED + 1)
    .as('counted');
  return db.select({ count: sql<number>`count(*)`.as('count') }).from(counted);
}

/** A {@link boundedCount} as an answer shows it. */
export function toldCount(count: number): { count: number; exact: boolean } {
  return { count: Math.min(count, MAX_COUNTED), exact: count <= MAX_COUNTED };
}
