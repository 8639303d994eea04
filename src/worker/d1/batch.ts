/** The only way to D1: queries in one batch, retried where that is safe. */
import { DeadlineError } from '../core/deadlines.ts';
import { DomainError } from '../core/errors.ts';
import { MAX_TRIES, retry } from '../core/retry.ts';
import type { OfClient } from '../core/retry.ts';
import type { BoundQuery, Rows } from './query.ts';

/** D1, or a session on it. */
export interface Database extends OfClient, Pick<D1Database, 'prepare'> {
  /** @param milliseconds a deadline of its own (core/deadlines.ts) */
  batch<Row>(statements: D1PreparedStatement[], milliseconds?: number): Promise<D1Result<Row>[]>;
}

const MAX_TRIES_WHEN_OVERLOADED = 2;

let lastSize = 0;

/** The size of the database after this isolate's last batch, in bytes; 0 before the first batch. */
export const databaseSize = (): number => lastSize;

type ResultOf<Query> = Query extends BoundQuery<infer Result> ? Result : never;

/** Named reads. Their results have the same names. */
export type Reads = Readonly<Record<string, BoundQuery<unknown>>>;
export type ResultsOf<Named extends Reads> = { [Name in keyof Named]: ResultOf<Named[Name]> };

/**
 * Runs the queries in one D1 batch: one round trip, one transaction. It runs on the primary, unless a session says
 * otherwise.
 *
 * A failed batch is retried unchanged, because it may have failed after its commit ("Network connection lost"). So
 * every batch must be safe to repeat, and a try must do no harm if it arrives late, after a later try was answered.
 * That is why the caller makes ids and times before the first try. A batch that missed its deadline is not retried.
 *
 * @returns the rows of each query, in order. `inDoubt`: an earlier try may have been committed, or may still be.
 *   `isPrimary`: the primary answered
 * @throws DomainError `temporarily_unavailable` if D1 cannot be reached; `outcome` is `not_done` if no try can have
 *   committed a write. An error of the SQL itself (a violated constraint) rolls the batch back and is thrown unchanged.
 * @see https://developers.cloudflare.com/d1/observability/debug-d1/ for D1's error messages
 */
async function run(
  database: Database,
  queries: readonly BoundQuery<unknown>[],
  milliseconds?: number,
): Promise<{ rows: Rows[]; inDoubt: boolean; isPrimary: boolean }> {
  const writes = queries.some((bound) => bound.writes);
  let inDoubt = false;
  try {
    const statements = queries.map(({ sql: text, parameters }) => database.prepare(text).bind(...parameters));
    const answers = await retry(
      () => database.batch<Record<string, unknown>>(statements, milliseconds),
      (error) => {
        const failure = classify(error);
        if (failure === 'sql') return 1;
        if (failure === 'late') {
          inDoubt = writes;
          return 1;
        }
        if (failure === 'overloaded') return MAX_TRIES_WHEN_OVERLOADED;
        if (failure === 'in_doubt') inDoubt = writes;
        return MAX_TRIES;
      },
      database,
    );
    const { size_after = lastSize, served_by_primary } = answers.at(-1)?.meta ?? {};
    lastSize = size_after;
    return { rows: answers.map(({ results }) => results), inDoubt, isPrimary: served_by_primary === true };
  } catch (error) {
    if (classify(error) === 'sql') throw error;
    throw new DomainError('temporarily_unavailable', { outcome: inDoubt ? 'unknown' : 'not_done' }, { cause: error });
  }
}

/** Runs the queries in one D1 batch, as {@link run} does. Returns their results in the same order. */
export async function batch<const Queries extends readonly BoundQuery<unknown>[]>(
  database: Database,
  queries: Queries,
) {
  const { rows } = await run(database, queries);
  return queries.map((bound, index) => bound.readRows(rows[index] ?? [])) as {
    [Index in keyof Queries]: ResultOf<Queries[Index]>;
  };
}

/**
 * Runs the statements in order, and then the reads, in one D1 batch as {@link run} does. The reads see what the
 * statements did.
 *
 * @param milliseconds the batch's deadline, if not that of every call
 * @returns the results of the reads by their names. `acted`: the rows of each statement
 */
export async function actThenRead<Named extends Reads>(
  database: Database,
  statements: readonly BoundQuery<unknown>[],
  reads: Named,
  milliseconds?: number,
): Promise<{ acted: Rows[]; read: ResultsOf<Named>; inDoubt: boolean; isPrimary: boolean }> {
  const { rows, inDoubt, isPrimary } = await run(database, [...statements, ...Object.values(reads)], milliseconds);
  const acted = rows.splice(0, statements.length);
  const read: Record<string, unknown> = {};
  for (const [name, bound] of Object.entries(reads)) read[name] = bound.readRows(rows.shift() ?? []);
  return { acted, read: read as ResultsOf<Named>, inDoubt, isPrimary };
}

/** For a batch that runs before the one that decides: if it fails, the outcome is `not_done`. */
export async function beforeDecision<Result>(batched: Promise<Result>): Promise<Result> {
  try {
    return await batched;
  } catch (error) {
    throw error instanceof DomainError ? nothingDone(error) : error;
  }
}

/** For failures before the batch that decides: nothing that the client asked for has been done. */
export function nothingDone(cause: unknown): DomainError {
  return new DomainError('temporarily_unavailable', { outcome: 'not_done' }, { cause });
}

/**
 * Classifies a failed batch by D1's message: whether to retry it, and whether it may have been committed. Errors of
 * SQLite itself carry its error code; D1's other errors are about reaching or running the database.
 */
function classify(error: unknown): 'overloaded' | 'never_ran' | 'sql' | 'late' | 'in_doubt' {
  if (error instanceof DeadlineError) return 'late';
  const message = messageOf(error);
  if (message.includes('overloaded')) return 'overloaded';
  if (/Cannot resolve D1 DB|while starting up D1 DB|Exceeded maximum DB size|SQLITE_(BUSY|LOCKED|FULL)/.test(message)) {
    return 'never_ran';
  }
  return /\bSQLITE_|^D1_(TYPE|EXEC)_ERROR|^D1_COLUMN_NOTFOUND/.test(message) ? 'sql' : 'in_doubt';
}

export function isForeignKeyViolation(error: unknown): boolean {
  return messageOf(error).includes('FOREIGN KEY constraint failed');
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
