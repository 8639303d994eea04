/** Whether a caller may do what it asks, by D1, in the batch that acts: a cached key is not the authority for a mutation. */
import { and, eq, inArray, sql } from 'drizzle-orm';
import type { SQL, SQLWrapper } from 'drizzle-orm';
import { forgetKey, isAlive, isUnended } from '../callers/key-cache.ts';
import { DomainError } from '../core/errors.ts';
import { holds, rolesHolding } from '../core/permissions.ts';
import type { Permission } from '../core/permissions.ts';
import { roles } from '../core/vocabulary.ts';
import type { Role } from '../core/vocabulary.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { api_keys, organizations } from '../d1/schema.ts';
import type { ApiCall } from './call.ts';
import { isUnanswered } from './remembered-answers.ts';
import type { ScopeParameters } from './remembered-answers.ts';

/** Parameters by which a mutation's batch asks about its caller; `now` in unix seconds. */
export interface CallerParameters extends ScopeParameters {
  now: number;
}

const isCallersKey = ({ organization_id, actor_key_id }: Placeholders<CallerParameters>) =>
  and(eq(api_keys.key_id, actor_key_id), eq(api_keys.organization_id, organization_id));

/**
 * The caller predicate: the caller's key is active and unexpired, its organization is active, and its role has the
 * permission, at the instant of the act. For a statement that selects from `organizations` and `api_keys`; one that decides
 * asks {@link isUnanswered} beside it, or {@link mayAct} for both.
 */
export const isCallerWith = (permission: Permission, parameters: Placeholders<CallerParameters>) =>
  and(
    isCallersKey(parameters),
    isUnended(parameters),
    eq(organizations.status, 'active'),
    inArray(api_keys.role, [...rolesHolding[permission]]),
  );

/**
 * What every statement that decides must ask: the caller may, and no request has acted under its Idempotency-Key. For a
 * statement that selects from `organizations`.
 */
export const mayAct = (permission: Permission, db: Builder, parameters: Placeholders<CallerParameters>) =>
  and(existsIn(db, api_keys, isCallerWith(permission, parameters)), isUnanswered(db, parameters));

/** A value of the caller's own key, or null where the caller may not. For a statement that selects from `organizations`. */
export const callersOwn = <Value>(
  value: SQL<Value>,
  permission: Permission,
  db: Builder,
  parameters: Placeholders<CallerParameters>,
) => sql<Value | null>`${db.select({ value }).from(api_keys).where(isCallerWith(permission, parameters))}`;

/** A role's rank, so that SQL can compare roles: the higher the role, the higher the rank. */
export const rankOf = (role: SQLWrapper) => {
  const ranks = roles.map(
    (name, index) => sql`WHEN ${sql.raw(`'${name}'`)} THEN ${sql.raw(String(roles.length - index))}`,
  );
  return sql<number>`CASE ${role} ${sql.join(ranks, sql` `)} END`;
};

/** Unix seconds beyond any time that a client can name. */
const NEVER = Number.MAX_SAFE_INTEGER;

/** An expiry as a number that SQL can compare: a key that does not expire is later than any. */
export const expiryOf = (expires_at: SQLWrapper) => sql<number>`coalesce(${expires_at}, ${sql.raw(String(NEVER))})`;

/** An expiry as it is stored, from what {@link expiryOf} makes of it. */
export const unlessNever = (expiry: SQLWrapper) => sql<number | null>`nullif(${expiry}, ${sql.raw(String(NEVER))})`;

export interface CallerKey {
  user_id: string;
  role: Role;
  /** Unix seconds; null for a key that does not expire. */
  expires_at: number | null;
}

/** Selects the caller's key, if it is alive. */
export const isLivingCaller = (db: Builder, parameters: Placeholders<CallerParameters>) =>
  and(isCallersKey(parameters), isAlive(db, parameters));

/** The caller's key as D1 has it, or no row for a dead one: what {@link assertCallerMay} judges. */
export const callerKey = query((db, parameters: Placeholders<CallerParameters>) =>
  db
    .select({ user_id: api_keys.user_id, role: api_keys.role, expires_at: api_keys.expires_at })
    .from(api_keys)
    .where(isLivingCaller(db, parameters)),
);

/**
 * Explains a batch that did nothing by its caller. Where the caller is the reason, this isolate forgets the key, so that the
 * next call asks D1.
 *
 * @returns the caller's key, where it is not the reason
 * @throws DomainError `invalid_api_key` for a dead key, `permission_denied` for a role that no longer has the permission
 */
export function assertCallerMay(
  permission: Permission,
  { caller }: ApiCall,
  alive: CallerKey | null | undefined,
): CallerKey {
  if (alive && holds(alive.role, permission)) return alive;
  forgetKey(caller.key_hash);
  throw alive
    ? new DomainError('permission_denied', { required_permission: permission })
    : new DomainError('invalid_api_key', {});
}
