import type { Context, Next } from 'hono';
import { createMiddleware } from 'hono/factory';
import { findAlive, presentKey } from '../callers/caller.ts';
import type { Caller } from '../callers/caller.ts';
import type { PresentedKey } from '../callers/key-cache.ts';
import { findLivingOperator, presentOperatorKey } from '../callers/operator.ts';
import { hashKey, isWellFormed } from '../callers/raw-key.ts';
import { DomainError } from '../core/errors.ts';
import { organizationIdPattern } from '../core/ids.ts';
import { unixNow } from '../core/time.ts';
import type { ActorType } from '../core/vocabulary.ts';
import { nearest } from '../d1/replica-session.ts';
import type { Actor, ApiCall, OperatorCall } from '../decision/call.ts';
import type { AppEnv } from './app-env.ts';
import { countFailure } from './authentication-failures.ts';
import { readOperatorKey } from './operator-api.ts';
import { addressOf, countForOperator, countForOrganization, limitByIp, networksOf } from './rate-limit.ts';
import { assertPermitted } from './route.ts';

/**
 * Middleware that admits a caller by `X-API-Key`. If no cache knows who holds the key, the call goes on meanwhile, and D1 says
 * it in the call's first batch: until then the call has no holder.
 *
 * @throws DomainError `missing_api_key`, `invalid_api_key`, `rate_limited`, `temporarily_unavailable`
 */
export const authenticate = createMiddleware<AppEnv>(async (c, next) => {
  const key = await identify(c).catch((error: unknown) => refuse(c, error));
  const organization_id = key.holder?.organization_id ?? organizationIn(c) ?? '';
  c.set('call', { ...partsOf(c), organization_id, actor: actorOf('api_key', key, key.holder?.key_id), key });
  await toTheEnd(c, key, next);
});

/**
 * Middleware that admits an operator by `Authorization: Bearer`, as {@link authenticate} does.
 *
 * @throws DomainError `missing_operator_key`, `invalid_operator_key`, `rate_limited`, `temporarily_unavailable`
 */
export const authenticateOperator = createMiddleware<AppEnv>(async (c, next) => {
  const key = await identifyOperator(c).catch((error: unknown) => refuse(c, error));
  c.set('operatorCall', { ...partsOf(c), actor: actorOf('operator', key, key.holder?.operator_key_id), key });
  await toTheEnd(c, key, next);
});

/** Carries the call out. Nobody waits for its look-up any longer then. */
async function toTheEnd(c: Context<AppEnv>, key: PresentedKey<object>, next: Next): Promise<void> {
  try {
    await next();
    if (key.lookup && c.res.status < 400) throw new Error('The caller is not known yet.');
  } finally {
    key.release();
  }
}

/** What a call has, whoever makes it. */
const partsOf = (c: Context<AppEnv>) => ({
  request_id: c.get('request_id'),
  env: c.env,
  afterAnswer: c.get('afterAnswer'),
  told: c.get('told'),
});

const actorOf = (
  type: ActorType,
  { key_hash, holder }: PresentedKey<{ name: string }>,
  id: string | null = null,
): Actor => (holder ? { type, id, name: holder.name } : { type, id, name: null, key_hash });

/** From now on the actor is known by its id. */
function identifyActor(actor: Actor, id: string, { name }: { name: string }): void {
  Object.assign(actor, { id, name, key_hash: undefined });
}

async function identifyOperator(c: Context<AppEnv>) {
  if (!c.req.header('Authorization')) throw new DomainError('missing_operator_key', {});
  const rawKey = readOperatorKey(c);
  if (!isWellFormed(rawKey, 'bk_operator_')) throw new DomainError('invalid_operator_key', {});
  const key_hash = await hashKey(rawKey);
  const key = await presentOperatorKey(
    {
      ...partsOf(c),
      key_hash,
      isAlive: () => findLivingOperator.bind({ key_hash, now: unixNow() }),
      onFound: (operator) => {
        if (!operator) refuse(c, new DomainError('invalid_operator_key', {}));
        identifyActor(c.get('operatorCall').actor, operator.operator_key_id, operator);
        countForOperator(c, operator);
        assertPermitted(c);
      },
    },
    () => limitByIp('operator_key_lookup', c),
  );
  if (!key) throw new DomainError('invalid_operator_key', {});
  return key;
}

async function identify(c: Context<AppEnv>) {
  const rawKey = c.req.header('X-API-Key');
  if (!rawKey) throw new DomainError('missing_api_key', {});
  if (!isWellFormed(rawKey)) throw new DomainError('invalid_api_key', {});
  const key_hash = await hashKey(rawKey);
  const key = await presentKey(
    {
      ...partsOf(c),
      key_hash,
      isAlive: () => findAlive.bind({ key_hash, organization_id: organizationIn(c) ?? null, now: unixNow() }),
      onFound: (caller) => {
        if (!caller) refuse(c, new DomainError('invalid_api_key', {}));
        identifyActor(c.get('call').actor, caller.key_id, caller);
        countForOrganization(c, caller);
        assertSameOrganization(c, caller);
        assertPermitted(c);
      },
    },
    () => limitByIp('key_lookup', c),
  );
  if (!key) throw new DomainError('invalid_api_key', {});
  return key;
}

/** The organization that the call names, if the header is well-formed. */
function organizationIn(c: Context<AppEnv>): string | undefined {
  const given = c.req.header(ORGANIZATION_HEADER);
  return given !== undefined && organizationIdPattern.test(given) ? given : undefined;
}

/**
 * Middleware that checks `X-Organization-Id`. It runs after the organization's rate limit, so that requests with a
 * wrong organization count against the limit of the key's organization too.
 *
 * @throws DomainError `missing_organization_id`, `invalid_organization_id`, `organization_mismatch`
 */
export const requireOrganization = createMiddleware<AppEnv>((c, next) => {
  const organizationId = c.req.header(ORGANIZATION_HEADER);
  if (organizationId === undefined && c.req.path === WHOAMI_PATH) return next();
  if (!organizationId) refuse(c, new DomainError('missing_organization_id', {}));
  if (!organizationIdPattern.test(organizationId)) refuse(c, new DomainError('invalid_organization_id', {}));
  const { holder } = c.get('call').key;
  if (holder && organizationId !== holder.organization_id) refuse(c, new DomainError('organization_mismatch', {}));
  return next();
});

/** @throws DomainError `organization_mismatch` */
function assertSameOrganization(c: Context<AppEnv>, { organization_id }: Caller): void {
  const named = organizationIn(c);
  if (named !== undefined && named !== organization_id) refuse(c, new DomainError('organization_mismatch', {}));
}

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

/**
 * What a call must be told: the error, or else why its caller is refused, if the error came before D1 was asked about the key.
 * Only who has a key, and the permission, may learn what else is wrong with a request.
 */
export async function errorFor(c: Context<AppEnv>, error: DomainError): Promise<DomainError> {
  const call: ApiCall | OperatorCall | undefined = c.get('call') ?? c.get('operatorCall');
  if (!call?.key.lookup) return error;
  try {
    await nearest(call, {});
    return error;
  } catch (refusal) {
    if (refusal instanceof DomainError) return refusal;
    throw refusal;
  }
}
