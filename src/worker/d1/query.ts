/**
 * Queries, written with Drizzle and compiled once per isolate. batch.ts runs them.
 *
 * Drizzle's builder costs more CPU than the rest of a request. So a query is built only once, with placeholders, and a
 * call only fills them in.
 */
import { is, Param, Placeholder, sql } from 'drizzle-orm';
import type { Query, QueryPromise, SQL } from 'drizzle-orm';
import {
  SQLiteAsyncDialect,
  SQLiteDeleteBase,
  SQLiteInsertBuilder,
  SQLiteSelectBuilder,
  SQLiteUpdateBuilder,
} from 'drizzle-orm/sqlite-core';
import type { SelectedFields, SQLiteTable } from 'drizzle-orm/sqlite-core';
import type { SqliteRemoteDatabase } from 'drizzle-orm/sqlite-proxy';
import { api_keys, operator_keys } from './schema.ts';

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

/** @param organization in place of the organization's placeholder */
const placeholders = <Parameters>(organization?: SQL) =>
  new Proxy({} as Placeholders<Parameters>, {
    get: (_, name) => (name === 'organization_id' && organization) || sql.placeholder(String(name)),
  });

const ofKey = sql.placeholder('actor_key_hash');
const now = sql.placeholder('now');
const named = sql.placeholder('organization_id');

/** The organization that a call names; null unless its key, which is yet to be looked up, has not ended. */
const organizationOfKey = sql`coalesce(
  (SELECT ${named} FROM ${api_keys} WHERE ${api_keys.key_hash} = ${ofKey} AND ${api_keys.organization_id} = ${named}
    AND ${api_keys.status} = 'active' AND coalesce(${api_keys.expires_at} > ${now}, 1)),
  (SELECT ${named} FROM ${operator_keys} WHERE ${operator_keys.key_hash} = ${ofKey}
    AND ${operator_keys.status} = 'active' AND ${operator_keys.expires_at} > ${now}))`;

/**
 * Compiles a Drizzle query on its first use and keeps it for the life of the isolate.
 *
 * Parameters must be strings, numbers or null: they go to SQLite without conversion, even in `values()`. Rows come as D1
 * returns them, without conversion too. So each selected value has the name of its column or alias, no two have the same
 * one, none is nested, and a column has a type that SQLite knows.
 *
 * A statement that writes for a key that is yet to be looked up (`actor_key_hash`) is compiled once more: it finds no
 * organization unless the key is alive. So it reads next to nothing for an unknown key.
 *
 * @param build receives the builder and a typed placeholder for each parameter
 */
export function query<Parameters extends object, Result>(
  build: (db: Builder, parameters: Placeholders<Parameters>) => Compilable<Result>,
): CompiledQuery<Parameters, Result> {
  let compiled: Compiled | undefined;
  let guarded: Compiled | undefined;

  const readRows = (rows: Rows) => rows as Result;

  function compile(organization?: SQL): Compiled {
    const { sql: text, params } = build(builder, placeholders(organization)).toSQL();
    const values = params.map(boundValue);
    const writes = !text.startsWith('select');
    return organization ? { ...numbered(text, values), writes } : { sql: text, values, writes };
  }

  return {
    bind(parameters) {
      const bound = parameters as Bound;
      compiled ??= compile();
      const isGuarded = compiled.writes && typeof bound['actor_key_hash'] === 'string';
      const { sql: text, values, writes } = isGuarded ? (guarded ??= compile(organizationOfKey)) : compiled;
      return {
        sql: text,
        parameters: values.map((value) => value(bound)),
        writes,
        readRows,
      };
    },
  };
}

/** Rows as D1 returns them. */
export type Rows = Record<string, unknown>[];

type Compiled = Pick<BoundQuery<unknown>, 'sql' | 'writes'> & { values: BoundValue[] };

type Bound = Readonly<Record<string, unknown>>;
type BoundValue = (parameters: Bound) => unknown;

/** The same statement with each parameter bound once, however often it is used: D1 takes 100. */
function numbered(text: string, values: BoundValue[]): Pick<Compiled, 'sql' | 'values'> {
  const unique = [...new Set(values)];
  const [start = '', ...rest] = text.split('?');
  if (rest.length !== values.length) throw new Error('A literal has a ?.');
  const places = values.map((value) => unique.indexOf(value) + 1);
  return { sql: start + rest.map((piece, index) => `?${places[index]}${piece}`).join(''), values: unique };
}

const valuesOf = new Map<string, BoundValue>();

/** How to find the value of one parameter of a compiled statement: it is a constant or a placeholder. */
function boundValue(param: unknown): BoundValue {
  const value = is(param, Param) ? param.value : param;
  if (!is(value, Placeholder)) return () => value;
  const { name } = value;
  const known = valuesOf.get(name) ?? ((parameters) => parameters[name]);
  valuesOf.set(name, known);
  return known;
}
