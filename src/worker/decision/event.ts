/**
 * Audit events. A call's event is written by the batch that carries the call out, and it is the decision of that batch.
 * If the event exists, the call has been decided (done or refused), whichever try of the batch did it.
 *
 * The first statement of a batch decides. The statements after it depend on that, most of them by {@link hasDecided}:
 *
 * - A verb that changes or removes a row records the event first, because the event keeps the row as it was before.
 * - A verb that creates a row inserts it first, because the event keeps the row as it was created. Here the insert
 *   decides. The event, recorded from the new row, keeps a later try from inserting another row.
 */
import { and, eq, getTableColumns, gt, inArray, lt, sql } from 'drizzle-orm';
import type { SQL, SQLWrapper } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { BATCH_ID_LENGTH } from '../core/ids.ts';
import type { ActorType, AuditAction, EventReason } from '../core/vocabulary.ts';
import { actThenRead } from '../d1/batch.ts';
import { existsIn, isRare, jsonObject } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, CompiledQuery, Placeholders } from '../d1/query.ts';
import { audit_events, organizations } from '../d1/schema.ts';
import { actorColumns } from './actor.ts';
import type { EventParameters } from './call.ts';

export type EventKey = Readonly<Record<'organization_id' | 'event_id', SQLWrapper>>;

/** Selects the event that decides a batch, or another one of it by its id. */
export const isDecision = ({ organization_id, event_id }: EventKey) =>
  and(eq(audit_events.organization_id, organization_id), eq(audit_events.event_id, event_id));

/** The start of an event's id, which all events of one batch share. */
const batchIdOf = (event_id: SQLWrapper) => sql`substr(${event_id}, 1, ${sql.raw(String(BATCH_ID_LENGTH))})`;

/** The id of a batch's event about a further target (core/ids.ts); `event_id` is that of any of its events. */
export const eventIdBesideOf = (event_id: SQLWrapper, target_id: SQLWrapper) =>
  sql<string>`${batchIdOf(event_id)} || substr(${target_id}, -12)`;

/** Selects all events that one batch recorded; `event_id` is the id of any of them. */
export const isOfBatch = ({
  organization_id,
  event_id,
  request_id,
}: Readonly<Record<'organization_id' | 'event_id' | 'request_id', SQLWrapper>>) =>
  and(
    eq(audit_events.organization_id, organization_id),
    gt(audit_events.event_id, batchIdOf(event_id)),
    // 'g' sorts after every hex digit.
    lt(audit_events.event_id, sql`${batchIdOf(event_id)} || 'g'`),
    // The ids of two batches may begin alike.
    eq(audit_events.request_id, request_id),
  );

/**
 * Selects the events of one target with one of these actions, by the index of targets. (Most events may have the same
 * action.)
 */
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

/** Selects the events of refusals. */
export const isRefusal = sql`${audit_events.action} GLOB '*_refused'`;

/** Predicate: the event that decides exists, with this action if one is given. */
export const hasDecided = (db: Builder, parameters: EventKey, action?: AuditAction) =>
  existsIn(db, audit_events, and(isDecision(parameters), action && eq(audit_events.action, action)));

/**
 * Predicate of an update: the event that decides exists, and the row still has the revision that the event saw. So a
 * late try, which finds the event of an earlier try, does not overwrite a row that has been updated since.
 *
 * @param revision the column that every update raises
 */
export const decisionSaw = (db: Builder, parameters: EventKey, revision: SQLiteColumn) =>
  existsIn(
    db,
    audit_events,
    and(
      isDecision(parameters),
      eq(sql`json_extract(${audit_events.state}, ${sql.raw(`'$.${revision.name}'`)})`, revision),
    ),
  );

