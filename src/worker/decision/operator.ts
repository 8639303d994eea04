/**
 * What operators may do, and their mutations. D1 decides that in the batch that acts, as for API keys (caller.ts).
 *
 * The statements of an operator's mutation also serve the commands, which reach D1 by its binding. A command is no key: what
 * lets it act is the cloud account.
 */
import { and, eq, not, or, sql } from 'drizzle-orm';
import type { SQLWrapper } from 'drizzle-orm';
import { forgetOperator, isLivingOperator, permissionsIn } from '../callers/operator.ts';
import type { Operator } from '../callers/operator.ts';
import { DomainError } from '../core/errors.ts';
import type { OperatorPermission } from '../core/permissions.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { audit_events, operator_idempotency_keys, operator_keys } from '../d1/schema.ts';
import { actingOperatorId } from './actor.ts';
import { eventParameters } from './call.ts';
import type { EventParameters, OperatorCall } from './call.ts';
import { isDecision, isRefusal } from './event.ts';
import { decisionColumns, mutationsBy } from './mutation.ts';
import { scopeOf } from './remembered-answers.ts';
import type { ScopeParameters } from './remembered-answers.ts';

type OperatorScope = Pick<ScopeParameters, 'idempotency_key' | 'method' | 'path'>;

/** What the statements of an operator's mutation are bound to. `actor_id` is the operator key; null: a command acts. */
export interface OperatorParameters extends EventParameters, OperatorScope {}

export function operatorParameters(call: OperatorCall, organization_id: string): OperatorParameters {
  return { ...eventParameters({ ...call, organization_id }), ...scopeOf(call) };
}

/** Predicate: a command acts, and no operator key. */
export const isByCommand = ({
  actor_id,
  actor_key_hash,
}: Readonly<Record<'actor_id' | 'actor_key_hash', SQLWrapper>>) =>
  sql`(${actor_id} IS NULL AND ${actor_key_hash} IS NULL)`;

const grants = (permission: OperatorPermission) =>
  sql`EXISTS (SELECT 1 FROM json_each(${operator_keys.permissions}) WHERE value = ${sql.raw(`'${permission}'`)})`;

const isRemembered = (parameters: Readonly<Record<'actor_id' | 'actor_key_hash' | keyof OperatorScope, SQLWrapper>>) =>
  and(
    eq(operator_idempotency_keys.operator_key_id, actingOperatorId(parameters)),
    eq(operator_idempotency_keys.idempotency_key, parameters.idempotency_key),
    eq(operator_idempotency_keys.method, parameters.method),
    eq(operator_idempotency_keys.path, parameters.path),
  );

/**
 * What every statement of an operator that decides must ask: the operator key is alive and has the permission, and no
 * request has acted under the Idempotency-Key. A command passes.
 */
export const mayOperate = (permission: OperatorPermission, db: Builder, parameters: Placeholders<OperatorParameters>) =>
  or(
    isByCommand(parameters),
    and(
      existsIn(
        db,
        operator_keys,
        and(
          eq(operator_keys.operator_key_id, actingOperatorId(parameters)),
          isLivingOperator(parameters),
          grants(permission),
        ),
      ),
      not(existsIn(db, operator_idempotency_keys, isRemembered(parameters))),
    ),
  );

const remember = query((db, parameters: Placeholders<OperatorParameters & { fingerprint: string }>) =>
  db
    .insert(operator_idempotency_keys)
    .select(
      db
        .select({
          operator_key_id: actingOperatorId(parameters).as('operator_key_id'),
          idempotency_key: sql<string>`${parameters.idempotency_key}`.as('idempotency_key'),
          method: sql<string>`${parameters.method}`.as('method'),
          path: sql<string>`${parameters.path}`.as('path'),
          organization_id: audit_events.organization_id,
          event_id: audit_events.event_id,
          fingerprint: sql<string>`${parameters.fingerprint}`.as('fingerprint'),
          created_at: audit_events.created_at,
        })
        .from(audit_events)
        .where(and(isDecision(parameters), not(isRefusal))),
    )
    .onConflictDoNothing(),
);

/** The event that decides: the one remembered under the request's Idempotency-Key, or else the request's own. */
export function decisiveEvent(db: Builder, parameters: Placeholders<OperatorParameters>) {
  const remembered = (name: 'organization_id' | 'event_id') =>
    sql<string>`coalesce(${db
      .select({ value: operator_idempotency_keys[name] })
      .from(operator_idempotency_keys)
      .where(isRemembered(parameters))}, ${parameters[name]})`;
  return { organization_id: remembered('organization_id'), event_id: remembered('event_id') };
}

const findDecision = query((db, parameters: Placeholders<OperatorParameters>) =>
  db
    .select({
      ...decisionColumns,
      fingerprint: operator_idempotency_keys.fingerprint,
      permissions: operator_keys.permissions,
    })
    .from(sql`(SELECT 1)`)
    .leftJoin(audit_events, isDecision(decisiveEvent(db, parameters)))
    .leftJoin(operator_idempotency_keys, isRemembered(parameters))
    .leftJoin(
      operator_keys,
      and(
        eq(
          operator_keys.operator_key_id,
          sql`iif(${audit_events.event_id} IS ${parameters.event_id}, NULL, ${actingOperatorId(parameters)})`,
        ),
        isLivingOperator(parameters),
      ),
    ),
);

/** @throws DomainError `operator_permission_denied` */
export function assertGranted({ permissions }: Pick<Operator, 'permissions'>, permission: OperatorPermission): void {
  if (permissionsIn(permissions).includes(permission)) return;
  throw new DomainError('operator_permission_denied', { required_permission: permission });
}

/** @param permissions of the operator key, if it is alive */
function assertOperatorMay(permission: OperatorPermission, { key }: OperatorCall, permissions: string | null): void {
  try {
    if (permissions === null) throw new DomainError('invalid_operator_key', {});
    assertGranted({ permissions }, permission);
  } catch (error) {
    forgetOperator(key.key_hash);
    throw error;
  }
}

/**
 * As `mutation` (mutation.ts), for operators with the permission. The function throws also DomainError
 * `invalid_operator_key` and `operator_permission_denied`.
 */
export const operatorMutation = mutationsBy({
  remember,
  findDecision,
  assertMay: (permission: OperatorPermission, call: OperatorCall, row) =>
    assertOperatorMay(permission, call, row?.permissions ?? null),
});
