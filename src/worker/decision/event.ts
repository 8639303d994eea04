/**
 * Audit events. An event is written by the batch of the call that it tells of, and it is the decision of that call: if the
 * event is there, the call was carried out, whichever try of the batch did it.
 *
 * The first statement of a batch is the one that decides, and the others ask for its event ({@link hasDecided}):
 *
 * - A verb that changes or removes a row records the event first, because the event keeps the row as it was before.
 * - A verb that makes a row inserts the row first, because the event keeps the row as it was made. Then the insert decides,
 *   and the event that is recorded of the new row keeps a later try from inserting another.
 */
import { and, eq, getTableColumns, gt, inArray, lt, sql } from 'drizzle-orm';
import type { SQL, SQLWrapper } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import { DomainError } from '../core/errors.ts';
import { CALL_ID_LENGTH } from '../core/ids.ts';
import type { ActorType, AuditAction } from '../core/vocabulary.ts';
import { actThenRead } from '../d1/batch.ts';
import { existsIn, jsonObject } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, CompiledQuery, Placeholders } from '../d1/query.ts';
import { audit_events, organizations } from '../d1/schema.ts';
import type { EventParameters } from './call.ts';

type EventKey = Pick<EventParameters, 'organization_id' | 'event_id'>;

/** Selects the event that decides a call. */
export const isDecision = ({ organization_id, event_id }: Placeholders<EventKey>) =>
  and(eq(audit_events.organization_id, organization_id), eq(audit_events.event_id, event_id));

/** What the ids of all events of a call begin with. */
const callIdOf = (event_id: SQLWrapper) => sql`substr(${event_id}, 1, ${sql.raw(String(CALL_ID_LENGTH))})`;

/** Selects all events of a call; `event_id` is the id of any of them. */
export const isOfCall = ({
  organization_id,
  event_id,
  request_id,
}: Readonly<Record<'organization_id' | 'event_id' | 'request_id', SQLWrapper>>) =>
  and(
    eq(audit_events.organization_id, organization_id),
    gt(audit_events.event_id, callIdOf(event_id)),
    lt(audit_events.event_id, sql`${callIdOf(event_id)} || 'g'`),
    // The ids of another call may begin alike.
    eq(audit_events.request_id, request_id),
  );

/**
 * Tells SQLite's planner, which has no statistics, to use this predicate's index. It would use the primary key instead, and
 * read every event of the organization.
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

/** Predicate: the event that decides is there, with this action if one is named. */
export const hasDecided = (db: Builder, parameters: Placeholders<EventKey>, action?: AuditAction) =>
  existsIn(db, audit_events, and(isDecision(parameters), action && eq(audit_events.action, action)));

/**
 * Predicate of an update: the event that decides is there, and it saw the revision that the row still has. A late try finds
 * the event of an earlier try and a row that has been updated since: it changes nothing.
 */
export const decisionSaw = (db: Builder, parameters: Placeholders<EventKey>, revision: SQLiteColumn) =>
  existsIn(
    db,
    audit_events,
    and(isDecision(parameters), eq(sql`json_extract(${audit_events.state}, '$.revision')`, revision)),
  );

interface Recorder<Parameters> {
  /** The table of the targets. */
  table: SQLiteTable;
  /** The column that names a target. */
  target_id: SQLiteColumn;
  /** What the event says happened; where the statement decides it, in SQL. */
  action: AuditAction | ((db: Builder, parameters: Placeholders<Parameters>) => SQL<AuditAction>);
  /** Selects the targets. It may ask about the organization, whose row is joined. */
  where: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined;
  /** Of an update: the new values of the columns that it sets. */
  changes?: (parameters: Placeholders<Parameters>) => Readonly<Record<string, SQL>>;
  /** Whether there may be many targets: each has an event of its own, whose id ends as the target's does. */
  many?: boolean;
}

/**
 * Makes the statement that records an event of each target, unless there is one of its id.
 *
 * D1 carries out one statement after the other, so the organization's row, which knows its newest event, tells the order of
 * the commits: the new event has the next sequence. Its time is the time of the commit by D1's clock, and never before that
 * of the event before. So times rise with the sequence, also after a restore of D1.
 */
