/** What the cron deletes because it is old: in statements of a bounded size, as many as a turn may take. */
import { batch } from './query.ts';
import type { BoundQuery } from './query.ts';

/** Rows that one statement deletes or changes at most: it holds up D1, which is single-threaded, for a fraction of a second. */
export const ROWS_PER_STATEMENT = 5000;
/** In a minute, ten times what an organization of the highest tier can bring. */
const STATEMENTS_PER_TURN = 60;

/**
 * Runs a deletion of at most {@link ROWS_PER_STATEMENT} rows, or an end of them, which returns them, until it finds fewer.
 *
 * @returns how many rows there were
 * @throws DomainError `temporarily_unavailable`
 */
export async function forgetInTurns(database: D1Database, deletion: BoundQuery<unknown[]>): Promise<number> {
  let count = 0;
  for (let turn = 0; turn < STATEMENTS_PER_TURN; turn += 1) {
    const [forgotten] = await batch(database, [deletion]);
    count += forgotten.length;
    if (forgotten.length < ROWS_PER_STATEMENT) break;
  }
  return count;
}
