import type { HonoRequest } from 'hono';
import { createMiddleware } from 'hono/factory';
import { DomainError } from '../core/errors.ts';
import { isNearlyFull } from '../d1/database-size.ts';
import type { AppEnv } from './app-env.ts';
import { errorFor } from './authenticate.ts';

/** What a `POST` ends, or changes without making anything. */
const endingPath = /\/(?:bulk-delete|suspend|resume|offboard|revoke-all|release)$/;

function grows(request: HonoRequest): boolean {
  const { method, path } = request;
  if (request.query('dry_run') === 'true') return false;
  // What is reassigned stays, and leaves an event each.
  if (method === 'DELETE') return request.query('reassign_to') !== undefined;
  return (method === 'POST' || method === 'PUT') && !endingPath.test(path);
}

/**
 * Middleware that refuses calls which make the database grow, while it is nearly full. Reading, deleting and dry runs
 * still work.
 *
 * @throws DomainError `temporarily_unavailable` (`not_done`)
 */
export const refuseGrowth = createMiddleware<AppEnv>(async (c, next) => {
  if (isNearlyFull() && grows(c.req)) {
    throw await errorFor(c, new DomainError('temporarily_unavailable', { outcome: 'not_done' }));
  }
  return next();
});
