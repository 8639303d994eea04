/**
 * Audit events. An event is written by the batch of the mutation that it tells of, and is its decision: whether the event
 * is there says whether the mutation happened, on the first try and on every repeat of the batch.
 */
import { and, eq, getTableColumns, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import type { CallerParameters } from '../auth/authorize.ts';
import type { Operation } from '../env.ts';
import { withoutIdempotencyKey } from '../idempotency.ts';
import { newEventId } from '../ids.ts';
import { existsIn, jsonObject, query, select } from '../query.ts';
import type { Builder, CompiledQuery, Placeholders } from '../query.ts';
import { audit_events } from '../schema.ts';
import type { AuditAction } from '../schema.ts';
import { unixNow } from '../time.ts';

export interface EventParameters extends CallerParameters {
  event_id: string;
  request_id: string;
  /** Unix seconds: the time that the event's id tells. */
  event_time: number;
}

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

/** Selects one operation's event. */
export const isEvent = ({
  organization_id,
  event_id,
}: Placeholders<Pick<EventParameters, 'organization_id' | 'event_id'>>) =>
  and(eq(audit_events.organization_id, organization_id), eq(audit_events.event_id, event_id));

/**
 * Predicate of an update: this operation's event is there, and saw the very revision that the row has. A late try, which
 * finds the event of an earlier one and a row that has moved on, changes nothing.
 */
export const eventSaw = (db: Builder, parameters: Placeholders<EventParameters>, revision: SQLiteColumn) =>
  existsIn(
    db,
    audit_events,
    and(isEvent(parameters), eq(sql`json_extract(${audit_events.state}, '$.revision')`, revision)),
  );

/** Predicate: this operation's event is there, with this action if one is named. */
export const eventExists = (db: Builder, parameters: Placeholders<EventParameters>, action?: AuditAction) =>
  existsIn(db, audit_events, and(isEvent(parameters), action && eq(audit_events.action, action)));

/**
 * Makes the statement that records an operation's event, once: of the row of `table` that the condition selects.
 *
 * @param action what the event says happened; where the statement decides, in SQL
 * @param target_id the column that names the row
 */
export function eventRecorder<Parameters extends EventParameters>(
  table: SQLiteTable,
  target_id: SQLiteColumn,
  action: AuditAction | ((db: Builder, parameters: Placeholders<Parameters>) => SQL<AuditAction>),
  condition: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined,
): CompiledQuery<Parameters, unknown> {
  return query((db, parameters: Placeholders<Parameters>) =>
    db
      .insert(audit_events)
      .select(
        db
          .select({
            organization_id: sql<string>`${parameters.organization_id}`.as('organization_id'),
            event_id: sql<string>`${parameters.event_id}`.as('event_id'),
            action: (typeof action === 'string'
              ? sql<AuditAction>`${sql.raw(`'${action}'`)}`
              : action(db, parameters)
            ).as('action'),
            target_id: sql<string>`${target_id}`.as('target_id'),
            actor_key_id: sql<string>`${parameters.actor_key_id}`.as('actor_key_id'),
            request_id: sql<string>`${parameters.request_id}`.as('request_id'),
            state: stateJson(table).as('state'),
            created_at: sql<number>`${parameters.event_time}`.as('created_at'),
          })
          .from(table)
          .where(condition(db, parameters)),
      )
      .onConflictDoNothing(),
  );
}

/** What the state of an event leaves out: no event holds what could open anything. */
const unrecorded = new Set(['data_key', 'kek_id', 'key_hash']);

/** JSON of the row of this table that a statement selects from. */
const stateJson = (table: SQLiteTable) =>
  jsonObject(Object.keys(getTableColumns(table)).filter((name) => !unrecorded.has(name)));

/** This operation's event, read back in the batch that may have written it: what the answer is built from. */
export const readEvent = select((db, parameters: Placeholders<EventParameters>) =>
  db
    .select({ action: audit_events.action, state: audit_events.state, created_at: audit_events.created_at })
    .from(audit_events)
    .where(isEvent(parameters)),
);
