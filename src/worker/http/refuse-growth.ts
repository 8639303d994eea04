import { createMiddleware } from 'hono/factory';
import { DomainError } from '../core/errors.ts';
import { isNearlyFull } from '../d1/database-size.ts';
import type { AppEnv } from './app-env.ts';

/**
 * Middleware that refuses calls which make the database grow, while it is nearly full. Reading and deleting still work.
 *
 * @throws DomainError `temporarily_unavailable` (`not_done`)
 */
export const refuseGrowth = createMiddleware<AppEnv>(async (c, next) => {
  const grows = c.req.method === 'POST' || c.req.method === 'PUT';
  if (grows && isNearlyFull()) throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  await next();
});
