/**
 * Audit events. An event is written by the batch of the mutation that it tells of, and is its decision: whether the event
 * is there says whether the mutation happened, on the first try and on every repeat of the batch.
 */
import { and, eq, getTableColumns, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { SQLiteTable } from 'drizzle-orm/sqlite-core';
import type { CallerParameters } from '../auth/authorize.ts';
import type { Operation } from '../env.ts';
import { newEventId } from '../ids.ts';
import { DomainError } from '../problem.ts';
import { existsIn, query } from '../query.ts';
import type { Builder, Placeholders } from '../query.ts';
import { audit_events } from '../schema.ts';
import type { AuditAction } from '../schema.ts';
import { unixNow } from '../time.ts';

export interface EventParameters extends CallerParameters {
  event_id: string;
  request_id: string;
}

/** Mints an operation: its event's id, its caller and its time. Once for each call, before the first try. */
export function eventParameters({ caller, request_id }: Operation): EventParameters {
  return {
    organization_id: caller.organization_id,
    actor_key_id: caller.key_id,
    now: unixNow(),
    event_id: newEventId(),
    request_id,
  };
}

/** What an event says beside who did it and when. */
interface EventContent {
  action: SQL<AuditAction>;
  target_id: SQL<string>;
  /** JSON of the target, without any secret. */
  state: SQL<string>;
}

/** An event's columns in the table's order, as `insert().select()` wants them. */
export function eventColumns(parameters: Placeholders<EventParameters>, { action, target_id, state }: EventContent) {
  return {
    organization_id: sql<string>`${parameters.organization_id}`.as('organization_id'),
    event_id: sql<string>`${parameters.event_id}`.as('event_id'),
    action: action.as('action'),
    target_id: target_id.as('target_id'),
    actor_key_id: sql<string>`${parameters.actor_key_id}`.as('actor_key_id'),
    request_id: sql<string>`${parameters.request_id}`.as('request_id'),
    state: state.as('state'),
    created_at: sql<number>`${parameters.now}`.as('created_at'),
  };
}

/**
 * An event's `state` of the row of this table that a statement selects from: every column as JSON, but for the data key.
 * For tables whose rows hold a data key.
 */
export function stateJson(table: SQLiteTable): SQL<string> {
  const members = Object.keys(getTableColumns(table))
    .filter((name) => name !== 'data_key' && name !== 'kek_id')
    .map((name) => sql`${sql.raw(`'${name}'`)}, ${sql.identifier(name)}`);
  return sql`json_object(${sql.join(members, sql`, `)})`;
}

const isEvent = ({ organization_id, event_id }: Placeholders<Pick<EventParameters, 'organization_id' | 'event_id'>>) =>
  and(eq(audit_events.organization_id, organization_id), eq(audit_events.event_id, event_id));

/** Predicate: this operation's event is there, with this action if one is named. */
export const eventExists = (db: Builder, parameters: Placeholders<EventParameters>, action?: AuditAction) =>
  existsIn(db, audit_events, and(isEvent(parameters), action && eq(audit_events.action, action)));

/** This operation's event, read back in the batch that may have written it: what the answer is built from. */
export const readEvent = query((db, parameters: Placeholders<EventParameters>) =>
  db.select({ action: audit_events.action, state: audit_events.state }).from(audit_events).where(isEvent(parameters)),
);

/**
 * Stands before every refusal that left no event, because an earlier try of the batch could still overtake it.
 *
 * @throws DomainError `temporarily_unavailable` (`unknown`) where there is such a try
 */
export function assertNothingInDoubt(inDoubt: boolean): void {
  if (inDoubt) throw new DomainError('temporarily_unavailable', { outcome: 'unknown' });
}
