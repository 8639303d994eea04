/**
 * What all mutations share, of API keys and of operators: one batch that decides, acts, and reads the decision back. Either
 * this request decided, or an earlier request under the same Idempotency-Key did, or nothing was decided.
 */
import { and, eq, ne, not, sql } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
import type { Permission } from '../core/permissions.ts';
import { beat } from '../d1/heartbeat.ts';
import { query } from '../d1/query.ts';
import type { BoundQuery, Builder, CompiledQuery, Placeholders } from '../d1/query.ts';
import { ifAlive, onPrimary } from '../d1/replica-session.ts';
import { api_keys, audit_events, idempotency_keys } from '../d1/schema.ts';
import { actingKeyId } from './actor.ts';
import { actorParameters, eventParameters } from './call.ts';
import type { ApiCall, EventParameters, OperatorCall } from './call.ts';
import { assertCallerMay, isLivingCaller } from './caller.ts';
import type { CallerKey, CallerParameters } from './caller.ts';
import { assertNothingInDoubt, findOwnDecision, isDecision, isOfBatch, isRefusal } from './event.ts';
import type { EventKey } from './event.ts';
import { preconditionOf } from './precondition.ts';
import type { PreconditionParameters } from './precondition.ts';
import { assertSameRequest, isRemembered, rememberedRow, scopeOf } from './remembered-answers.ts';
import { wakeDelivery } from './wake.ts';

/** What the statements of every mutation are bound to. Each mutation adds its own parameters. */
export interface MutationParameters extends EventParameters, CallerParameters, PreconditionParameters {}

/** {@link eventParameters}, and what a batch needs to check the caller, the Idempotency-Key and the precondition. */
export function mutationParameters(call: ApiCall): MutationParameters {
  return { ...eventParameters(call), ...scopeOf(call), ...preconditionOf(call) };
}

type Reads<Parameters> = Readonly<Record<string, CompiledQuery<Parameters, unknown>>>;
type ResultsOf<Found> = {
  [Name in keyof Found]: Found[Name] extends CompiledQuery<never, infer Result> ? Result : never;
};

export interface Definition<Parameters, Found extends Reads<Parameters>> {
  /** Run in this order; event.ts says which one comes first. Each checks its own conditions. */
  statements: readonly CompiledQuery<Parameters, unknown>[];
  /** Reads that explain a refusal. They run after the statements. */
  found: Found;
  /** The batch's deadline, if it may take longer than others. */
  milliseconds?: number;
}

/** The event that decided a request. */
export interface Decision {
  event_id: string;
  action: typeof audit_events.$inferSelect.action;
  state: string;
  changes: string | null;
  created_at: number;
}

/** `found` has the results of the reads, in every case. */
export type Outcome<Found, Holder = CallerKey> = { found: Found } &
  /** This request recorded an event: it acted, or it was refused by a rule that is recorded. */
  (
    | { outcome: 'decided'; event: Decision }
    /** An earlier request under the same Idempotency-Key acted, and this is its event. */
    | { outcome: 'replayed'; event: Decision }
    /** There is no event. It is not because of the caller: its key is alive and has the permission. */
    | { outcome: 'undecided'; caller: Holder }
  );

/** The columns of a {@link Decision}. */
export const decisionColumns = {
  event_id: audit_events.event_id,
  action: audit_events.action,
  state: audit_events.state,
  changes: audit_events.changes,
  created_at: audit_events.created_at,
};

/** Remembers the event under the request's Idempotency-Key. A refusal changed nothing, and is not remembered. */
const remember = query((db, parameters: Placeholders<MutationParameters & { fingerprint: string }>) =>
  db
    .insert(idempotency_keys)
    .select(
      db
        .select(rememberedRow(parameters, parameters.path))
        .from(audit_events)
        .where(and(isDecision(parameters), not(isRefusal))),
    )
    .onConflictDoNothing(),
);

/**
 * The id of the event that decides: the one remembered under the request's Idempotency-Key, or else the request's own.
 */
const decisiveEventId = (db: Builder, parameters: Placeholders<MutationParameters>) =>
  sql<string>`coalesce(${db
    .select({ event_id: idempotency_keys.event_id })
    .from(idempotency_keys)
    .where(isRemembered(parameters))}, ${parameters.event_id})`;

/** Selects all events of the batch that recorded this event. */
export const isOfBatchOf = (db: Builder, { organization_id, event_id }: EventKey) => {
  const decision = alias(audit_events, 'decision');
  const request_id = db
    .select({ request_id: decision.request_id })
    .from(decision)
    .where(and(eq(decision.organization_id, organization_id), eq(decision.event_id, event_id)));
  return isOfBatch({ organization_id, event_id, request_id });
};

/** Selects the other events of the call that decided, those about further targets. */
export const isOtherEventOfDecision = (db: Builder, parameters: Placeholders<MutationParameters>) => {
  const event_id = decisiveEventId(db, parameters);
  return and(
    isOfBatchOf(db, { organization_id: parameters.organization_id, event_id }),
    ne(audit_events.event_id, event_id),
  );
};

