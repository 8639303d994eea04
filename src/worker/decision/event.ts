/**
 * Audit events. An event is written by the batch of the mutation that it tells of, and is its decision: whether the event
 * is there says whether the mutation happened, on the first try and on every repeat of the batch.
 */
import { and, eq, getTableColumns, gt, inArray, lt, sql } from 'drizzle-orm';
import type { SQL, SQLWrapper } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import type { CallerParameters } from './caller.ts';
import type { Operation } from '../env.ts';
import { withoutIdempotencyKey } from './remembered-answers.ts';
import { newEventId, OPERATION_LENGTH } from '../core/ids.ts';
import { DomainError } from '../core/errors.ts';
import { existsIn, jsonObject, query } from '../d1/query.ts';
import type { Builder, CompiledQuery, Placeholders } from '../d1/query.ts';
import { audit_events, organizations } from '../d1/schema.ts';
import type { AuditAction } from '../core/vocabulary.ts';
import { unixNow } from '../core/time.ts';

/** What an operation's event is recorded from. */
export interface RecordParameters {
  organization_id: string;
  event_id: string;
  /** Null for an operator. */
  actor_key_id: string | null;
  request_id: string;
  /** Unix seconds: when the operation began, by the clock of whoever carries it out. */
  event_time: number;
  /** Unix seconds. */
  now: number;
}

/** {@link RecordParameters} of a call, whose batch asks about its caller. */
export interface EventParameters extends RecordParameters, CallerParameters {
  actor_key_id: string;
}

type EventKey = Pick<RecordParameters, 'organization_id' | 'event_id'>;

/** Mints an operation: its event's id, its caller and its time. Once for each call, before the first try. */
export function eventParameters({ caller, request_id, idempotency }: Operation): EventParameters {
  const now = unixNow();
  return {
    organization_id: caller.organization_id,
    actor_key_id: caller.key_id,
    ...(idempotency?.scope ?? withoutIdempotencyKey),
    now,
    event_id: newEventId(),
    request_id,
    event_time: now,
  };
}

/** Mints an operator's operation on an organization, as {@link eventParameters} does a caller's. */
export function operatorEventParameters(organization_id: string): RecordParameters {
  const now = unixNow();
  return {
    organization_id,
    actor_key_id: null,
    now,
    event_id: newEventId(),
    request_id: crypto.randomUUID(),
    event_time: now,
  };
}

/** Selects one operation's event. */
export const isEvent = ({ organization_id, event_id }: Placeholders<EventKey>) =>
  and(eq(audit_events.organization_id, organization_id), eq(audit_events.event_id, event_id));

/** What all ids of an operation's events begin with (ids.ts). */
const operationOf = (event_id: SQLWrapper) => sql`substr(${event_id}, 1, ${sql.raw(String(OPERATION_LENGTH))})`;

/** Selects all events of one operation, of which `event_id` is one or would be. */
export const isOfOperation = ({
  organization_id,
  event_id,
  request_id,
}: Readonly<Record<'organization_id' | 'event_id' | 'request_id', SQLWrapper>>) =>
  and(
    eq(audit_events.organization_id, organization_id),
    gt(audit_events.event_id, operationOf(event_id)),
    lt(audit_events.event_id, sql`${operationOf(event_id)} || 'g'`),
    // Another operation may have begun its ids alike.
    eq(audit_events.request_id, request_id),
  );

/**
 * Tells SQLite's planner, which has no statistics, to seek by this predicate's index: it would walk the primary key, and
 * read every event that the predicate then drops.
 */
export const isRare = (predicate: SQL) => sql`likelihood(${predicate}, 0.0001)`;

/** Selects the events of one target with one of these actions, by the index of targets: an action may be most events'. */
export const isOfTarget = (
  events: Record<'organization_id' | 'target_id' | 'action', SQLiteColumn>,
  { organization_id, target_id }: Record<'organization_id' | 'target_id', SQLWrapper>,
  actions: readonly AuditAction[],
) =>
  and(
    eq(events.organization_id, organization_id),
    isRare(eq(events.target_id, target_id)),
    inArray(sql`+${events.action}`, [...actions]),
  );

/** Selects the events that tell of a refusal. */
export const isRefusal = sql`${audit_events.action} GLOB '*_refused'`;

/**
 * Predicate of an update: this operation's event is there, and saw the very revision that the row has. A late try, which
 * finds the event of an earlier one and a row that has moved on, changes nothing.
 */
export const eventSaw = (db: Builder, parameters: Placeholders<EventKey>, revision: SQLiteColumn) =>
  existsIn(
    db,
    audit_events,
    and(isEvent(parameters), eq(sql`json_extract(${audit_events.state}, '$.revision')`, revision)),
  );

/** Predicate: this operation's event is there, with this action if one is named. */
export const eventExists = (db: Builder, parameters: Placeholders<EventKey>, action?: AuditAction) =>
  existsIn(db, audit_events, and(isEvent(parameters), action && eq(audit_events.action, action)));

/**
 * Makes the statement that records an operation's event, once: of the row of `table` that the condition selects.
 *
 * @param action what the event says happened; where the statement decides, in SQL
 * @param target_id the column that names the row
 */
