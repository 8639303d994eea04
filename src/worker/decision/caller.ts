/** Whether a caller may do what it asks: by its cached role at the door, and by D1 in the batch that acts. */
import { and, eq, inArray, sql } from 'drizzle-orm';
import type { SQLWrapper } from 'drizzle-orm';
import { createMiddleware } from 'hono/factory';
import type { AppEnv, Operation } from '../env.ts';
import { isUnanswered } from './remembered-answers.ts';
import type { ScopeParameters } from './remembered-answers.ts';
import { DomainError } from '../core/errors.ts';
import { existsIn, query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { api_keys, organizations } from '../d1/schema.ts';
import { roles } from '../core/vocabulary.ts';
import type { Role } from '../core/vocabulary.ts';
import { forgetKey, isAlive, isUnended } from '../callers/key-cache.ts';
import { holds, rolesHolding } from '../core/permissions.ts';
import type { Permission } from '../core/permissions.ts';

/**
 * Middleware that refuses a caller whose role lacks the permission.
 * Every route under `/api` has one: the app does not start with a route that lacks it (app.ts).
 *
 * @throws DomainError `permission_denied`
 */
export function requirePermission(permission: Permission) {
  const middleware = createMiddleware<AppEnv>(async (c, next) => {
    if (!holds(c.get('operation').caller.role, permission)) {
      throw new DomainError('permission_denied', { required_permission: permission });
    }
    await next();
  });
  return Object.assign(middleware, { permission });
}

/** Unix seconds beyond any time that a client can name. */
const NEVER = Number.MAX_SAFE_INTEGER;

/** Parameters by which a mutation's batch asks about its caller; `now` in unix seconds. */
export interface CallerParameters extends ScopeParameters {
  now: number;
}

/** Selects the caller's key, if it is alive but for its organization. */
const isUnendedCaller = ({ organization_id, actor_key_id, now }: Placeholders<CallerParameters>) =>
  and(eq(api_keys.key_id, actor_key_id), eq(api_keys.organization_id, organization_id), isUnended({ now }));

/** Selects the caller's key, if it is alive. */
export const isLivingCaller = (db: Builder, { organization_id, actor_key_id, now }: Placeholders<CallerParameters>) =>
  and(eq(api_keys.key_id, actor_key_id), eq(api_keys.organization_id, organization_id), isAlive(db, { now }));

/**
 * What an acting statement asks of D1, because a cached key is not the authority for a mutation: that the caller's key is
 * active, unexpired, of this organization, and its role holds the permission at the instant of the act; and that its
 * Idempotency-Key has not been used. For a statement that selects from `api_keys`; any other asks {@link callerMay}.
 */
export const isCallerWith = (permission: Permission, db: Builder, parameters: Placeholders<CallerParameters>) =>
  and(
    isLivingCaller(db, parameters),
    inArray(api_keys.role, [...rolesHolding[permission]]),
    isUnanswered(db, parameters),
  );

/** {@link isCallerWith} within a statement that records an event, whose own select has the organization's row. */
const isActorWith = (permission: Permission, db: Builder, parameters: Placeholders<CallerParameters>) =>
  and(
    isUnendedCaller(parameters),
    eq(organizations.status, 'active'),
    inArray(api_keys.role, [...rolesHolding[permission]]),
    isUnanswered(db, parameters),
  );

/** {@link isCallerWith} as a predicate of a statement that records an event (audit/record.ts). */
export const callerMay = (permission: Permission, db: Builder, parameters: Placeholders<CallerParameters>) =>
  existsIn(db, api_keys, isActorWith(permission, db, parameters));

/** A role's rank, so that roles can be compared in SQL: a caller gives and takes no role above its own. */
export const rankOf = (role: SQLWrapper) => {
  const ranks = roles.map(
    (name, index) => sql`WHEN ${sql.raw(`'${name}'`)} THEN ${sql.raw(String(roles.length - index))}`,
  );
  return sql<number>`CASE ${role} ${sql.join(ranks, sql` `)} END`;
};

/** {@link callerMay} where the caller's rank matters too: its rank, or null. */
export const callerRank = (permission: Permission, db: Builder, parameters: Placeholders<CallerParameters>) =>
  db
    .select({ rank: rankOf(api_keys.role) })
    .from(api_keys)
    .where(isActorWith(permission, db, parameters));

/** An expiry as a number that can be compared: a key that does not expire is later than any. */
export const expiryOf = (expires_at: SQLWrapper) => sql<number>`coalesce(${expires_at}, ${sql.raw(String(NEVER))})`;

/** An expiry as it is stored, from what {@link expiryOf} makes of it. */
export const unlessNever = (expiry: SQLWrapper) => sql<number | null>`nullif(${expiry}, ${sql.raw(String(NEVER))})`;

/** {@link callerMay} where the caller's expiry matters too. */
export const callerExpiry = (permission: Permission, db: Builder, parameters: Placeholders<CallerParameters>) =>
  db
    .select({ expiry: expiryOf(api_keys.expires_at) })
    .from(api_keys)
    .where(isActorWith(permission, db, parameters));

/** {@link callerMay} where the caller's user matters too. */
export const callerUser = (permission: Permission, db: Builder, parameters: Placeholders<CallerParameters>) =>
  db
    .select({ user_id: api_keys.user_id })
    .from(api_keys)
    .where(isActorWith(permission, db, parameters));

export interface CallerKey {
  user_id: string;
  role: Role;
  /** Unix seconds; null for a key that does not expire. */
  expires_at: number | null;
}

/** The caller's key as D1 has it, or no row for a dead one: what {@link assertCallerMay} judges. */
export const callerKey = query((db, parameters: Placeholders<CallerParameters>) =>
  db
    .select({ user_id: api_keys.user_id, role: api_keys.role, expires_at: api_keys.expires_at })
    .from(api_keys)
    .where(isLivingCaller(db, parameters)),
);

/**
 * Explains a batch that did nothing by its caller, and makes this isolate ask anew about the key.
 *
 * @returns the caller's key, where it is not the reason
 * @throws DomainError `invalid_api_key` for a dead key, `permission_denied` for a role that no longer suffices
 */
export function assertCallerMay(
  permission: Permission,
  { caller }: Operation,
  alive: CallerKey | null | undefined,
): CallerKey {
  if (alive && holds(alive.role, permission)) return alive;
  forgetKey(caller.key_hash);
  throw alive
    ? new DomainError('permission_denied', { required_permission: permission })
    : new DomainError('invalid_api_key', {});
}
