import type { Context } from 'hono';
import { createMiddleware } from 'hono/factory';
import { findCaller } from '../callers/caller.ts';
import type { Caller } from '../callers/caller.ts';
import { findOperator } from '../callers/operator.ts';
import type { Operator } from '../callers/operator.ts';
import { hashKey, isWellFormed } from '../callers/raw-key.ts';
import { DomainError } from '../core/errors.ts';
import { organizationIdPattern } from '../core/ids.ts';
import type { AppEnv } from './app-env.ts';
import { countFailure } from './authentication-failures.ts';
import { readOperatorKey } from './operator-api.ts';
import { addressOf, limitByIp, networksOf } from './rate-limit.ts';

/**
 * Middleware that admits a caller by `X-API-Key`.
 *
 * @throws DomainError `missing_api_key`, `invalid_api_key`, `rate_limited`, `temporarily_unavailable`
 */
export const authenticate = createMiddleware<AppEnv>(async (c, next) => {
  const caller = await identify(c).catch((error: unknown) => refuse(c, error));
  c.set('call', {
    ...partsOf(c),
    organization_id: caller.organization_id,
    actor: { type: 'api_key', id: caller.key_id, name: caller.name },
    caller,
  });
  await next();
});

/**
 * Middleware that admits an operator by `Authorization: Bearer`.
 *
 * @throws DomainError `missing_operator_key`, `invalid_operator_key`, `rate_limited`, `temporarily_unavailable`
 */
export const authenticateOperator = createMiddleware<AppEnv>(async (c, next) => {
  const operator = await identifyOperator(c).catch((error: unknown) => refuse(c, error));
  c.set('operatorCall', {
    ...partsOf(c),
    actor: { type: 'operator', id: operator.operator_key_id, name: operator.name },
    operator,
  });
  await next();
});

/** What a call has, whoever makes it. */
const partsOf = (c: Context<AppEnv>) => ({
  request_id: c.get('request_id'),
  env: c.env,
  afterAnswer: c.get('afterAnswer'),
  told: c.get('told'),
});

async function identifyOperator(c: Context<AppEnv>): Promise<Operator> {
  if (!c.req.header('Authorization')) throw new DomainError('missing_operator_key', {});
  const rawKey = readOperatorKey(c);
  if (!isWellFormed(rawKey, 'bk_operator_')) throw new DomainError('invalid_operator_key', {});
  const admit = () => limitByIp('operator_key_lookup', c);
  const operator = await findOperator(c.env, await hashKey(rawKey), admit, c.get('afterAnswer'));
  if (!operator) throw new DomainError('invalid_operator_key', {});
  return operator;
}

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
  if (organizationId === undefined && c.req.path === WHOAMI_PATH) return next();
  if (!organizationId) refuse(c, new DomainError('missing_organization_id', {}));
  if (!organizationIdPattern.test(organizationId)) refuse(c, new DomainError('invalid_organization_id', {}));
  if (organizationId !== c.get('call').caller.organization_id) {
    refuse(c, new DomainError('organization_mismatch', {}));
  }
  return next();
});

/** A client that has only its key can ask which organization it belongs to. */
const WHOAMI_PATH = '/api/whoami';
const ORGANIZATION_HEADER = 'X-Organization-Id';

/** Counts the failure. @throws the error */
function refuse(c: Context<AppEnv>, error: unknown): never {
  if (error instanceof DomainError && error.code !== 'temporarily_unavailable') {
    countFailure(error.code, networksOf(addressOf(c)).at(-1) ?? '');
  }
  throw error;
}
