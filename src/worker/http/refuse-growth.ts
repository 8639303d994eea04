import { createMiddleware } from 'hono/factory';
import { DomainError } from '../core/errors.ts';
import { isNearlyFull } from '../d1/database-size.ts';
import type { AppEnv } from './app-env.ts';

/**
 * Middleware that refuses what makes the database grow while it is nearly full. What reads and what deletes goes on.
 *
 * @throws DomainError `temporarily_unavailable` (`not_done`)
 */
export const refuseGrowth = createMiddleware<AppEnv>(async (c, next) => {
  const grows = c.req.method === 'POST' || c.req.method === 'PUT';
  if (grows && isNearlyFull()) throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  await next();
});
