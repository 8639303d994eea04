/** Lists, without their pages. */
import type { ClientRequestOptions, ClientResponse } from 'hono/client';
import { unwrap } from './problem.ts';
import type { Answer, BodyOf } from './problem.ts';

interface Page {
  data: unknown[];
  pagination: { next_cursor: string | null; has_more: boolean };
}

interface Input {
  param?: unknown;
  query?: { after?: unknown };
}

/** `$get` of a path that lists. */
type List = (input: never, options?: ClientRequestOptions) => Promise<Answer>;

type InputOf<Call extends List> = NonNullable<Parameters<Call>[0]>;
/** Of a path with parameters the whole input, else the query. */
type GivenTo<Call extends List> =
  InputOf<Call> extends { param: object }
    ? InputOf<Call>
    : InputOf<Call> extends { query?: infer Query }
      ? NonNullable<Query>
      : never;
type EntryOf<Call extends List> = BodyOf<Awaited<ReturnType<Call>>> extends { data: (infer Entry)[] } ? Entry : never;

/**
 * All entries of a list, page after page:
 *
 * ```ts
 * for await (const number of entries(api['phone-numbers'].$get, { status: 'free' })) console.log(number.phone_number);
 * ```
 *
 * It ends with the entries that are there now, also if `after` is given.
 *
 * @param given the filters, the size of the pages, and the cursor of the page to begin with; if the path has parameters,
 *   `{ param, query }`
 * @throws PatchbayError
 */
export function entries<Call extends List>(
  list: Call,
  given: GivenTo<Call>,
  options?: ClientRequestOptions,
): AsyncGenerator<EntryOf<Call>, void, undefined>;
export async function* entries(
  list: (input: Input, options?: ClientRequestOptions) => Promise<ListAnswer>,
  given: object,
  options?: ClientRequestOptions,
): AsyncGenerator<unknown, void, undefined> {
  const input: Input = 'param' in given ? given : { query: given };
  let page = input;
  for (;;) {
    const { data, pagination } = await unwrap(list(page, options));
    yield* data;
    // Of a list that is followed, the last page has a cursor too.
    if (pagination.next_cursor === null || !pagination.has_more) return;
    const place = input.query?.after === undefined ? 'cursor' : 'after';
    page = { ...input, query: { ...input.query, [place]: pagination.next_cursor } };
  }
}

type ListAnswer = ClientResponse<Page, 200, 'json'>;
