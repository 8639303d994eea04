import type { Context } from 'hono';
import { createMiddleware } from 'hono/factory';
import { DomainError } from '../core/errors.ts';
import type { AppEnv } from './app-env.ts';

/** What is not meant to be on stays off. A deployment may leave the variable out, although its type does not say so. */
const isOn = ({ OPERATOR_API = '' }: { OPERATOR_API?: string }) =>
  ['on', 'true', '1'].includes(OPERATOR_API.toLowerCase());

/**
 * Middleware that hides everything under `/operator`, unless `OPERATOR_API` is `on`, `true` or `1`. It also hides the same
 * paths in another spelling (`/%6Fperator/…`), which a rule in front of the Worker may not know.
 *
 * @throws DomainError `not_found`
 */
export const requireOperatorApi = createMiddleware<AppEnv>((c, next) => {
  const { pathname } = new URL(c.req.url);
  if (!isOn(c.env) || !pathname.startsWith('/operator/')) throw new DomainError('not_found', {});
  return next();
});

/** The raw key after `Bearer` in the header `Authorization`, or an empty string. */
export function readOperatorKey(c: Context<AppEnv>): string {
  const [, rawKey = ''] = /^Bearer +(\S+)$/i.exec(c.req.header('Authorization') ?? '') ?? [];
  return rawKey;
}
