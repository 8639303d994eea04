/**
 * What every mutation has in common: one batch that asks, decides, acts and reads the decision back, and how its results are
 * judged, on the first try, on a repeat of the batch, and on a repeat of the request under its Idempotency-Key.
 */
import { and, eq, ne, not, sql } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
import { assertNothingInDoubt, isEvent, isOfOperation, isRefusal } from './event.ts';
import type { EventParameters } from './event.ts';
import { assertCallerMay, isLivingCaller } from './caller.ts';
import type { Permission } from '../core/permissions.ts';
import type { Operation } from '../env.ts';
import { assertSameRequest, isScope } from './remembered-answers.ts';
import { batchOfGroups, bindEach, query } from '../d1/query.ts';
import type { Builder, CompiledQuery, Placeholders } from '../d1/query.ts';
import { api_keys, audit_events, idempotency_keys } from '../d1/schema.ts';
import { onPrimary } from '../d1/replica-session.ts';

type Statements<Parameters> = Readonly<Record<string, CompiledQuery<Parameters, unknown>>>;

/** For a mutation whose answers are made from its event alone. */
export type NothingElse = Readonly<Record<string, never>>;

interface Definition<Parameters, Explained extends Statements<Parameters>> {
  /** What a refusal is explained from, read as the batch leaves it. */
  explain: Explained;
  /** The statements that decide and act, each on the conditions that it states itself. */
  act: Statements<Parameters>;
  /** Follows what acts, whatever it came to. */
  settle?: Statements<Parameters>;
}

/** Follows what acts, in its batch. */
const remember = query((db, parameters: Placeholders<EventParameters & { fingerprint: string }>) =>
  db
    .insert(idempotency_keys)
    .select(
      db
        .select({
          organization_id: audit_events.organization_id,
          actor_key_id: sql<string>`${parameters.actor_key_id}`.as('actor_key_id'),
          idempotency_key: sql<string>`${parameters.idempotency_key}`.as('idempotency_key'),
          method: sql<string>`${parameters.method}`.as('method'),
          path: sql<string>`${parameters.path}`.as('path'),
          event_id: audit_events.event_id,
          fingerprint: sql<string>`${parameters.fingerprint}`.as('fingerprint'),
          created_at: audit_events.created_at,
        })
        .from(audit_events)
        .where(and(isEvent(parameters), not(isRefusal))),
    )
    .onConflictDoNothing(),
);

/** The id of the operation that a request is answered from: the one that acted under its Idempotency-Key, or its own. */
const decisiveEventId = (db: Builder, parameters: Placeholders<EventParameters>) =>
  sql<string>`coalesce(${db
    .select({ event_id: idempotency_keys.event_id })
    .from(idempotency_keys)
    .where(isScope(parameters))}, ${parameters.event_id})`;

/** Selects the events that the request's operation left beside its decision, by their ids ({@link eventIdBeside}). */
export const isBesideDecision = (db: Builder, parameters: Placeholders<EventParameters>) => {
  const decisive = decisiveEventId(db, parameters);
  const decision = alias(audit_events, 'decision');
  const { organization_id } = parameters;
  const request_id = db
    .select({ request_id: decision.request_id })
    .from(decision)
    .where(and(eq(decision.organization_id, organization_id), eq(decision.event_id, decisive)));
  return and(isOfOperation({ organization_id, event_id: decisive, request_id }), ne(audit_events.event_id, decisive));
};

/**
 * One row: the event of that operation, and the fingerprint of the request that acted under the key; or the caller's key,
 * which an answer depends on where this operation itself left no event.
 */
const findDecision = query((db, parameters: Placeholders<EventParameters>) => {
  const { organization_id, event_id, actor_key_id } = parameters;
  return db
    .select({
      event: {
        event_id: audit_events.event_id,
        action: audit_events.action,
        state: audit_events.state,
        created_at: audit_events.created_at,
      },
      fingerprint: idempotency_keys.fingerprint,
      caller: { user_id: api_keys.user_id, role: api_keys.role, expires_at: api_keys.expires_at },
    })
    .from(sql`(SELECT 1)`)
    .leftJoin(
      audit_events,
      and(
        eq(audit_events.organization_id, organization_id),
        eq(audit_events.event_id, decisiveEventId(db, parameters)),
      ),
    )
    .leftJoin(idempotency_keys, isScope(parameters))
    .leftJoin(
      api_keys,
      and(
        eq(api_keys.key_id, sql`iif(${audit_events.event_id} IS ${event_id}, NULL, ${actor_key_id})`),
        isLivingCaller(db, parameters),
      ),
    );
});

const nothing = { event: null, fingerprint: null, caller: null };

/**
 * Makes the function that carries a mutation out for a caller with the permission: in one batch, with what an
 * Idempotency-Key needs of it.
 */
export function mutation<Parameters extends EventParameters, Explained extends Statements<Parameters>>(
  permission: Permission,
  { explain, act, settle = {} }: Definition<Parameters, Explained>,
) {
  /**
   * @returns the event that says it was done (or refused, where the action says so), which is another request's where that
   *   acted under the same Idempotency-Key; or else none: then the caller, who is not the reason. In either case what was
   *   found, which explains a refusal
   * @throws DomainError `invalid_api_key`, `permission_denied`, `idempotency_key_reused`, `temporarily_unavailable`
   */
  return async function decide(operation: Operation, parameters: Parameters) {
    const { idempotency } = operation;
    const { results, inDoubt } = await onPrimary(operation, (database) =>
      batchOfGroups(database, [
        bindEach(act, parameters),
        idempotency ? { remember: remember.bind({ ...parameters, fingerprint: idempotency.fingerprint }) } : {},
        bindEach(settle, parameters),
        bindEach(explain, parameters),
        { decision: findDecision.bind(parameters) },
      ]),
    );
    const [, , , found, { decision }] = results;
    const [{ event, fingerprint, caller } = nothing] = decision;
    if (!event) {
      assertNothingInDoubt(inDoubt);
      return { event: undefined, found, caller: assertCallerMay(permission, operation, caller) };
    }
    const replayed = event.event_id !== parameters.event_id;
    if (replayed) {
      assertCallerMay(permission, operation, caller);
      assertSameRequest(operation, fingerprint);
      operation.markReplayed();
    }
    return { event, found, replayed };
  };
}
