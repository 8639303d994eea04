/**
 * Queries: written with Drizzle and compiled once per isolate (batch.ts runs them).
 *
 * Drizzle's builder costs more CPU than the rest of a request, so no request runs it: a query is built once with
 * placeholders, and a call only fills them in.
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

/** A query that the builder has built. */
export interface Compilable<Result> extends QueryPromise<Result> {
  prepare(): Pick<SQLitePreparedQuery<PreparedQueryConfig>, 'getQuery' | 'mapResult'>;
}

/** One statement with its parameters, ready for a batch. */
export interface BoundQuery<Result> {
  readonly sql: string;
  readonly parameters: readonly unknown[];
  readonly writes: boolean;
  /** Maps D1's rows back into what the builder's own types promise. */
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
      mapRows: (rows: Rows) => prepared.mapResult(rows.map((row) => Object.values(row))) as Result,
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

/** What a compiled statement's parameter is bound to in a call. */
function boundValue(param: unknown): BoundValue {
  const value = is(param, Param) ? param.value : param;
  if (!is(value, Placeholder)) return () => value;
  const { name } = value;
  return (parameters) => parameters[name];
}
