/** How the cron deletes old rows: a bounded number of statements in a run, each of a bounded number of rows. */
import { batch } from './batch.ts';
import type { BoundQuery } from './query.ts';

/**
 * The most rows that one statement deletes or changes. D1 runs one query at a time, and this one takes a fraction of a
 * second.
 */
export const ROWS_PER_STATEMENT = 5000;
/** The cron runs every minute. This is ten times what an organization of the highest tier can add in a minute. */
const STATEMENTS_PER_RUN = 60;

/**
 * Repeats a statement until it finds fewer than {@link ROWS_PER_STATEMENT} rows. The statement deletes or changes at
 * most that many rows, and returns them.
 *
 * @returns how many rows it deleted or changed
 * @throws DomainError `temporarily_unavailable`
 */
export async function deleteInTurns(database: D1Database, deletion: BoundQuery<unknown[]>): Promise<number> {
  let count = 0;
  for (let turn = 0; turn < STATEMENTS_PER_RUN; turn += 1) {
    const [deleted] = await batch(database, [deletion]);
    count += deleted.length;
    if (deleted.length < ROWS_PER_STATEMENT) break;
  }
  return count;
}
