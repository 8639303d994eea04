import type { PropsWithChildren } from 'hono/jsx';
import type { Pages } from '../load.ts';
import { Loading } from './page.tsx';
import { Problem } from './problem.tsx';

/** A table that scrolls sideways where it is too wide. @param label its name, for a screen reader */
export const Table = ({ label, children }: PropsWithChildren<{ label: string }>) => (
  <div class="scroll" role="region" aria-label={label} tabindex={0}>
    <table>{children}</table>
  </div>
);

/** Below a list: how much of it is shown, and the rest of it. @param what its rows, for `12 of 40 integrations` */
export function More({ pages, what }: { pages: Pages<unknown>; what: string }) {
  const { rows, total, error, isLoading, hasMore, more, reload } = pages;
  return (
    <div class="more">
      {isLoading && <Loading what={what} />}
      <Problem error={error} retry={rows.length === 0 ? reload : more} />
      {!isLoading && rows.length > 0 && (
        <p role="status">
          {rows.length.toLocaleString()} {total === undefined ? '' : `of ${total} `}
          {what} shown
        </p>
      )}
      {hasMore && !isLoading && error === undefined && (
        <button type="button" class="secondary" onClick={more}>
          Show more
        </button>
      )}
    </div>
  );
}
