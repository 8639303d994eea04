/**
 * Keyset pagination (docs/contract.md, Lists). A page starts after the last row of the previous page. So rows that come
 * and go meanwhile neither repeat another row nor hide one, and every page costs the same.
 */
import { and, asc, desc, eq, sql } from 'drizzle-orm';
import type { Placeholder, SQL, SQLChunk } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import * as z from 'zod/mini';
import { readCursor, writeCursor } from '../core/cursor.ts';
import { integer } from '../core/fields.ts';
import { boundedCount, toldCount } from './bounded-count.ts';
import { isRare } from './columns.ts';
import { query } from './query.ts';
import type { Builder, Compilable, CompiledQuery } from './query.ts';
import { nearest } from './replica-session.ts';
import type { SessionCall } from './replica-session.ts';

const MAX_PAGE_SIZE = 100;
const DEFAULT_PAGE_SIZE = 20;

/** The query parameters of a list whose order is somebody else's. */
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

/** The query parameters of every other list. Each list adds its filters. */
export const listParameters = (order: ListRequest['order'] = 'asc') => ({
  order: z._default(z.enum(['asc', 'desc']), order),
  ...pageParameters(),
});

export interface PageRequest {
  cursor?: string;
  page_size: number;
}

export interface ListRequest extends PageRequest {
  order: 'asc' | 'desc';
  /**
   * Of a list that is followed as it grows: the cursor after which the page begins; empty for the beginning. Then every page
   * has a cursor, also the last one, and each counts what comes after its own.
   */
  after?: string;
}

/**
 * A check of a list's query: the filters that are given must be of one group, because no index has those of two.
 *
 * @param unless a filter that at most one row meets, so that it goes with all others
 */
export const ofOneGroup = <Given extends object>(
  groups: readonly (readonly (keyof Given & string)[])[],
  unless?: keyof Given & string,
) =>
  z.superRefine<Given>((given, context) => {
    if (unless !== undefined && given[unless] !== undefined) return;
    const named = groups
      .map((group) => group.filter((name) => given[name] !== undefined))
      .filter(({ length }) => length > 0);
    if (named.length < 2) return;
    const choices = groups.map((group) => (group.length > 1 ? `(any of ${group.join(', ')})` : group.join()));
    const exception = unless === undefined ? '' : `, unless ${unless} is given`;
    const message = `only one of ${choices.join(', ')} may be given${exception}`;
    for (const name of named.flat()) context.addIssue({ code: 'custom', path: [name], message });
  });

export interface Pagination {
  next_cursor: string | null;
  has_more: boolean;
  page_size: number;
  total_count: number;
  total_count_exact: boolean;
}

export interface Page<Row> {
  rows: Row[];
  pagination: Pagination;
}

/** The names of a list's filters. */
export type FilterOf<Query extends z.ZodMiniType> = Exclude<keyof z.output<Query>, keyof ListRequest> & string;

type Key = (string | number)[];
type Filters<Filter extends string> = Partial<Record<Filter, string | number>>;

export interface ListDefinition<Filter extends string, Row> {
  table: SQLiteTable & { organization_id: SQLiteColumn };
  /** Whether the list has the rows of all organizations. Such a list is for operators alone. */
  ofAllOrganizations?: boolean;
  /** What every row of the list meets, whatever the filters are. */
  always?: SQL;
  /**
   * The columns that order the list. Together they are unique within an organization. For each set of filters there is
   * an index of the organization, the filters, and then these columns.
   */
  key: SQLiteColumn[];
  keyOf: (row: Row) => Key;
  /** The rows whose key is not before the first of these, and before the second. */
  range: (filters: Filters<Filter>) => [from: Key, to: Key];
  /** The predicate of each filter; undefined if `range` already applies the filter. */
  predicates: Record<Filter, ((value: Placeholder) => SQL) | undefined>;
  /** Finds the row that all of the list belongs to, by the filters. */
  owner?: CompiledQuery<Bound, unknown[]>;
  /** Selects the rows of `isListed`, in the order of the key that `order` says. */
  page: (db: Builder, isListed: SQL | undefined, order: SQL[], limit: Placeholder) => Compilable<Row[]>;
}

/** In a list's range: after all numbers. */
export const AFTER_ALL = Number.MAX_SAFE_INTEGER;

type Bound = Record<string, string | number | null>;

const cursorContent = z.lazy(() =>
  z.strictObject({
    /** The list that the cursor belongs to: JSON of its name, the organization, the filters and a descending order. */
    list: z.string(),
    after: z.array(z.union([z.string(), z.number()])),
    count: z.int().check(z.nonnegative()),
  }),
);

type CursorContent = z.output<typeof cursorContent>;

/** The call of a list, and whose rows it has: null for those of all organizations. */
type ListCall = SessionCall & { readonly organization_id: string | null };

