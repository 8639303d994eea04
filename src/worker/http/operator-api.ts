import type { Context } from 'hono';
import { createMiddleware } from 'hono/factory';
import { DomainError } from '../core/errors.ts';
import type { AppEnv } from './app-env.ts';

/** A deployment may leave the variable out, although its type does not say so. */
const isOn = ({ OPERATOR_API = '' }: { OPERATOR_API?: string }) => !['', '0', 'false', 'off'].includes(OPERATOR_API);

/**
 * Middleware that hides everything under `/operator`, unless `OPERATOR_API` is set.
 *
 * @throws DomainError `not_found`
 */
export const requireOperatorApi = createMiddleware<AppEnv>((c, next) => {
  if (!isOn(c.env)) throw new DomainError('not_found', {});
  return next();
});

/** What follows `Bearer` in the header `Authorization`; empty if nothing does. */
export function readOperatorKey(c: Context<AppEnv>): string {
  const [, rawKey = ''] = /^Bearer +(\S+)$/i.exec(c.req.header('Authorization') ?? '') ?? [];
  return rawKey;
}
