/**
 * Keyset pagination (docs/contract.md, Lists). A page starts after the last row of the previous page. So rows that come
 * and go meanwhile neither repeat another row nor hide one, and every page costs the same.
 */
import { and, eq, sql } from 'drizzle-orm';
import type { Placeholder, SQL, SQLChunk } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import * as z from 'zod/mini';
import { readCursor, writeCursor } from '../core/cursor.ts';
import { integer } from '../core/fields.ts';
import { actThenRead } from './batch.ts';
import { boundedCount, toldCount } from './bounded-count.ts';
import { query } from './query.ts';
import type { Builder, Compilable, CompiledQuery } from './query.ts';
import { nearest } from './replica-session.ts';
import type { ReadingCall } from './replica-session.ts';

const MAX_PAGE_SIZE = 100;
const DEFAULT_PAGE_SIZE = 20;

/** The query parameters of every list. Each list adds its filters. */
export const pageParameters = () => ({
  cursor: z.exactOptional(z.string()),
  page_size: z._default(
    z.pipe(
      z.transform((text: string) => (/^[1-9]\d*$/.test(text) ? Number(text) : text)),
      integer(1, MAX_PAGE_SIZE, `must be an integer from 1 to ${MAX_PAGE_SIZE}, given once`),
    ),
    DEFAULT_PAGE_SIZE,
  ),
});

export interface PageRequest {
  cursor?: string;
  page_size: number;
}

export interface Pagination {
  next_cursor: string | null;
  has_more: boolean;
  page_size: number;
  total_count: number;
  total_count_exact: boolean;
}

/** The names of a list's filters. */
export type FilterOf<Query extends z.ZodMiniType> = Exclude<keyof z.output<Query>, keyof PageRequest> & string;

type Key = (string | number)[];
type Filters<Filter extends string> = Partial<Record<Filter, string | number>>;

interface ListDefinition<Filter extends string, Row> {
  table: SQLiteTable & { organization_id: SQLiteColumn };
  /**
   * The columns that order the list. Together they are unique within an organization. For each set of filters there is
   * an index of the organization, the filters, and then these columns.
   */
  key: SQLiteColumn[];
  keyOf: (row: Row) => Key;
  /** A key that comes before the first row. */
  start: (filters: Filters<Filter>) => Key;
  /** The predicate of each filter; undefined if `start` already applies the filter. */
  predicates: Record<Filter, ((value: Placeholder) => SQL) | undefined>;
  /** Finds the row that all of the list belongs to, by the filters. */
  owner?: CompiledQuery<Bound, unknown[]>;
  /** Selects the rows of `isListed`, ordered by the key. */
  page: (db: Builder, isListed: SQL | undefined, limit: Placeholder) => Compilable<Row[]>;
}

type Bound = Record<string, string | number>;

const cursorContent = z.lazy(() =>
  z.strictObject({
    /** The list that the cursor belongs to: JSON of its name, the organization and the filters. */
    list: z.string(),
    after: z.array(z.union([z.string(), z.number()])),
    count: z.int().check(z.nonnegative()),
  }),
);

type CursorContent = z.output<typeof cursorContent>;

/**
 * Makes the function that reads one page of an organization's rows, in one call to D1. The rows are counted with the
 * first page, and the cursor carries the count to the next pages.
 *
 * Statements are compiled once for each set of filters in use. One statement for all, with `? IS NULL OR column = ?`,
 * would use no index.
 *
 * @param name keeps cursors of other lists from being accepted
 * @returns a function whose `hasOwner` is false if there is an `owner` to find and it was not found, and that throws DomainError `temporarily_unavailable`, and `validation_failed` for a cursor that is
 *   malformed or belongs to another list
 */
export function keysetList<Filter extends string, Row>(name: string, definition: ListDefinition<Filter, Row>) {
  const { table, key, keyOf, start, predicates, owner } = definition;
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- Object.keys knows only strings
  const filterNames = Object.keys(predicates) as Filter[];
  const compiled = new Map<string, ReturnType<typeof compile>>();

  function compile(given: Filter[]) {
    const isListed = and(
      eq(table.organization_id, sql.placeholder('organization_id')),
      ...given.map((filter) => predicates[filter]?.(sql.placeholder(filter))),
      sql`${tuple(key)} > ${tuple(key.map((_, index) => sql.placeholder(afterName(index))))}`,
    );
    return {
      page: query<Bound, Row[]>((db) => definition.page(db, isListed, sql.placeholder('limit'))),
      count: query<Bound, { count: number }[]>((db) => boundedCount(db, table, isListed)),
    };
  }

  function statementsFor(given: Filter[]) {
    const shape = given.join();
    const known = compiled.get(shape) ?? compile(given);
    compiled.set(shape, known);
    return known;
  }

  return async function list(
    call: ReadingCall,
    request: PageRequest & Filters<Filter>,
  ): Promise<{ rows: Row[]; pagination: Pagination; hasOwner: boolean }> {
    const { organization_id } = call;
    const { cursor, page_size } = request;
    const filters: Filters<Filter> = request;
    const given = filterNames.flatMap((filter) => {
      const value = filters[filter];
      return value === undefined ? [] : [[filter, value] as const];
    });
    const thisList = JSON.stringify([name, organization_id, given]);
    const first = start(filters);
    const isOfList = (content: CursorContent) => content.list === thisList && hasTypesOf(first, content.after);
    const place = cursor === undefined ? undefined : readCursor(cursor, cursorContent, isOfList);

    const { page, count } = statementsFor(given.map(([filter]) => filter));
    const parameters = {
      ...Object.fromEntries(given),
      organization_id,
      ...keyParameters(place?.after ?? first),
      limit: page_size + 1,
    };
    const { read } = await nearest(call, (database) =>
      actThenRead(database, [], {
        found: page.bind(parameters),
        ...(place ? {} : { counted: count.bind(parameters) }),
        ...(owner && { owners: owner.bind(parameters) }),
      }),
    );

    const rows = read.found.slice(0, page_size);
    const last = read.found.length > page_size ? rows.at(-1) : undefined;
    const counted = place ?? read.counted?.[0];
    const total = toldCount(counted?.count ?? 0);
    return {
      rows,
      hasOwner: read.owners?.length !== 0,
      pagination: {
        next_cursor: last ? writeCursor({ list: thisList, after: keyOf(last), count: counted?.count ?? 0 }) : null,
        has_more: last !== undefined,
        page_size,
        total_count: total.count,
        total_count_exact: total.exact,
      },
    };
  };
}

const afterName = (index: number) => `after_${index}`;
const tuple = (chunks: SQLChunk[]) => sql`(${sql.join(chunks, sql`, `)})`;
const keyParameters = (key: Key) => Object.fromEntries(key.map((value, index) => [afterName(index), value]));

const hasTypesOf = (one: Key, other: Key) =>
  one.map((value) => typeof value).join() === other.map((value) => typeof value).join();