interface Recorder<Parameters> {
  /** The table of the targets. */
  table: SQLiteTable & { organization_id: SQLiteColumn };
  /** The column with a target's id. */
  target_id: SQLiteColumn;
  /** What happened; an SQL expression if the statement itself decides it. */
  action: AuditAction | ((db: Builder, parameters: Placeholders<Parameters>) => SQL<AuditAction>);
  /** Selects the targets. It may use the organization's row, which is joined. */
  where: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined;
  /** For an update: the new values of the columns that it sets. */
  changes?: (parameters: Placeholders<Parameters>, db: Builder) => Readonly<Record<string, SQL>>;
  /**
   * Whether there may be more than one target. Then the id of each event ends with the last digits of its target's id.
   */
  many?: boolean;
  /** Of many: the column in whose order their events are in the trail. */
  order?: SQLiteColumn;
  /** Of many: the first one's event decides, and has the batch's own id. */
  firstDecides?: boolean;
  /** Of an event that decides: how many events the batch puts before it in the trail. */
  precededBy?: (db: Builder, parameters: Placeholders<Parameters>) => SQL<number>;
  /** Of many: they come before the event that decides, which has left room for them ({@link Recorder.precededBy}). */
  precedeDecision?: boolean;
  /**
   * For what the service does to another organization because of a call: the reason, and ids of its own, so that the event
   * tells nothing of that call.
   */
  aside?: (parameters: Placeholders<Parameters>) => Aside;
}

const theSystem = { actor_type: sql`'system'`, actor_id: sql`NULL`, actor_name: sql`NULL`, actor_key_id: sql`NULL` };

interface Aside {
  reason: EventReason;
  event_id: SQLWrapper;
  request_id: SQLWrapper;
}

/**
 * Makes the statement that records an event for each target, unless an event with its id exists.
 *
 * The new event gets the next sequence after that of the organization's newest event, which the organization's row
 * keeps. D1 runs one statement after the other, so the sequence is the order of the commits. The event's time is that
 * of the commit by D1's clock, but never before that of the previous event. So times never fall as the sequence rises,
 * even after a restore of D1.
 */
export function eventRecorder<Parameters extends EventParameters>({
  table,
  target_id,
  action,
  where,
  changes,
  many = false,
  order,
  firstDecides = false,
  precededBy = () => sql`0`,
  precedeDecision = false,
  aside,
}: Recorder<Parameters>): CompiledQuery<Parameters, unknown> {
  return query((db, parameters: Placeholders<Parameters>) => {
    const other = aside?.(parameters);
    const { event_id, request_id } = other ?? parameters;
    const { actor_type, actor_id, actor_name, actor_key_id } = other
      ? theSystem
      : { ...actorColumns(parameters), actor_type: parameters.actor_type };
    const trail = other ? sql`${table.organization_id}` : sql`${parameters.organization_id}`;
    const inOrder = order ? sql` ORDER BY ${order}` : sql``;
    const place = many ? sql<number>`row_number() OVER (PARTITION BY ${trail}${inOrder})` : sql<number>`1`;
    const beside = eventIdBesideOf(event_id, target_id);
    const ofMany = firstDecides ? sql<string>`iif(${place} = 1, ${event_id}, ${beside})` : beside;
    const { created_at, sequence } = precedeDecision
      ? precedingPlace(db, parameters, place)
      : {
          created_at: sql<number>`max(${organizations.last_event_at}, unixepoch())`,
          sequence: sql<number>`${organizations.last_sequence} + ${precededBy(db, parameters)} + ${place}`,
        };
    const columns = {
      organization_id: sql<string>`${trail}`.as('organization_id'),
      event_id: (many ? ofMany : sql<string>`${event_id}`).as('event_id'),
      action: (typeof action === 'string' ? sql<AuditAction>`${sql.raw(`'${action}'`)}` : action(db, parameters)).as(
        'action',
      ),
      target_id: sql<string>`${target_id}`.as('target_id'),
      actor_key_id: sql<string | null>`${actor_key_id}`.as('actor_key_id'),
      request_id: sql<string>`${request_id}`.as('request_id'),
      state: stateOf(table).as('state'),
      created_at: created_at.as('created_at'),
      sequence: sequence.as('sequence'),
      actor_type: sql<ActorType>`${actor_type}`.as('actor_type'),
      actor_id: sql<string | null>`${actor_id}`.as('actor_id'),
      actor_name: sql<string | null>`${actor_name}`.as('actor_name'),
      changes: (changes ? jsonObject(changes(parameters, db)) : sql<null>`NULL`).as('changes'),
      reason: sql<EventReason | null>`${other ? sql.raw(`'${other.reason}'`) : sql`NULL`}`.as('reason'),
    };
    const isOfTrail = eq(organizations.organization_id, trail);
    const isTarget = where(db, parameters);
    const selected =
      table === organizations
        ? db.select(columns).from(organizations).where(and(isOfTrail, isTarget))
        : db.select(columns).from(table).crossJoin(organizations).where(and(isTarget, isOfTrail));
    return db.insert(audit_events).select(selected).onConflictDoNothing();
  });
}

