/** A table's columns as select lists, parameters and JSON; and predicates about its rows. */
import { exists, getTableColumns, sql } from 'drizzle-orm';
import type { Placeholder, SQL, SQLWrapper } from 'drizzle-orm';
import type { SQLiteTable } from 'drizzle-orm/sqlite-core';
import type { Builder, Placeholders } from './query.ts';

/** D1's limit: https://developers.cloudflare.com/d1/platform/limits/ (a local D1 takes more). */
const MAX_FUNCTION_ARGUMENTS = 32;
const MEMBERS_OF_OBJECT = MAX_FUNCTION_ARGUMENTS / 2;
/** `json_set` takes the object, then a path and a value for each member. */
const MEMBERS_OF_SET = Math.floor((MAX_FUNCTION_ARGUMENTS - 1) / 2);

/** SQL arguments: for each member its name, with the path in front, and its value. */
const members = (values: [name: string, value: SQLWrapper][], path: string) =>
  sql.join(
    values.map(([name, value]) => sql`${sql.raw(`'${path}${name}'`)}, ${value}`),
    sql`, `,
  );

/** A JSON object of these values. The names must be constants, because they go into the SQL unescaped. */
export function jsonObject(values: Readonly<Record<string, SQLWrapper>>): SQL<string> {
  const named = Object.entries(values);
  let json = sql<string>`json_object(${members(named.slice(0, MEMBERS_OF_OBJECT), '')})`;
  for (let from = MEMBERS_OF_OBJECT; from < named.length; from += MEMBERS_OF_SET) {
    json = sql`json_set(${json}, ${members(named.slice(from, from + MEMBERS_OF_SET), '$.')})`;
  }
  return json;
}

/** Predicate: the table has a row that meets the condition. */
export function existsIn(db: Builder, table: SQLiteTable, condition: SQL | undefined): SQL {
  return exists(
    db
      .select({ one: sql`1` })
      .from(table)
      .where(condition),
  );
}

/**
 * Makes SQLite use this predicate's index. Its planner has no statistics here, and would rather use one that reads every
 * row of the organization.
 */
export const isRare = (predicate: SQL) => sql`likelihood(${predicate}, 0.0001)`;

type Row<Table extends SQLiteTable> = Table['$inferSelect'];

/** A select list of the table's columns that the shape of an object schema names. */
export function columnsOf<Table extends SQLiteTable, Shape extends object>(table: Table, shape: Shape) {
  const named = Object.entries(getTableColumns(table)).filter(([name]) => Object.hasOwn(shape, name));
  return Object.fromEntries(named) as Pick<Table['_']['columns'], keyof Shape & keyof Table['_']['columns']>;
}

/** A table's row as parameters. */
export type RowParameters<Table extends SQLiteTable> = Table['$inferSelect'];

function eachColumn<Table extends SQLiteTable, Value>(table: Table, value: (name: keyof Row<Table> & string) => Value) {
  const names = Object.keys(getTableColumns(table)) as (keyof Row<Table> & string)[];
  return Object.fromEntries(names.map((name) => [name, value(name)]));
}

/** For `insert().values()`: every column of the table, from the placeholder of its name. */
export function rowValues<Table extends SQLiteTable>(table: Table, parameters: Placeholders<RowParameters<Table>>) {
  return eachColumn(table, (name) => parameters[name]) as Pick<typeof parameters, keyof Row<Table>>;
}

/**
 * Like {@link rowValues}, for a conditional insert: the select list of `insert().select()`.
 *
 * @param selected the columns that are selected, in place of a placeholder
 */
export function rowColumns<Table extends SQLiteTable, Selected extends keyof Row<Table> & string = never>(
  table: Table,
  parameters: Placeholders<Omit<RowParameters<Table>, Selected>>,
  selected?: Readonly<Record<Selected, SQL>>,
) {
  const values: Readonly<Record<string, SQL | Placeholder>> = parameters;
  const others: Readonly<Record<string, SQL>> = selected ?? {};
  return eachColumn(table, (name) => (others[name] ?? sql`${values[name]}`).as(name)) as {
    [Name in keyof Row<Table>]: SQL.Aliased<Row<Table>[Name]>;
  };
}

/** As {@link rowColumns}, for a row of which only these columns are not the table's defaults. */
export function defaultedColumns<Table extends SQLiteTable>(
  table: Table,
  given: Readonly<Partial<Record<keyof Row<Table> & string, SQL>>>,
) {
  const columns = getTableColumns(table);
  return eachColumn(table, (name) => (given[name] ?? literal(columns[name]?.default)).as(name)) as {
    [Name in keyof Row<Table>]: SQL.Aliased<Row<Table>[Name]>;
  };
}

/** A column's default as SQL; null if it has none. */
function literal(value: unknown): SQL {
  if (typeof value === 'string') return sql.raw(`'${value}'`);
  return sql.raw(typeof value === 'number' ? String(value) : 'NULL');
}

/** For `set()`: these columns, each from the placeholder of its name. */
export function newValues<Name extends string>(
  parameters: Readonly<Record<Name, Placeholder>>,
  names: readonly Name[],
) {
  return Object.fromEntries(names.map((name) => [name, sql`${parameters[name]}`])) as Record<Name, SQL>;
}