/**
 * One row: the event that decides and, if it was remembered, the fingerprint of its request. Also the caller's key, to
 * check whether it is alive, unless this request itself decided: then a statement has checked it already.
 */
const findDecision = query((db, parameters: Placeholders<MutationParameters>) => {
  const { organization_id, event_id } = parameters;
  return db
    .select({
      ...decisionColumns,
      fingerprint: idempotency_keys.fingerprint,
      user_id: api_keys.user_id,
      role: api_keys.role,
      expires_at: api_keys.expires_at,
    })
    .from(sql`(SELECT 1)`)
    .leftJoin(
      audit_events,
      and(
        eq(audit_events.organization_id, organization_id),
        eq(audit_events.event_id, decisiveEventId(db, parameters)),
      ),
    )
    .leftJoin(idempotency_keys, isRemembered(parameters))
    .leftJoin(
      api_keys,
      and(
        eq(api_keys.key_id, sql`iif(${audit_events.event_id} IS ${event_id}, NULL, ${actingKeyId(parameters)})`),
        isLivingCaller(db, parameters),
      ),
    );
});

/**
 * What {@link Authority.findDecision} reads: one row, with the event that decides, if there is one, and the key of who calls, if
 * it is alive. If this request itself decided there is no key, because a statement has checked it.
 */
type DecisionRow = { [Name in keyof Decision]: Decision[Name] | null } & {
  /** Of the remembered request, if the event is remembered. */
  fingerprint: string | null;
};

function decisionIn({ event_id, action, state, changes, created_at }: DecisionRow): Decision | undefined {
  if (event_id === null || action === null || state === null || created_at === null) return undefined;
  return { event_id, action, state, changes, created_at };
}

type AnyCall = ApiCall | OperatorCall;

/** What differs between the mutations of API keys and those of operators. */
interface Authority<Given extends AnyCall, Permitted, Parameters, Row extends DecisionRow, Holder> {
  /** Remembers the event under the request's Idempotency-Key. A refusal changed nothing, and is not remembered. */
  remember: CompiledQuery<Parameters & { fingerprint: string }, unknown>;
  findDecision: CompiledQuery<Parameters, Row[]>;
  /** @throws DomainError if the key is dead, or no longer has the permission */
  assertMay: (permission: Permitted, call: Given, row: Row | undefined) => Holder;
}

/** Makes {@link mutation} for one kind of key. */
export const mutationsBy =
  <Given extends AnyCall, Permitted, Base extends EventParameters, Row extends DecisionRow, Holder>({
    remember: rememberEvent,
    findDecision: findEvent,
    assertMay,
  }: Authority<Given, Permitted, Base, Row, Holder>) =>
  <Parameters extends Base, Named extends Reads<Parameters>>(
    permission: Permitted,
    { statements, found: reads, milliseconds }: Definition<Parameters, Named>,
  ) =>
    async function decide(call: Given, given: Parameters): Promise<Outcome<ResultsOf<Named>, Holder>> {
      // An earlier batch of the call may have found out who acts.
      const parameters = { ...given, ...actorParameters(call) };
      const acting: BoundQuery<unknown>[] = [
        beat.bind({}),
        ...statements.map((statement) => statement.bind(parameters)),
      ];
      if (call.idempotency) {
        acting.push(rememberEvent.bind({ ...parameters, fingerprint: call.idempotency.fingerprint }));
      }
      const reading: Record<string, BoundQuery<unknown>> = {};
      for (const [name, found] of Object.entries(reads)) reading[name] = found.bind(parameters);
      const explaining = ifAlive(call, reading, () => findOwnDecision.bind(parameters));
      const { read, inDoubt, confirm } = await onPrimary(
        call,
        acting,
        { ...explaining, decision: findEvent.bind(parameters) },
        milliseconds,
      );
      const { decision, ...rest } = read;
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- Object.fromEntries forgets the names
      const found = rest as ResultsOf<Named>;
      const [row] = decision;
      const event = row && decisionIn(row);
      if (event?.event_id === parameters.event_id) {
        confirm(true);
        call.afterAnswer(() => wakeDelivery(call.env, { organization_id: parameters.organization_id }));
        return { outcome: 'decided', event, found };
      }
      if (!event) assertNothingInDoubt(inDoubt);
      confirm();
      const holder = assertMay(permission, call, row);
      if (!event) return { outcome: 'undecided', caller: holder, found };
      // A repeated request gets the first answer again, if it is the same request.
      assertSameRequest(call, row?.fingerprint ?? null);
      call.told.replayed = true;
      return { outcome: 'replayed', event, found };
    };

/**
 * Makes the function that carries a mutation out, for callers with the permission.
 *
 * The function returns the {@link Outcome}. It throws DomainError `invalid_api_key`, `permission_denied`,
 * `idempotency_key_reused` or `temporarily_unavailable`.
 */
export const mutation = mutationsBy({
  remember,
  findDecision,
  assertMay: (permission: Permission, call: ApiCall, row) => {
    const { user_id = null, role = null, expires_at = null } = row ?? {};
    return assertCallerMay(permission, call, user_id !== null && role !== null ? { user_id, role, expires_at } : null);
  },
});