/**
 * Makes the function that reads one page of an organization's rows, in one call to D1. The rows are counted with the
 * first page, and the cursor carries the count to the next pages.
 *
 * Statements are compiled once for each set of filters and order in use. One statement for all, with `? IS NULL OR column = ?`,
 * would use no index.
 *
 * @param name keeps cursors of other lists from being accepted
 * @returns a function whose `hasOwner` is false if the `owner` was not found, and that throws DomainError
 *   `temporarily_unavailable`, and `validation_failed` for a cursor that is malformed or belongs to another list
 */
export function keysetList<Filter extends string, Row>(name: string, definition: ListDefinition<Filter, Row>) {
  const { table, ofAllOrganizations = false, always, key, keyOf, range, predicates, owner } = definition;
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- Object.keys knows only strings
  const filterNames = Object.keys(predicates) as Filter[];
  const compiled = new Map<string, ReturnType<typeof compile>>();

  const countOf = (condition: SQL | undefined) =>
    query<Bound, { count: number }[]>((db) => boundedCount(db, table, condition));
  const bound = (side: Side) => tuple(key.map((_, index) => sql.placeholder(boundName(side, index))));

  function compile(given: Filter[], order: ListRequest['order']) {
    const isWithin = (isAfterStart: SQL) =>
      and(
        ofAllOrganizations ? undefined : eq(table.organization_id, sql.placeholder('organization_id')),
        always,
        ...given.map((filter) => {
          const predicate = predicates[filter]?.(sql.placeholder(filter));
          return predicate && isRare(predicate);
        }),
        sql`${tuple(key)} ${isAfterStart} ${bound('from')}`,
        sql`${tuple(key)} < ${bound('to')}`,
      );
    const isListed = isWithin(sql`>=`);
    const pageOf = (condition: SQL | undefined) =>
      query<Bound, Row[]>((db) =>
        definition.page(db, condition, key.map(order === 'asc' ? asc : desc), sql.placeholder('limit')),
      );
    return {
      first: pageOf(isListed),
      // The page before ended with a row whose key is a bound of this one.
      next: pageOf(order === 'asc' ? isWithin(sql`>`) : isListed),
      count: countOf(isListed),
      countNext: countOf(isWithin(sql`>`)),
    };
  }

  function statementsFor(given: Filter[], order: ListRequest['order']) {
    const shape = [order, ...given].join();
    const known = compiled.get(shape) ?? compile(given, order);
    compiled.set(shape, known);
    return known;
  }

  return async function list(
    call: ListCall,
    request: ListRequest & Filters<Filter>,
  ): Promise<Page<Row> & { hasOwner: boolean }> {
    const { organization_id } = call;
    const { cursor, after: followed, page_size, order } = request;
    const filters: Filters<Filter> = request;
    const given = filterNames.flatMap((filter) => {
      const value = filters[filter];
      return value === undefined ? [] : [[filter, value] as const];
    });
    // Clients keep cursors: those of the ascending order are as they were before there was another.
    const thisList = JSON.stringify([name, organization_id, given, ...(order === 'asc' ? [] : [order])]);
    const [from, to] = range(filters);
    const isOfList = (content: CursorContent) => content.list === thisList && hasTypesOf(from, content.after);
    const sent = cursor ?? (followed === '' ? undefined : followed);
    const place = sent === undefined ? undefined : readCursor(sent, cursorContent, isOfList);
    const isCounted = !place || followed !== undefined;

    const { first, next, count, countNext } = statementsFor(
      given.map(([filter]) => filter),
      order,
    );
    const after = place && { [order === 'asc' ? 'from' : 'to']: place.after };
    const parameters = {
      ...Object.fromEntries(given),
      organization_id,
      ...boundParameters({ from, to, ...after }),
      limit: page_size + 1,
    };
    const read = await nearest(call, {
      found: (place ? next : first).bind(parameters),
      ...(isCounted && { counted: (place ? countNext : count).bind(parameters) }),
      ...(owner && { owners: owner.bind(parameters) }),
    });

    const rows = read.found.slice(0, page_size);
    const has_more = read.found.length > page_size;
    const last = rows.at(-1);
    const counted = (isCounted ? read.counted?.[0] : place)?.count ?? 0;
    const total = toldCount(counted);
    const end = last ? keyOf(last) : (place?.after ?? from);
    return {
      rows,
      hasOwner: read.owners?.length !== 0,
      pagination: {
        next_cursor:
          has_more || followed !== undefined ? writeCursor({ list: thisList, after: end, count: counted }) : null,
        has_more,
        page_size,
        total_count: total.count,
        total_count_exact: total.exact,
      },
    };
  };
}

type Side = 'from' | 'to';
const boundName = (side: Side, index: number) => `${side}_${index}`;
const tuple = (chunks: SQLChunk[]) => sql`(${sql.join(chunks, sql`, `)})`;
const boundParameters = (bounds: Record<Side, Key>) =>
  Object.fromEntries(
    (['from', 'to'] as const).flatMap((side) => bounds[side].map((value, index) => [boundName(side, index), value])),
  );

const hasTypesOf = (one: Key, other: Key) =>
  one.map((value) => typeof value).join() === other.map((value) => typeof value).join();
