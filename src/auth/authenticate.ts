import { createMiddleware } from 'hono/factory';
import { bindingsOf } from '../databases.ts';
import type { AppEnv } from '../env.ts';
import { organizationIdPattern } from '../ids.ts';
import { DomainError } from '../problem.ts';
import { BOOKMARK_HEADER } from '../session.ts';
import { hashKey, isWellFormed } from './api-key.ts';
import { findCaller } from './key-cache.ts';
import { limitByIp } from './rate-limit.ts';

/**
 * Middleware that admits a caller by `X-API-Key` and `X-Organization-Id`, in the contract's order of errors.
 *
 * @throws DomainError `missing_api_key`, `invalid_api_key`, `missing_organization_id`, `organization_mismatch`,
 *   `rate_limited`, `temporarily_unavailable`
 */
export const authenticate = createMiddleware<AppEnv>(async (c, next) => {
  const rawKey = c.req.header('X-API-Key');
  if (!rawKey) throw new DomainError('missing_api_key', {});
  if (!isWellFormed(rawKey)) throw new DomainError('invalid_api_key', {});
  const headers = c.get('headers');
  const afterAnswer = c.get('afterAnswer');
  const organizationId = c.req.header('X-Organization-Id');
  const caller = await findCaller(
    c.env,
    { key_hash: hashKey(rawKey), organization_id: organizationId ?? '' },
    () => limitByIp('key_lookup', c),
    afterAnswer,
  );
  if (!caller) throw new DomainError('invalid_api_key', {});
  c.set('operation', {
    env: bindingsOf(c.env, caller.organization_id),
    caller,
    request_id: c.get('request_id'),
    afterAnswer,
    markReplayed: () => {
      headers['Idempotency-Replayed'] = 'true';
    },
    tellBookmark: (bookmark) => {
      if (bookmark !== null) headers[BOOKMARK_HEADER] = bookmark;
    },
  });

  if (!organizationId || !organizationIdPattern.test(organizationId))
    throw new DomainError('missing_organization_id', {});
  if (organizationId !== caller.organization_id) throw new DomainError('organization_mismatch', {});

  await next();
});
