import type { Context } from 'hono';
import { createMiddleware } from 'hono/factory';
import { findCaller } from '../callers/key-cache.ts';
import type { Caller } from '../callers/key-cache.ts';
import { hashKey, isWellFormed } from '../callers/raw-key.ts';
import { DomainError } from '../core/errors.ts';
import { organizationIdPattern } from '../core/ids.ts';
import type { AppEnv } from './app-env.ts';
import { countFailure } from './authentication-failures.ts';
import { addressOf, limitByIp, networksOf } from './rate-limit.ts';

/**
 * Middleware that admits a caller by `X-API-Key`.
 *
 * @throws DomainError `missing_api_key`, `invalid_api_key`, `rate_limited`, `temporarily_unavailable`
 */
export const authenticate = createMiddleware<AppEnv>(async (c, next) => {
  const caller = await identify(c).catch((error: unknown) => refuse(c, error));
  c.set('call', {
    organization_id: caller.organization_id,
    actor: { type: 'api_key', id: caller.key_id, name: caller.name },
    request_id: c.get('request_id'),
    caller,
    env: c.env,
    afterAnswer: c.get('afterAnswer'),
    told: { replayed: false, bookmark: null, exhausted: null },
  });
  await next();
});

async function identify(c: Context<AppEnv>): Promise<Caller> {
  const rawKey = c.req.header('X-API-Key');
  if (!rawKey) throw new DomainError('missing_api_key', {});
  if (!isWellFormed(rawKey)) throw new DomainError('invalid_api_key', {});
  const caller = await findCaller(c.env, await hashKey(rawKey), () => limitByIp('key_lookup', c), c.get('afterAnswer'));
  if (!caller) throw new DomainError('invalid_api_key', {});
  return caller;
}

/**
 * Middleware that checks `X-Organization-Id`. It runs after the organization's rate limit, so that requests with a
 * wrong organization count against the limit of the key's organization too.
 *
 * @throws DomainError `missing_organization_id`, `invalid_organization_id`, `organization_mismatch`
 */
export const requireOrganization = createMiddleware<AppEnv>(async (c, next) => {
  const organizationId = c.req.header(ORGANIZATION_HEADER);
  if (!organizationId) refuse(c, new DomainError('missing_organization_id', {}));
  if (!organizationIdPattern.test(organizationId)) refuse(c, new DomainError('invalid_organization_id', {}));
  if (organizationId !== c.get('call').caller.organization_id) {
    refuse(c, new DomainError('organization_mismatch', {}));
  }
  await next();
});

const ORGANIZATION_HEADER = 'X-Organization-Id';

/** Counts the failure. @throws the error */
function refuse(c: Context<AppEnv>, error: unknown): never {
  if (error instanceof DomainError && error.code !== 'temporarily_unavailable') {
    countFailure(error.code, networksOf(addressOf(c)).at(-1) ?? '');
  }
  throw error;
}
