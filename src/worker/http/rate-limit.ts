/**
 * The limits on requests (core/rate-limiter.ts).
 *
 * A binding only says whether a request passes. So the limits that answers mention are repeated here, and what remains
 * of a limit is known, and told, only when it is 0.
 *
 * @see https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
 */
import type { Context } from 'hono';
import { createMiddleware } from 'hono/factory';
import type { Caller } from '../callers/caller.ts';
import type { Operator } from '../callers/operator.ts';
import { DomainError } from '../core/errors.ts';
import { passes } from '../core/rate-limiter.ts';
import { spread } from '../core/retry.ts';
import type { Tier } from '../core/vocabulary.ts';
import type { Bindings } from '../env.ts';
import type { AppEnv } from './app-env.ts';

/** The bindings support only periods of 10 s and 60 s. */
const PERIOD_SECONDS = 10;

type Limit = { binding: keyof Bindings & `${string}_LIMIT`; requests: number };

/**
 * Requests of one organization in a period. `test/http/rate-limit.test.ts` checks that wrangler.toml has the same
 * numbers.
 */
export const organizationLimits = {
  starter: { binding: 'STARTER_LIMIT', requests: 100 },
  pro: { binding: 'PRO_LIMIT', requests: 500 },
  enterprise: { binding: 'ENTERPRISE_LIMIT', requests: 5000 },
} as const satisfies Record<Tier, Limit>;

/** How many of these may be mutations. */
export const mutationLimits = {
  starter: { binding: 'STARTER_MUTATIONS_LIMIT', requests: 20 },
  pro: { binding: 'PRO_MUTATIONS_LIMIT', requests: 100 },
  enterprise: { binding: 'ENTERPRISE_MUTATIONS_LIMIT', requests: 1000 },
} as const satisfies Record<Tier, Limit>;

/** Requests of one network without a known API key in a period; by {@link Purpose}, each counted apart. */
export const networkLimit = { binding: 'IP_LIMIT', requests: 200 } as const satisfies Limit;

/** Requests of one operator key in a period. */
export const operatorLimit = { binding: 'OPERATOR_LIMIT', requests: 100 } as const satisfies Limit;

type Purpose = 'health' | 'key_lookup' | 'operator_key_lookup';

/** The limits of a tier as clients see them. */
export const rateLimitsOf = (tier: Tier) => ({
  period_seconds: PERIOD_SECONDS,
  requests: organizationLimits[tier].requests,
  mutations: mutationLimits[tier].requests,
});

const readingMethods = new Set(['GET', 'HEAD']);

type NamedLimit = [name: string, limit: Limit];

/** @returns the limits, after the answer's header was made to name them */
function tell(c: Context<AppEnv>, limits: NamedLimit[]): NamedLimit[] {
  c.get('headers')['RateLimit-Policy'] = limits.map(([name, limit]) => policyOf(name, limit)).join(', ');
  return limits;
}

function limitsOf(c: Context<AppEnv>, { tier }: Caller): NamedLimit[] {
  const limits: NamedLimit[] = [[tier, organizationLimits[tier]]];
  if (!readingMethods.has(c.req.method)) limits.push([`${tier}_mutations`, mutationLimits[tier]]);
  return tell(c, limits);
}

/**
 * Middleware that runs after `authenticate`. It limits the organization, because a limit for each key could be evaded
 * by creating keys. Whose organization is not known yet, is counted when it is ({@link countForOrganization}).
 *
 * @throws DomainError `rate_limited`
 */
export const limitOrganization = createMiddleware<AppEnv>(async (c, next) => {
  const { holder } = c.get('call').key;
  const limits = holder ? limitsOf(c, holder) : [];
  for (const [name, limit] of limits) await take(c, name, limit, holder?.organization_id ?? '');
  await next();
});

/** Counts a call whose caller was found only by the call itself. It was limited by its network, and is not refused. */
export function countForOrganization(c: Context<AppEnv>, caller: Caller): void {
  for (const [, { binding }] of limitsOf(c, caller)) {
    c.get('afterAnswer')(() => passes(c.env[binding], caller.organization_id));
  }
}

const operatorLimits = (c: Context<AppEnv>) => tell(c, [['operator', operatorLimit]]);

/**
 * Middleware that runs after `authenticateOperator`.
 *
 * @throws DomainError `rate_limited`
 */
export const limitOperator = createMiddleware<AppEnv>(async (c, next) => {
  const { holder } = c.get('operatorCall').key;
  if (holder) for (const [name, limit] of operatorLimits(c)) await take(c, name, limit, holder.operator_key_id);
  await next();
});

/** As {@link countForOrganization}. */
export function countForOperator(c: Context<AppEnv>, { operator_key_id }: Operator): void {
  operatorLimits(c);
  c.get('afterAnswer')(() => passes(c.env[operatorLimit.binding], operator_key_id));
}

/**
 * Limits the client's network, for calls that reach KV or D1 without a known API key. Only a 429 tells of this limit: a
 * 401 must not show whether the key was looked up.
 *
 * @throws DomainError `rate_limited`
 */
export async function limitByIp(purpose: Purpose, c: Context<AppEnv>): Promise<void> {
  for (const network of networksOf(addressOf(c))) await take(c, purpose, networkLimit, `${purpose} ${network}`);
}

/** The header is absent only if the Worker runs without Cloudflare in front. */
export const addressOf = ({ req }: Context<AppEnv>) => req.header('CF-Connecting-IP') ?? 'unknown';

const policyOf = (name: string, { requests }: Limit) => `"${name}";q=${requests};w=${PERIOD_SECONDS}`;

async function take(c: Context<AppEnv>, name: string, limit: Limit, key: string): Promise<void> {
  if (await passes(c.env[limit.binding], key)) return;
  const headers = c.get('headers');
  headers['RateLimit-Policy'] ??= policyOf(name, limit);
  headers['RateLimit'] = `"${name}";r=0`;
  throw new DomainError('rate_limited', { retry_after_seconds: spread(PERIOD_SECONDS) });
}

/**
 * The networks that an address counts against, the narrowest first. For IPv4 that is the address itself. For IPv6 it is
 * the /64, the smallest network that a subscriber gets, and the /48, the largest (RFC 6177).
 */
export function networksOf(ip: string): [string, ...string[]] {
  const [, mapped] = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(ip) ?? [];
  if (mapped || !ip.includes(':')) return [mapped ?? ip];
  const [head = [], tail] = ip.split('::').map((part) => (part === '' ? [] : part.split(':')));
  const zeros = tail ? Array.from({ length: 8 - head.length - tail.length }, () => '0') : [];
  const groups = [...head, ...zeros, ...(tail ?? [])].map((group) => Number.parseInt(group, 16).toString(16));
  return [`${groups.slice(0, 4).join(':')}::/64`, `${groups.slice(0, 3).join(':')}::/48`];
}
