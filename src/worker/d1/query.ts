/**
 * Queries, written with Drizzle and compiled once per isolate. batch.ts runs them.
 *
 * Drizzle's builder costs more CPU than the rest of a request. So a query is built only once, with placeholders, and a
 * call only fills them in.
 */
import { is, Param, Placeholder, sql } from 'drizzle-orm';
import type { Query, QueryPromise } from 'drizzle-orm';
import {
  SQLiteAsyncDialect,
  SQLiteDeleteBase,
  SQLiteInsertBuilder,
  SQLiteSelectBuilder,
  SQLiteUpdateBuilder,
} from 'drizzle-orm/sqlite-core';
import type { SelectedFields, SQLiteTable } from 'drizzle-orm/sqlite-core';
import type { SqliteRemoteDatabase } from 'drizzle-orm/sqlite-proxy';

/** Drizzle's query builder, without a database behind it. */
export type Builder = Pick<SqliteRemoteDatabase, 'select' | 'selectDistinct' | 'insert' | 'update' | 'delete'>;

/** One typed placeholder for each parameter. */
export type Placeholders<Parameters> = {
  readonly [Name in keyof Parameters]: Placeholder<Name & string, Parameters[Name]>;
};

/** What the query builder returns. */
export interface Compilable<Result> extends QueryPromise<Result> {
  toSQL(): Query;
}

/** One statement with its parameters, ready for a batch. */
export interface BoundQuery<Result> {
  readonly sql: string;
  readonly parameters: readonly unknown[];
  readonly writes: boolean;
  /** D1's rows, as the type that the builder promises. */
  readRows(rows: Rows): Result;
}

export interface CompiledQuery<Parameters, Result> {
  bind(parameters: Parameters): BoundQuery<Result>;
}

const dialect = new SQLiteAsyncDialect();

/** A session runs queries. Drizzle's own builder of a database would bring one into the bundle, with all that it needs. */
const session = undefined as never;

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- its methods are those of Drizzle's database, which have several signatures
const builder = {
  select: (fields?: SelectedFields) => new SQLiteSelectBuilder({ fields, session, dialect }),
  selectDistinct: (fields?: SelectedFields) => new SQLiteSelectBuilder({ fields, session, dialect, distinct: true }),
  insert: (table: SQLiteTable) => new SQLiteInsertBuilder(table, session, dialect),
  update: (table: SQLiteTable) => new SQLiteUpdateBuilder(table, session, dialect),
  delete: (table: SQLiteTable) => new SQLiteDeleteBase(table, session, dialect),
} as unknown as Builder;

const placeholders = <Parameters>() =>
  new Proxy({} as Placeholders<Parameters>, { get: (_, name) => sql.placeholder(String(name)) });

/**
 * Compiles a Drizzle query on its first use and keeps it for the life of the isolate.
 *
 * Parameters must be strings, numbers or null: they go to SQLite without conversion, even in `values()`. Rows come as D1
 * returns them, without conversion too. So each selected value has the name of its column or alias, no two have the same
 * one, none is nested, and a column has a type that SQLite knows.
 *
 * @param build receives the builder and a typed placeholder for each parameter
 */
export function query<Parameters extends object, Result>(
  build: (db: Builder, parameters: Placeholders<Parameters>) => Compilable<Result>,
): CompiledQuery<Parameters, Result> {
  let compiled: (Pick<BoundQuery<Result>, 'sql' | 'writes'> & { values: BoundValue[] }) | undefined;

  const readRows = (rows: Rows) => rows as Result;

  function compile() {
    const { sql: text, params } = build(builder, placeholders()).toSQL();
    return { sql: text, values: params.map(boundValue), writes: !text.startsWith('select') };
  }

  return {
    bind(parameters) {
      const { sql: text, values, writes } = (compiled ??= compile());
      return {
        sql: text,
        parameters: values.map((value) => value(parameters as Bound)),
        writes,
        readRows,
      };
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
