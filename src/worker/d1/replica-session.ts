/**
 * How a call asks its organization's database, by D1's Sessions: a read goes to the nearest replica that is as new as the
 * client's bookmark, a mutation to the primary.
 * https://developers.cloudflare.com/d1/best-practices/read-replication/
 */
import { createMiddleware } from 'hono/factory';
import type { AppEnv, Operation } from '../env.ts';
import { DomainError, invalid } from '../core/errors.ts';
import type { Database } from './query.ts';

export const BOOKMARK_HEADER = 'X-D1-Bookmark';

/** A bookmark is D1's own, but what is none would reach D1 as it came. */
export const bookmarkFormat = /^[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}$/;

/**
 * Middleware of every route that reads: the app does not start with one that lacks it (app.ts).
 *
 * @throws DomainError `validation_failed`
 */
export const acceptBookmark = Object.assign(
  createMiddleware<AppEnv>((c, next) => {
    const bookmark = c.req.header(BOOKMARK_HEADER);
    if (bookmark !== undefined) {
      if (!bookmarkFormat.test(bookmark)) throw invalid(BOOKMARK_HEADER, 'must be a bookmark of an earlier answer');
      c.set('operation', { ...c.get('operation'), bookmark });
    }
    return next();
  }),
  { acceptsBookmark: true },
);

/** Asks for a call that reads: the nearest replica, unless it is older than the client's bookmark. */
export function nearest<Result>(operation: Operation, ask: (database: Database) => Promise<Result>): Promise<Result> {
  return inSession(operation, operation.bookmark ?? 'first-unconstrained', ask);
}

/** Asks for a call that mutates. */
export function onPrimary<Result>(operation: Operation, ask: (database: Database) => Promise<Result>): Promise<Result> {
  return inSession(operation, 'first-primary', ask);
}

async function inSession<Result>(
  { env, tellBookmark }: Operation,
  constraint: string,
  ask: (database: Database) => Promise<Result>,
): Promise<Result> {
  const session = open(env.DB, constraint);
  const result = await ask(session);
  tellBookmark(session.getBookmark());
  return result;
}

function open(database: D1Database, constraint: string): D1DatabaseSession {
  try {
    return database.withSession(constraint);
  } catch (cause) {
    throw new DomainError('temporarily_unavailable', { outcome: 'not_done' }, { cause });
  }
}