export function eventRecorder<Parameters extends EventParameters>({
  table,
  target_id,
  action,
  where,
  changes,
  many = false,
}: Recorder<Parameters>): CompiledQuery<Parameters, unknown> {
  return query((db, parameters: Placeholders<Parameters>) => {
    const { organization_id, event_id, actor_type, actor_id, actor_name, actor_key_id, request_id } = parameters;
    const place = many ? sql`row_number() OVER ()` : sql`1`;
    const columns = {
      organization_id: sql<string>`${organization_id}`.as('organization_id'),
      event_id: (many ? sql<string>`${callIdOf(event_id)} || substr(${target_id}, -12)` : sql<string>`${event_id}`).as(
        'event_id',
      ),
      action: (typeof action === 'string' ? sql<AuditAction>`${sql.raw(`'${action}'`)}` : action(db, parameters)).as(
        'action',
      ),
      target_id: sql<string>`${target_id}`.as('target_id'),
      actor_key_id: sql<string | null>`${actor_key_id}`.as('actor_key_id'),
      request_id: sql<string>`${request_id}`.as('request_id'),
      state: stateOf(table).as('state'),
      created_at: sql<number>`max(${organizations.last_event_at}, unixepoch())`.as('created_at'),
      sequence: sql<number>`${organizations.last_sequence} + ${place}`.as('sequence'),
      actor_type: sql<ActorType>`${actor_type}`.as('actor_type'),
      actor_id: sql<string | null>`${actor_id}`.as('actor_id'),
      actor_name: sql<string | null>`${actor_name}`.as('actor_name'),
      changes: (changes ? jsonObject(changes(parameters)) : sql<null>`NULL`).as('changes'),
    };
    const isOfTrail = eq(organizations.organization_id, organization_id);
    const isTarget = where(db, parameters);
    const selected =
      table === organizations
        ? db.select(columns).from(organizations).where(and(isOfTrail, isTarget))
        : db.select(columns).from(table).crossJoin(organizations).where(and(isTarget, isOfTrail));
    return db.insert(audit_events).select(selected).onConflictDoNothing();
  });
}

/** The state of an event leaves out what could open something, and what is counted or kept for the service itself. */
const isRecorded = (name: string) =>
  !['data_key', 'kek_id', 'key_hash', 'ended_at', 'last_sequence', 'last_event_at'].includes(name) &&
  !/_count$|^max_/.test(name);

/** JSON of the row of this table that a statement selects from. */
const stateOf = (table: SQLiteTable) =>
  jsonObject(Object.fromEntries(Object.entries(getTableColumns(table)).filter(([name]) => isRecorded(name))));

/** For an update: the time of the event that decides, unless the row has a later one already. */
export const updateTime = (db: Builder, parameters: Placeholders<EventKey>, updated_at: SQLiteColumn) =>
  sql<number>`max(${updated_at}, ${db
    .select({ created_at: audit_events.created_at })
    .from(audit_events)
    .where(isDecision(parameters))})`;

const readDecision = query((db, parameters: Placeholders<EventParameters>) =>
  db
    .select({ action: audit_events.action, state: audit_events.state })
    .from(audit_events)
    .where(isDecision(parameters)),
);

const countEvents = query((db, parameters: Placeholders<EventParameters>) =>
  db
    .select({ count: sql<number>`count(*)`.as('count') })
    .from(audit_events)
    .where(isOfCall(parameters)),
);

/**
 * Carries out a call that needs no caller's permission (an operator's command): its statements, in their order, in one
 * batch, which are safe to repeat and to land late.
 *
 * @returns the event that decided, if there is one, and how many events the call recorded. `inDoubt` says that an earlier try
 *   may yet land: who has no event and takes that for a refusal must ask {@link assertNothingInDoubt}
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
 * Stands before every refusal that left no event, because an earlier try of the batch could still overtake it.
 *
 * @throws DomainError `temporarily_unavailable` (`unknown`) where there is such a try
 */
export function assertNothingInDoubt(inDoubt: boolean): void {
  if (inDoubt) throw new DomainError('temporarily_unavailable', { outcome: 'unknown' });
}