export function eventRecorder<Parameters extends RecordParameters>(
  table: SQLiteTable,
  target_id: SQLiteColumn,
  action: AuditAction | ((db: Builder, parameters: Placeholders<Parameters>) => SQL<AuditAction>),
  condition: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined,
): CompiledQuery<Parameters, unknown> {
  return query((db, parameters: Placeholders<Parameters>) => {
    const decided = typeof action === 'string' ? quoted(action) : action(db, parameters);
    const recorded = { event_id: sql<string>`${parameters.event_id}`, action: decided, place: sql<number>`1` };
    return insertEvents(db, table, target_id, recorded, parameters, condition(db, parameters));
  });
}

/**
 * {@link eventRecorder} for all rows that the condition selects: each has an event of its own, whose id follows from the
 * operation's and the target's, as `eventIdBeside` has it (ids.ts).
 */
export function eventsRecorder<Parameters extends RecordParameters>(
  table: SQLiteTable,
  target_id: SQLiteColumn,
  action: AuditAction,
  condition: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined,
): CompiledQuery<Parameters, unknown> {
  return query((db, parameters: Placeholders<Parameters>) => {
    const recorded = {
      event_id: sql<string>`${operationOf(parameters.event_id)} || substr(${target_id}, -12)`,
      action: quoted(action),
      place: sql<number>`row_number() OVER ()`,
    };
    return insertEvents(db, table, target_id, recorded, parameters, condition(db, parameters));
  });
}

const quoted = (action: AuditAction) => sql<AuditAction>`${sql.raw(`'${action}'`)}`;

interface Recorded {
  event_id: SQL<string>;
  action: SQL<AuditAction>;
  /** Of the event among those that the statement records, from 1. */
  place: SQL<number>;
}

/**
 * Inserts an event of each row of `table` that the condition selects, unless there is one of its id. The condition may ask about
 * the organization: its row is joined.
 *
 * Statements follow one another in D1, so what the organization's row says of its newest event is the order of the commits:
 * the event has the next sequence. Its time is D1's own, of the commit, and never before that of the event before: so times
 * rise with the sequence, and what comes after a restore of D1 is behind what was before.
 */
function insertEvents(
  db: Builder,
  table: SQLiteTable,
  target_id: SQLiteColumn,
  { event_id, action, place }: Recorded,
  { organization_id, actor_key_id, request_id }: Placeholders<RecordParameters>,
  condition: SQL | undefined,
) {
  const columns = {
    organization_id: sql<string>`${organization_id}`.as('organization_id'),
    event_id: event_id.as('event_id'),
    action: action.as('action'),
    target_id: sql<string>`${target_id}`.as('target_id'),
    actor_key_id: sql<string | null>`${actor_key_id}`.as('actor_key_id'),
    request_id: sql<string>`${request_id}`.as('request_id'),
    state: stateJson(table).as('state'),
    created_at: sql<number>`max(${organizations.last_event_at}, unixepoch())`.as('created_at'),
    sequence: sql<number>`${organizations.last_sequence} + ${place}`.as('sequence'),
  };
  const isOfTrail = eq(organizations.organization_id, organization_id);
  const selected =
    table === organizations
      ? db.select(columns).from(organizations).where(and(isOfTrail, condition))
      : db.select(columns).from(table).crossJoin(organizations).where(and(condition, isOfTrail));
  return db.insert(audit_events).select(selected).onConflictDoNothing();
}

/** What could open something, and what is counted or kept for the service itself: the state of an event leaves it out. */
const isRecorded = (name: string) =>
  !['data_key', 'kek_id', 'key_hash', 'ended_at', 'last_sequence', 'last_event_at'].includes(name) &&
  !/_count$|^max_/.test(name);

/** JSON of the row of this table that a statement selects from. */
const stateJson = (table: SQLiteTable) =>
  jsonObject(Object.values(getTableColumns(table)).filter(({ name }) => isRecorded(name)));

/** For an update: the time of this operation's event, unless the row has a later one already. */
export const updateTime = (db: Builder, parameters: Placeholders<EventKey>, updated_at: SQLiteColumn) =>
  sql<number>`max(${updated_at}, ${db
    .select({ created_at: audit_events.created_at })
    .from(audit_events)
    .where(isEvent(parameters))})`;

/** This operation's event, read back in the batch that may have written it: what the answer is built from. */
export const readEvent = query((db, parameters: Placeholders<EventKey>) =>
  db
    .select({ action: audit_events.action, state: audit_events.state, created_at: audit_events.created_at })
    .from(audit_events)
    .where(isEvent(parameters)),
);

/** How many events an operation left. */
export const countRecorded = query((db, parameters: Placeholders<RecordParameters>) =>
  db
    .select({ count: sql<number>`count(*)`.as('count') })
    .from(audit_events)
    .where(isOfOperation(parameters)),
);

/**
 * Stands before every refusal that left no event, because an earlier try of the batch could still overtake it.
 *
 * @throws DomainError `temporarily_unavailable` (`unknown`) where there is such a try
 */
export function assertNothingInDoubt(inDoubt: boolean): void {
  if (inDoubt) throw new DomainError('temporarily_unavailable', { outcome: 'unknown' });
}
