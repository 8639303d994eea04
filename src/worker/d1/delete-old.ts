/** How the cron deletes old rows: in statements of a bounded size, as many as one run may take. */
import { batch } from './batch.ts';
import type { BoundQuery } from './query.ts';

/** Rows that one statement deletes or changes at most. D1 does one thing at a time, and is held up for a fraction of a second. */
export const ROWS_PER_STATEMENT = 5000;
/** In a minute, ten times what an organization of the highest tier can bring. */
const STATEMENTS_PER_RUN = 60;

/**
 * Repeats a statement that deletes or ends at most {@link ROWS_PER_STATEMENT} rows, and returns them, until it finds fewer.
 *
 * @returns how many rows there were
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
