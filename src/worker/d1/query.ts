/**
 * The only door to D1: queries written with Drizzle, compiled once per isolate, run in one batch.
 *
 * Drizzle's builder costs more CPU than the rest of a request, so no request runs it: a query is built once with
 * placeholders, and a call only fills them in.
 */
import { exists, getTableColumns, is, Param, Placeholder, sql } from 'drizzle-orm';
import type { QueryPromise, SQL } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/sqlite-proxy';
import type { SqliteRemoteDatabase } from 'drizzle-orm/sqlite-proxy';
import type * as z from 'zod';
import type { PreparedQueryConfig, SQLiteColumn, SQLitePreparedQuery, SQLiteTable } from 'drizzle-orm/sqlite-core';
import { DeadlineError } from '../core/deadlines.ts';
import { DomainError } from '../core/errors.ts';
import { MAX_TRIES, retry } from '../core/retry.ts';

/** Drizzle's query builder, without a database behind it. */
export type Builder = SqliteRemoteDatabase;

/** One typed placeholder for each parameter. */
export type Placeholders<Parameters> = {
  readonly [Name in keyof Parameters]: Placeholder<Name & string, Parameters[Name]>;
};

/** A query that the builder has built. */
export interface Compilable<Result> extends QueryPromise<Result> {
  prepare(): Pick<SQLitePreparedQuery<PreparedQueryConfig>, 'getQuery' | 'mapResult'>;
}

/** One statement with its parameters, ready for {@link batch}. */
export interface BoundQuery<Result> {
  readonly sql: string;
  readonly parameters: readonly unknown[];
  readonly writes: boolean;
  /** Maps D1's rows back into what the builder's own types promise. */
  mapRows(rows: Record<string, unknown>[]): Result;
}

export interface CompiledQuery<Parameters, Result> {
  bind(parameters: Parameters): BoundQuery<Result>;
}

const builder: Builder = drizzle(() =>
  Promise.reject(new Error('This Drizzle instance compiles queries and runs none.')),
);

const placeholders = <Parameters>() =>
  new Proxy({} as Placeholders<Parameters>, { get: (_, name) => sql.placeholder(String(name)) });

/**
 * Compiles a Drizzle query on its first use and keeps it for the isolate's life.
 *
 * Placeholders reach SQLite as they are bound, also inside `values()`, so parameters are strings, numbers and null.
 * Columns of a select need distinct names: D1's batch returns rows as objects.
 *
 * @param build receives the builder and one typed placeholder for each parameter
 */
export function query<Parameters extends object, Result>(
  build: (db: Builder, parameters: Placeholders<Parameters>) => Compilable<Result>,
): CompiledQuery<Parameters, Result> {
  let compiled: (Pick<BoundQuery<Result>, 'sql' | 'writes' | 'mapRows'> & { values: BoundValue[] }) | undefined;

  function compile() {
    const prepared = build(builder, placeholders()).prepare();
    const { sql: text, params } = prepared.getQuery();
    return {
      sql: text,
      values: params.map(boundValue),
      writes: !text.startsWith('select'),
      // Drizzle types the result on the builder and erases it on the prepared query.
      mapRows: rowMapper((rows) => prepared.mapResult(rows)) as (rows: Rows) => Result,
    };
  }

  return {
    bind(parameters) {
      const { sql: text, values, writes, mapRows } = (compiled ??= compile());
      return { sql: text, parameters: values.map((value) => value(parameters as Bound)), writes, mapRows };
    },
  };
}

type Bound = Readonly<Record<string, unknown>>;
type BoundValue = (parameters: Bound) => unknown;

/** What a compiled statement's parameter is bound to in a call. */
function boundValue(param: unknown): BoundValue {
  const value = is(param, Param) ? param.value : param;
  if (!is(value, Placeholder)) return () => value;
  const { name } = value;
  return (parameters) => parameters[name];
}

/**
 * Makes the function from D1's rows to the query's result. Drizzle maps each value of each row; where it would give D1's
 * own object again, which one row of marks tells, that is spared.
 */