const ofDecision = (column: SQLiteColumn, db: Builder, parameters: EventKey) =>
  sql<number>`(${db.select({ value: column }).from(audit_events).where(isDecision(parameters))})`;

/** Predicate of the organization: the event that decides is its newest. So it is not from an earlier try. */
export const isNewestOfTrail = (db: Builder, parameters: EventKey) =>
  sql`${organizations.last_sequence} = ${ofDecision(audit_events.sequence, db, parameters)}`;

/** The time and the sequence of an event that comes just before the event that decides, at this place among all of these. */
function precedingPlace(db: Builder, parameters: EventKey, place: SQL<number>) {
  return {
    created_at: ofDecision(audit_events.created_at, db, parameters),
    sequence: sql<number>`${ofDecision(audit_events.sequence, db, parameters)} - count(*) OVER () - 1 + ${place}`,
  };
}

const unrecorded = [
  'data_key',
  'kek_id',
  'key_hash',
  'ended_at',
  'last_sequence',
  'last_event_at',
  'account_salt',
  'account_fingerprint',
  'refused_checks_since',
  'checks_stopped_until',
  'last_verdict',
  'recheck_from',
  'checking_until',
  'ownership_due_at',
  'name_folded',
  'created_event_id',
  'is_offboarding',
  'cursor_sequence',
  'resting_until',
  'claim',
  'claimed_until',
  'response_body',
];

/** The state of an event leaves out secrets, counters, and what the service keeps only for itself. */
const isRecorded = (name: string) => !unrecorded.includes(name) && !/_count$|^max_/.test(name);

/** JSON of the row of this table that a statement selects from. */
const stateOf = (table: SQLiteTable) =>
  jsonObject(Object.fromEntries(Object.entries(getTableColumns(table)).filter(([name]) => isRecorded(name))));

/** For an update: the time of the event that decides, unless the row already has a later one. */
export const updateTime = (db: Builder, parameters: EventKey, updated_at: SQLiteColumn) =>
  sql<number>`max(${updated_at}, ${ofDecision(audit_events.created_at, db, parameters)})`;

const storedObject = z.record(z.string(), z.unknown());

/** The new values of the columns that an update set. */
export const changesOf = ({ changes }: { changes: string | null }) => storedObject.parse(JSON.parse(changes ?? '{}'));

const readDecision = query((db, parameters: Placeholders<EventParameters>) =>
  db
    .select({ action: audit_events.action, state: audit_events.state })
    .from(audit_events)
    .where(isDecision(parameters)),
);

/** A row if the call has decided. */
export const findOwnDecision = query((db, parameters: Placeholders<EventParameters>) =>
  db
    .select({ one: sql`1` })
    .from(audit_events)
    .where(isDecision(parameters)),
);

const countEvents = query((db, parameters: Placeholders<EventParameters>) =>
  db
    .select({ count: sql<number>`count(*)`.as('count') })
    .from(audit_events)
    .where(isOfBatch(parameters)),
);

/**
 * Carries out a call that needs no caller's permission, as of an operator's command: its statements in order, in one
 * batch. They must be safe to repeat, and harmless if they arrive late.
 *
 * @returns the event that decided, if there is one, and how many events the call recorded. `inDoubt`: an earlier try
 *   may still be carried out. A caller that takes a missing event for a refusal must call {@link assertNothingInDoubt}
 * @throws DomainError `temporarily_unavailable`
 */
export async function carryOut<Parameters extends EventParameters>(
  database: D1Database,
  statements: readonly CompiledQuery<Parameters, unknown>[],
  parameters: Parameters,
) {
  const { read, inDoubt } = await actThenRead(
    database,
    statements.map((statement) => statement.bind(parameters)),
    { decision: readDecision.bind(parameters), recorded: countEvents.bind(parameters) },
  );
  return { event: read.decision[0], count: read.recorded[0]?.count ?? 0, inDoubt };
}

/**
 * Must be called before a refusal that left no event: an earlier try of the batch might still be carried out, after the
 * client was told that it was refused.
 *
 * @throws DomainError `temporarily_unavailable` (`unknown`) if there is such a try
 */
export function assertNothingInDoubt(inDoubt: boolean): void {
  if (inDoubt) throw new DomainError('temporarily_unavailable', { outcome: 'unknown' });
}
