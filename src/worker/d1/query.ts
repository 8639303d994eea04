/**
 * Queries, written with Drizzle and compiled once per isolate. batch.ts runs them.
 *
 * Drizzle's builder costs more CPU than the rest of a request. So a query is built only once, with placeholders, and a
 * call only fills them in.
 */
import { is, Param, Placeholder, sql } from 'drizzle-orm';
import type { QueryPromise } from 'drizzle-orm';
import type { PreparedQueryConfig, SQLitePreparedQuery } from 'drizzle-orm/sqlite-core';
import { drizzle } from 'drizzle-orm/sqlite-proxy';
import type { SqliteRemoteDatabase } from 'drizzle-orm/sqlite-proxy';

/** Drizzle's query builder, without a database behind it. */
export type Builder = SqliteRemoteDatabase;

/** One typed placeholder for each parameter. */
export type Placeholders<Parameters> = {
  readonly [Name in keyof Parameters]: Placeholder<Name & string, Parameters[Name]>;
};

/** What the query builder returns. */
export interface Compilable<Result> extends QueryPromise<Result> {
  prepare(): Pick<SQLitePreparedQuery<PreparedQueryConfig>, 'getQuery' | 'mapResult'>;
}

/** One statement with its parameters, ready for a batch. */
export interface BoundQuery<Result> {
  readonly sql: string;
  readonly parameters: readonly unknown[];
  readonly writes: boolean;
  /** Maps D1's rows to the type that the builder promises. */
  mapRows(rows: Rows): Result;
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
 * Compiles a Drizzle query on its first use and keeps it for the life of the isolate.
 *
 * Parameters must be strings, numbers or null: they go to SQLite without conversion, even in `values()`. Selected
 * columns need different names, because D1's batch returns rows as objects.
 *
 * @param build receives the builder and a typed placeholder for each parameter
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
      // Drizzle's prepared query has lost the type that the builder had.
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

/** Rows as D1 returns them. */
export type Rows = Record<string, unknown>[];

type Bound = Readonly<Record<string, unknown>>;
type BoundValue = (parameters: Bound) => unknown;

/** How to find the value of one parameter of a compiled statement: it is a constant or a placeholder. */
function boundValue(param: unknown): BoundValue {
  const value = is(param, Param) ? param.value : param;
  if (!is(value, Placeholder)) return () => value;
  const { name } = value;
  return (parameters) => parameters[name];
}

/**
 * Makes the function from D1's rows to the query's result. Drizzle maps each value of each row. Most queries want D1's
 * rows as they are, so the first row is mapped once with marks in place of its values: if the marks come out under their
 * own names, rows are returned as they came. Without this, a list of 20 costs more than 10 % more CPU.
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