function rowMapper(mapResult: (rows: unknown[][]) => unknown): (rows: Rows) => unknown {
  let isPlain: boolean | undefined;

  function wouldChangeNothing(row: Record<string, unknown>): boolean {
    const marks = Object.keys(row).map((name) => ({ name }));
    const [mapped] = mapResult([marks]) as object[];
    const members = Object.entries(mapped ?? {});
    return (
      members.length === marks.length &&
      members.every(([name, mark], index) => mark === marks[index] && mark.name === name)
    );
  }

  return (rows) => {
    const [first] = rows;
    if (first) isPlain ??= wouldChangeNothing(first);
    return isPlain ? rows : mapResult(rows.map((row) => Object.values(row)));
  };
}

/** D1's limit: https://developers.cloudflare.com/d1/platform/limits/ (a local D1 takes more). */
const MAX_FUNCTION_ARGUMENTS = 32;
const MEMBERS_OF_OBJECT = MAX_FUNCTION_ARGUMENTS / 2;
/** Beside the object itself, `json_set` takes a path and a value for each. */
const MEMBERS_OF_SET = Math.floor((MAX_FUNCTION_ARGUMENTS - 1) / 2);

/** Pairs of a column's name, behind the path to it, and its value. */
const members = (columns: SQLiteColumn[], path: string) =>
  sql.join(
    columns.map((column) => sql`${sql.raw(`'${path}${column.name}'`)}, ${column}`),
    sql`, `,
  );

/** JSON of these columns, by their names. */
export function jsonObject(columns: SQLiteColumn[]): SQL<string> {
  let json = sql<string>`json_object(${members(columns.slice(0, MEMBERS_OF_OBJECT), '')})`;
  for (let from = MEMBERS_OF_OBJECT; from < columns.length; from += MEMBERS_OF_SET) {
    json = sql`json_set(${json}, ${members(columns.slice(from, from + MEMBERS_OF_SET), '$.')})`;
  }
  return json;
}

/** The predicate that the table has a row of the condition. (Its select list is bare SQL, which names no column.) */
export function existsIn(db: Builder, table: SQLiteTable, condition: SQL | undefined): SQL {
  return exists(
    db
      .select({ one: sql`1` })
      .from(table)
      .where(condition),
  );
}

type Row<Table extends SQLiteTable> = Table['$inferSelect'];

/** The select list of those of a table's columns that an object schema names. */
export function columnsOf<Table extends SQLiteTable, Shape extends Readonly<Record<string, z.ZodType>>>(
  table: Table,
  { shape }: z.ZodObject<Shape>,
) {
  const named = Object.entries(getTableColumns(table)).filter(([name]) => Object.hasOwn(shape, name));
  return Object.fromEntries(named) as Pick<Table['_']['columns'], keyof Shape & keyof Table['_']['columns']>;
}

/** A table's row as parameters: booleans as SQLite has them, 0 and 1. */
export type RowParameters<Table extends SQLiteTable> = {
  [Name in keyof Table['$inferSelect']]: Table['$inferSelect'][Name] extends boolean
    ? number
    : Table['$inferSelect'][Name];
};

function eachColumn<Table extends SQLiteTable, Value>(table: Table, value: (name: keyof Row<Table> & string) => Value) {
  const names = Object.keys(getTableColumns(table)) as (keyof Row<Table> & string)[];
  return Object.fromEntries(names.map((name) => [name, value(name)]));
}

/** For `insert().values()`: every column of the table, each from its placeholder. */
export function rowValues<Table extends SQLiteTable>(table: Table, parameters: Placeholders<RowParameters<Table>>) {
  return eachColumn(table, (name) => parameters[name]) as Pick<typeof parameters, keyof Row<Table>>;
}

/** For a conditional insert, `insert().select()`: the select list of {@link rowValues}. */
export function rowColumns<Table extends SQLiteTable>(table: Table, parameters: Placeholders<RowParameters<Table>>) {
  return eachColumn(table, (name) => sql`${parameters[name]}`.as(name)) as {
    [Name in keyof Row<Table>]: SQL.Aliased<Row<Table>[Name]>;
  };
}

/** D1, or a session on it. */
export type Database = Pick<D1Database, 'prepare' | 'batch'>;

const MAX_TRIES_WHEN_OVERLOADED = 2;

let lastSize = 0;

/** How large the database was after this isolate's last batch: bytes, 0 before the first. */
export const databaseSize = (): number => lastSize;

