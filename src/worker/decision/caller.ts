/**
 * Whether the caller of a mutation may do what it asks. D1 decides that, in the batch that acts, because the cached key
 * may be out of date.
 */
import { and, eq, inArray, sql } from 'drizzle-orm';
import type { SQL, SQLWrapper } from 'drizzle-orm';
import { forgetKey, isAlive, isUnended } from '../callers/caller.ts';
import { DomainError } from '../core/errors.ts';
import { holds, rolesHolding } from '../core/permissions.ts';
import type { Permission } from '../core/permissions.ts';
import { roles } from '../core/vocabulary.ts';
import type { Role } from '../core/vocabulary.ts';
import { beforeDecision } from '../d1/batch.ts';
import type { Reads, ResultsOf } from '../d1/batch.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { BoundQuery, Builder, Placeholders } from '../d1/query.ts';
import { ifAlive, onPrimary } from '../d1/replica-session.ts';
import { api_keys, organizations } from '../d1/schema.ts';
import { actingKeyId } from './actor.ts';
import type { ApiCall } from './call.ts';
import { isUnanswered } from './remembered-answers.ts';
import type { ScopeParameters } from './remembered-answers.ts';

/** The parameters of the predicates about the caller. `now` is in unix seconds. */
export interface CallerParameters extends ScopeParameters {
  now: number;
}

const isCallersKey = (parameters: Placeholders<CallerParameters>) =>
  and(eq(api_keys.key_id, actingKeyId(parameters)), eq(api_keys.organization_id, parameters.organization_id));

/**
 * The caller predicate: the caller's key is active and has not expired, its organization is active, and its role has
 * the permission. For a statement that selects from `organizations` and `api_keys`. A statement that decides must ask
 * {@link isUnanswered} too; {@link mayDecide} asks both.
 */
export const isCallerWith = (permission: Permission, parameters: Placeholders<CallerParameters>) =>
  and(
    isCallersKey(parameters),
    isUnended(parameters),
    eq(organizations.status, 'active'),
    inArray(api_keys.role, [...rolesHolding[permission]]),
  );

/**
 * What every statement that decides must ask: {@link isCallerWith}, and that no request has acted under the
 * Idempotency-Key. For a statement that selects from `organizations`.
 */
export const mayDecide = (permission: Permission, db: Builder, parameters: Placeholders<CallerParameters>) =>
  and(existsIn(db, api_keys, isCallerWith(permission, parameters)), isUnanswered(db, parameters));

/**
 * A value of the caller's own key, or null if {@link isCallerWith} does not hold. For a statement that selects from
 * `organizations`.
 */
export const fromCallersKey = <Value>(
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

/** An expiry as a number that SQL can compare. "Does not expire" is later than any other. */
export const expiryOf = (expires_at: SQLWrapper) => sql<number>`coalesce(${expires_at}, ${sql.raw(String(NEVER))})`;

/** The reverse of {@link expiryOf}: the expiry as it is stored. */
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

/** The caller's key as D1 has it; no row if it is dead. For {@link assertCallerMay}. */
export const callerKey = query((db, parameters: Placeholders<CallerParameters>) =>
  db
    .select({ user_id: api_keys.user_id, role: api_keys.role, expires_at: api_keys.expires_at })
    .from(api_keys)
    .where(isLivingCaller(db, parameters)),
);

/**
 * Checks whether the caller is the reason why a batch did nothing. If so, the isolate forgets the cached key, so that
 * the next call asks D1.
 *
 * @returns the caller's key, if it is not the reason
 * @throws DomainError `invalid_api_key` for a dead key, `permission_denied` if its role no longer has the permission
 */
export function assertCallerMay(
  permission: Permission,
  { key }: Pick<ApiCall, 'key'>,
  alive: CallerKey | null | undefined,
): CallerKey {
  if (alive && holds(alive.role, permission)) return alive;
  forgetKey(key.key_hash);
  throw alive
    ? new DomainError('permission_denied', { required_permission: permission })
    : new DomainError('invalid_api_key', {});
}

/**
 * Does and reads what must be known before the batch that decides, or instead of it, for a caller that D1 confirms. The
 * statements must check the caller themselves.
 *
 * @throws DomainError `temporarily_unavailable` (`not_done`), and the errors of {@link assertCallerMay}
 */
export async function confirmAndRead<Named extends Reads>(
  permission: Permission,
  call: ApiCall,
  parameters: CallerParameters,
  reads: Named,
  statements: readonly BoundQuery<unknown>[] = [],
): Promise<ResultsOf<Named> & { caller: CallerKey }> {
  const asked = { ...ifAlive(call, reads), callers: callerKey.bind(parameters) };
  const { read, confirm } = await beforeDecision(onPrimary(call, statements, asked));
  confirm();
  return { ...read, caller: assertCallerMay(permission, call, read.callers[0]) };
}
