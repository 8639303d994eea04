/** What views read. What a view no longer needs is aborted, and what comes late is dropped. */
import type { ClientResponse } from 'hono/client';
import { useRef } from 'hono/jsx/dom';
import { unwrap } from 'patchbay-client';
import { useEffectAtOnce, useState } from './state.ts';

/** Options of a call that reads. */
export interface ReadOptions {
  init: { signal: AbortSignal };
}

export interface Loaded<Value> {
  /** The value of before stays while a new one is loaded, and if that fails. */
  value: Value | undefined;
  error: unknown;
  isLoading: boolean;
  reload: () => void;
}

/** Loads when the view appears, and again whenever a dependency changes. */
export function useLoad<Value>(
  load: (options: ReadOptions) => Promise<Value>,
  dependencies: readonly unknown[],
): Loaded<Value> {
  const [turn, setTurn] = useState(0);
  const [state, setState] = useState<{ value?: Value; error?: unknown; isLoading: boolean }>({ isLoading: true });
  useEffectAtOnce(() => {
    const left = new AbortController();
    setState(({ value }) => ({ ...(value === undefined ? {} : { value }), isLoading: true }));
    load({ init: { signal: left.signal } }).then(
      (value) => left.signal.aborted || setState({ value, isLoading: false }),
      (error: unknown) =>
        left.signal.aborted ||
        setState(({ value }) => ({ ...(value === undefined ? {} : { value }), error, isLoading: false })),
    );
    return () => left.abort();
  }, [turn, ...dependencies]);
  return {
    value: state.value,
    error: state.error,
    isLoading: state.isLoading,
    reload: () => setTurn((before) => before + 1),
  };
}

interface Page<Row> {
  data: Row[];
  pagination: { next_cursor: string | null; total_count?: number; total_count_exact?: boolean };
}

export interface Pages<Row> {
  rows: Row[];
  /** How many there are, as text: `12`, or `more than 1,000`. Undefined until known, and for lists that do not count. */
  total: string | undefined;
  error: unknown;
  isLoading: boolean;
  hasMore: boolean;
  /** Loads the next page, or the one that failed. */
  more: () => void;
  reload: () => void;
}

interface PagesState<Row> extends Pick<Pages<Row>, 'rows' | 'total' | 'error' | 'isLoading'> {
  cursor: string | null;
}

/** The parameters of a page: the cursor, but for the first. */
export interface PageQuery {
  page_size: number;
  cursor?: string;
}

const PAGE_SIZE = 50;

/** A list, page by page. It starts again whenever a dependency changes. */
export function usePages<Row>(
  load: (page: PageQuery, options: ReadOptions) => Promise<Page<Row>>,
  dependencies: readonly unknown[],
  pageSize = PAGE_SIZE,
): Pages<Row> {
  const [turn, setTurn] = useState(0);
  const empty: PagesState<Row> = { rows: [], total: undefined, error: undefined, isLoading: true, cursor: null };
  const [state, setState] = useState(empty);
  const left = useRef<AbortController | null>(null);

  function loadPage(before: PagesState<Row>, { signal }: AbortController) {
    setState({ ...before, error: undefined, isLoading: true });
    const page = { page_size: pageSize, ...(before.cursor === null ? {} : { cursor: before.cursor }) };
    load(page, { init: { signal } }).then(
      ({ data, pagination }) =>
        signal.aborted ||
        setState({
          rows: [...before.rows, ...data],
          total: totalOf(pagination) ?? before.total,
          error: undefined,
          isLoading: false,
          cursor: pagination.next_cursor,
        }),
      (error: unknown) => signal.aborted || setState({ ...before, error, isLoading: false }),
    );
  }

  useEffectAtOnce(() => {
    const controller = new AbortController();
    left.current = controller;
    loadPage(empty, controller);
    return () => controller.abort();
  }, [turn, ...dependencies]);

  return {
    rows: state.rows,
    total: state.total,
    error: state.error,
    isLoading: state.isLoading,
    hasMore: state.cursor !== null,
    more: () => left.current && loadPage(state, left.current),
    reload: () => setTurn((before) => before + 1),
  };
}

function totalOf({ total_count, total_count_exact }: Page<unknown>['pagination']): string | undefined {
  if (total_count === undefined) return undefined;
  const count = total_count.toLocaleString();
  return total_count_exact === false ? `more than ${count}` : count;
}

/**
 * The body of a success, with the ETag of what it shows.
 *
 * @throws Error without an ETag: a change without its condition could overwrite somebody else's
 */
export async function withTag<Given extends ClientResponse<unknown>>(call: Promise<Given>) {
  const response = await call;
  const body = await unwrap(response);
  const etag = response.headers.get('ETag');
  if (etag === null) throw new Error('The answer has no ETag. Something between this page and the API takes it away.');
  return { body, etag };
}
