/** Records that a consumer has read credentials, as an audit event. */
import { and, eq, gte, not, sql } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import QuickLRU from 'quick-lru';
import { unixNow } from '../core/time.ts';
import { batch } from '../d1/batch.ts';
import { existsIn } from '../d1/columns.ts';
import { audit_events, integrations, phone_numbers } from '../d1/schema.ts';
import { eventParameters } from '../decision/call.ts';
import type { Call, EventParameters } from '../decision/call.ts';
import { eventRecorder, isOfTarget } from '../decision/event.ts';
import type { Bindings } from '../env.ts';

const MAX_REMEMBERED = 1000;
/** For how long an isolate does not ask D1 again. Only D1's clock tells when a day ends. */
const REMEMBERED_SECONDS = 3600;

/** What was read: an integration, or a SIP number. */
export interface Subject {
  table: 'integrations' | 'phone_numbers';
  subject_id: string;
}

type RecordParameters = EventParameters & { subject_id: string };

/**
 * Makes the statement that records a read, if the consumer has no such event of the subject yet on this day (UTC). It
 * does nothing if the subject is gone: nothing is recorded of it after its deletion.
 */
const recorderOf = (table: SQLiteTable & { organization_id: SQLiteColumn }, id: SQLiteColumn) =>
  eventRecorder<RecordParameters>({
    table,
    target_id: id,
    action: 'credentials.read',
    where: (db, { organization_id, subject_id, actor_id }) =>
      and(
        eq(table.organization_id, organization_id),
        eq(id, subject_id),
        not(
          existsIn(
            db,
            audit_events,
            and(
              isOfTarget(audit_events, { organization_id, target_id: subject_id }, ['credentials.read']),
              eq(audit_events.actor_id, actor_id),
              gte(audit_events.created_at, sql`unixepoch('now', 'start of day')`),
            ),
          ),
        ),
      ),
  });

const recorders = {
  integrations: recorderOf(integrations, integrations.integration_id),
  phone_numbers: recorderOf(phone_numbers, phone_numbers.phone_number_id),
};

/** When this isolate last recorded a read, in unix seconds, by consumer and subject. */
const recordedAt = new QuickLRU<string, number>({ maxSize: MAX_REMEMBERED });

/**
 * Records `credentials.read`, at most once a day for each consumer and subject.
 *
 * @throws DomainError `temporarily_unavailable`
 */
export async function recordRead({ DB }: Bindings, call: Call, { table, subject_id }: Subject): Promise<void> {
  const now = unixNow();
  const read = `${call.actor.id} ${subject_id}`;
  if (now - (recordedAt.get(read) ?? 0) < REMEMBERED_SECONDS) return;
  await batch(DB, [recorders[table].bind({ ...eventParameters(call), subject_id })]);
  recordedAt.set(read, now);
}