type ResultOf<Query> = Query extends BoundQuery<infer Result> ? Result : never;

/** Queries by name: so are their results. */
type Group = Readonly<Record<string, BoundQuery<unknown>>>;
type GroupResults<Queries extends Group> = { [Name in keyof Queries]: ResultOf<Queries[Name]> };

type Rows = Record<string, unknown>[];

/** Binds a group of queries to the parameters that they share. */
export function bindEach<Parameters, Queries extends Readonly<Record<string, CompiledQuery<Parameters, unknown>>>>(
  queries: Queries,
  parameters: Parameters,
) {
  const bound = Object.entries(queries).map(([name, compiled]) => [name, compiled.bind(parameters)]);
  return Object.fromEntries(bound) as {
    [Name in keyof Queries]: Queries[Name] extends CompiledQuery<never, infer Result> ? BoundQuery<Result> : never;
  };
}

/** The results of a group, from the rows of each. */
function mapEach<Queries extends Group>(group: Queries, rowsOf: (name: string) => Rows) {
  const mapped = Object.entries(group).map(([name, bound]) => [name, bound.mapRows(rowsOf(name))]);
  return Object.fromEntries(mapped) as GroupResults<Queries>;
}

/**
 * Runs the queries in one D1 batch: one round trip, one transaction; on the primary, unless a session says otherwise.
 *
 * A failed batch is tried again as it is, because the failure may have followed the commit ("Network connection
 * lost"). So every batch must be safe to repeat, and to land late, after a later try was answered: ids and times are
 * minted by its caller, before the first try. One that its deadline ended is not tried again.
 *
 * @returns the rows in the queries' order; `inDoubt` says that an earlier try may yet land, or has
 * @throws DomainError `temporarily_unavailable` when D1 stays away; its `outcome` is `not_done` where no try can have
 *   committed a write. An error of the SQL itself (a violated constraint) rolls the batch back and is thrown as it came.
 * @see https://developers.cloudflare.com/d1/observability/debug-d1/ for D1's error messages
 */
async function run(
  database: Database,
  queries: readonly BoundQuery<unknown>[],
): Promise<{ rows: Rows[]; inDoubt: boolean }> {
  const writes = queries.some((bound) => bound.writes);
  let inDoubt = false;
  try {
    const statements = queries.map(({ sql: text, parameters }) => database.prepare(text).bind(...parameters));
    const answers = await retry(
      () => database.batch<Record<string, unknown>>(statements),
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
    );
    lastSize = answers.at(-1)?.meta.size_after ?? lastSize;
    return { rows: answers.map(({ results }) => results), inDoubt };
  } catch (error) {
    if (classify(error) === 'sql') throw error;
    throw new DomainError('temporarily_unavailable', { outcome: inDoubt ? 'unknown' : 'not_done' }, { cause: error });
  }
}

/** Runs the queries in one D1 batch, as {@link run} does; the results in their order. */
export async function batch<const Queries extends readonly BoundQuery<unknown>[]>(
  database: Database,
  queries: Queries,
) {
  const { rows } = await run(database, queries);
  return queries.map((bound, index) => bound.mapRows(rows[index] ?? [])) as {
    [Index in keyof Queries]: ResultOf<Queries[Index]>;
  };
}

/** Runs the groups of queries, one after the other, in one D1 batch, as {@link run} does; the results by group and name. */
export async function batchOfGroups<const Groups extends readonly Group[]>(database: Database, groups: Groups) {
  const { rows, inDoubt } = await run(
    database,
    groups.flatMap((group) => Object.values(group)),
  );
  const inOrder = rows.values();
  const results = groups.map((group) => mapEach(group, () => inOrder.next().value ?? []));
  return { results: results as { [Index in keyof Groups]: GroupResults<Groups[Index]> }, inDoubt };
}

/**
 * What D1's message says of a failed batch: whether it is worth another try, and whether it may have committed.
 * SQLite's own errors come with their code; D1's other errors are about reaching or running the database.
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

/** A violated foreign key rolls the whole batch back. */
export function isForeignKeyViolation(error: unknown): boolean {
  return messageOf(error).includes('FOREIGN KEY constraint failed');
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
