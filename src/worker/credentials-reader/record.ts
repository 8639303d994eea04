/** Records that a consumer has read credentials, as an audit event. */
import { and, eq, gte, not, sql } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import { RecentMap } from '../core/recent-map.ts';
import { SECONDS_A_DAY, unixNow } from '../core/time.ts';
import { batch } from '../d1/batch.ts';
import { existsIn } from '../d1/columns.ts';
import { isNearlyFull } from '../d1/database-size.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { audit_events, integrations, organizations, phone_numbers } from '../d1/schema.ts';
import { eventParameters } from '../decision/call.ts';
import type { Call, EventParameters } from '../decision/call.ts';
import { eventRecorder, isOfTarget } from '../decision/event.ts';
import type { Bindings } from '../env.ts';
import type { Found } from './find.ts';

const MAX_REMEMBERED = 1000;

interface RecordParameters extends EventParameters {
  subject_id: string;
  /** Null for a SIP number without credentials. */
  credentials_version: string | null;
}

/** Selects the consumer's event about the subject on this day (UTC), by D1's clock. */
const isOfToday = ({ organization_id, subject_id, actor_id }: Placeholders<RecordParameters>) =>
  and(
    isOfTarget(audit_events, { organization_id, target_id: subject_id }, ['credentials.read']),
    eq(audit_events.actor_id, actor_id),
    gte(audit_events.created_at, sql`unixepoch('now', 'start of day')`),
  );

/** It records only what could be read again now: nothing after a deletion, a suspension or a rotation. */
const recorderOf = (
  table: SQLiteTable & Record<'organization_id' | 'credentials_version', SQLiteColumn>,
  id: SQLiteColumn,
) =>
  eventRecorder<RecordParameters>({
    table,
    target_id: id,
    action: 'credentials.read',
    where: (db, parameters) =>
      and(
        eq(table.organization_id, parameters.organization_id),
        eq(id, parameters.subject_id),
        sql`${table.credentials_version} IS ${parameters.credentials_version}`,
        eq(organizations.status, 'active'),
        not(existsIn(db, audit_events, isOfToday(parameters))),
      ),
  });

const recordOfIntegration = recorderOf(integrations, integrations.integration_id);
const recordOfSipNumber = recorderOf(phone_numbers, phone_numbers.phone_number_id);

const findRecorded = query((db, parameters: Placeholders<RecordParameters>) =>
  db
    .select({ day: sql<number>`unixepoch() / ${sql.raw(String(SECONDS_A_DAY))}`.as('day') })
    .from(audit_events)
    .where(isOfToday(parameters))
    .limit(1),
);

/** The last day, by D1's clock, on which D1 had the event; by organization, subject and consumer. */
const recordedOn = new RecentMap<string, number>(MAX_REMEMBERED);

/**
 * Records `credentials.read`, at most once a day (UTC) for each consumer and subject. While the database is nearly full,
 * nothing is recorded.
 *
 * @throws DomainError `temporarily_unavailable`
 */
export async function recordRead(
  { DB }: Bindings,
  call: Call,
  { subject_id, provider, credentials_version }: Found,
): Promise<void> {
  const read = JSON.stringify([call.organization_id, subject_id, call.actor.id]);
  if (recordedOn.get(read) === Math.floor(unixNow() / SECONDS_A_DAY) || isNearlyFull()) return;
  const record = provider === 'sip' ? recordOfSipNumber : recordOfIntegration;
  const parameters = { ...eventParameters(call), subject_id, credentials_version };
  const [, [recorded]] = await batch(DB, [record.bind(parameters), findRecorded.bind(parameters)]);
  if (recorded) recordedOn.set(read, recorded.day);
}
