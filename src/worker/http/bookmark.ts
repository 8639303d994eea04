/** The header `X-D1-Bookmark`: a client sends that of an earlier answer, and reads no older state (d1/replica-session.ts). */
import type { Context } from 'hono';
import { invalid } from '../core/errors.ts';
import type { AppEnv } from './app-env.ts';

export const BOOKMARK_HEADER = 'X-D1-Bookmark';

/** Bookmarks are D1's own. What is none must not reach D1. */
export const bookmarkFormat = /^[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}$/;

/**
 * A request's bookmark; nothing without one.
 *
 * @throws DomainError `validation_failed`
 */
export function readBookmark(c: Context<AppEnv>): string | undefined {
  const bookmark = c.req.header(BOOKMARK_HEADER);
  if (bookmark !== undefined && !bookmarkFormat.test(bookmark)) {
    throw invalid(BOOKMARK_HEADER, 'must be a bookmark of an earlier answer');
  }
  return bookmark;
}
