/** Lists, without their pages. */
import type { ClientRequestOptions, ClientResponse } from 'hono/client';
import { unwrap } from './problem.ts';
import type { Answer, BodyOf } from './problem.ts';

interface Page {
  data: unknown[];
  pagination: { next_cursor: string | null };
}

/** `$get` of a path that lists. */
type List = (input: never, options?: ClientRequestOptions) => Promise<Answer>;

type QueryOf<Call extends List> =
  NonNullable<Parameters<Call>[0]> extends { query?: infer Query } ? NonNullable<Query> : never;
type EntryOf<Call extends List> = BodyOf<Awaited<ReturnType<Call>>> extends { data: (infer Entry)[] } ? Entry : never;

/**
 * All entries of a list, page after page:
 *
 * ```ts
 * for await (const number of entries(api['phone-numbers'].$get, { status: 'free' })) console.log(number.phone_number);
 * ```
 *
 * @param query the filters, the size of the pages, and the cursor of the page to begin with
 * @throws PatchbayError
 */
export function entries<Call extends List>(
  list: Call,
  query: QueryOf<Call>,
  options?: ClientRequestOptions,
): AsyncGenerator<EntryOf<Call>, void, undefined>;
export async function* entries(
  list: (input: { query: object }, options?: ClientRequestOptions) => Promise<ListAnswer>,
  query: object,
  options?: ClientRequestOptions,
): AsyncGenerator<unknown, void, undefined> {
  let page = query;
  for (;;) {
    const { data, pagination } = await unwrap(list({ query: page }, options));
    yield* data;
    if (pagination.next_cursor === null) return;
    page = { ...query, cursor: pagination.next_cursor };
  }
}

type ListAnswer = ClientResponse<Page, 200, 'json'>;
