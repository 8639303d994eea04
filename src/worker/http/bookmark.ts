/**
 * The header `X-D1-Bookmark`. A client that sends the one of an earlier answer reads no older state
 * (d1/replica-session.ts).
 */
import type { Context } from 'hono';
import { invalid } from '../core/errors.ts';
import type { AppEnv } from './app-env.ts';

export const BOOKMARK_HEADER = 'X-D1-Bookmark';

/** The form of D1's bookmarks. Anything else must not reach D1. */
export const bookmarkFormat = /^[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}$/;

/**
 * The request's bookmark, if it has one.
 *
 * @throws DomainError `validation_failed`
 */
export function readBookmark(c: Context<AppEnv>): string | undefined {
  const bookmark = c.req.header(BOOKMARK_HEADER);
  if (bookmark !== undefined && !bookmarkFormat.test(bookmark)) {
    throw invalid(BOOKMARK_HEADER, 'must be the X-D1-Bookmark of an earlier answer');
  }
  return bookmark;
}
