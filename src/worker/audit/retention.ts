import { and, asc, eq, gt, inArray, lt, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
import { logEvent } from '../core/log.ts';
import { RESTORABLE_SECONDS, SECONDS_A_DAY, unixNow } from '../core/time.ts';
import { auditActions, endingActions } from '../core/vocabulary.ts';
import type { AuditAction } from '../core/vocabulary.ts';
import { batch } from '../d1/batch.ts';
import { deleteInTurns, ROWS_PER_STATEMENT } from '../d1/delete-old.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { audit_events, organizations } from '../d1/schema.ts';
import type { Bindings } from '../env.ts';
import { limitOf } from '../organizations/quotas.ts';

const HOUR_SECONDS = 60 * 60;
/** For refusals and reads of credentials. */
const KEPT_SECONDS = 30 * SECONDS_A_DAY;
/**
 * How many refusals an organization may have, and how many reads, as a part of its quota of audit events. They do not
 * count against that quota.
 */
const SHARE = 0.1;
/** A late try of a refused mutation must find the refusal, and may be as late as this. */
const NEEDED_SECONDS = HOUR_SECONDS;

const endings: readonly AuditAction[] = endingActions;
const endsNothing = auditActions.filter((action) => !endings.includes(action));

/**
 * Makes the statement that deletes old events, or those of them that meet a condition. For each organization it uses an
 * index that ends with the time. It is a cross join because SQLite keeps the order of one: in the other order it would
 * read every event.
 */
const oldestDeleter = (condition?: SQL) =>
  query((db, { before }: Placeholders<{ before: number }>) =>
    db
      .delete(audit_events)
      .where(
        sql`(${audit_events.organization_id}, ${audit_events.event_id}) IN ${db
          .select({ organization_id: audit_events.organization_id, event_id: audit_events.event_id })
          .from(organizations)
          .crossJoin(audit_events)
          .where(
            and(
              eq(audit_events.organization_id, organizations.organization_id),
              condition,
              lt(audit_events.created_at, before),
            ),
          )
          .limit(ROWS_PER_STATEMENT)}`,
      )
      .returning({ event_id: audit_events.event_id }),
  );

const deleteEventsBefore = oldestDeleter();
const deleteWhatEndsNothingBefore = oldestDeleter(inArray(audit_events.action, endsNothing));
/**
 * A task of the cron: deletes audit events that are older than `AUDIT_RETENTION_DAYS`. Events that a replay needs are
 * kept as long as a restore of D1 can undo what they record, whatever the setting.
 *
 * @throws Error if the setting is not a number of days; then nothing is deleted
 */
export async function forgetOldEvents(env: Bindings): Promise<void> {
  const setting = env.AUDIT_RETENTION_DAYS;
  if (!/^[1-9]\d{0,3}$/.test(setting)) throw new Error('AUDIT_RETENTION_DAYS must be a whole number from 1 to 9999');
  const now = unixNow();
  const kept = Number(setting) * SECONDS_A_DAY;
  let count = await deleteInTurns(
    env.DB,
    deleteEventsBefore.bind({ before: now - Math.max(kept, RESTORABLE_SECONDS) }),
  );
  if (kept < RESTORABLE_SECONDS) {
    count += await deleteInTurns(env.DB, deleteWhatEndsNothingBefore.bind({ before: now - kept }));
  }
  if (count > 0) logEvent('audit_events_forgotten', { count });
}

const most = sql<number>`${limitOf('audit_events')} * ${sql.raw(String(SHARE))}`;

/**
 * Makes a task of the cron for events of these actions: it deletes those that are older than 30 days. If an organization
 * has more of them than a tenth of its quota of audit events, it also deletes the oldest of them, except those of the
 * last hour. Other events stay.
 *
 * @param counter how many an organization has
 */
function forgetter(actions: AuditAction[], counter: SQLiteColumn, log: (count: number) => void) {
  const deleteBefore = oldestDeleter(inArray(audit_events.action, actions));

  const findNoisy = query((db) =>
    db
      .select({
        organization_id: organizations.organization_id,
        surplus: sql<number>`CAST(${counter} - ${most} AS INTEGER)`.as('surplus'),
      })
      .from(organizations)
      .where(gt(counter, most)),
  );

  const deleteOldest = query(
    (db, parameters: Placeholders<{ organization_id: string; before: number; surplus: number }>) => {
      const isOneOfTheirs = and(
        eq(audit_events.organization_id, parameters.organization_id),
        inArray(audit_events.action, actions),
        lt(audit_events.created_at, parameters.before),
      );
      return db
        .delete(audit_events)
        .where(
          and(
            eq(audit_events.organization_id, parameters.organization_id),
            inArray(
              audit_events.event_id,
              db
                .select({ event_id: audit_events.event_id })
                .from(audit_events)
                .where(isOneOfTheirs)
                .orderBy(asc(audit_events.created_at), asc(audit_events.sequence))
                .limit(parameters.surplus),
            ),
          ),
        )
        .returning({ event_id: audit_events.event_id });
    },
  );

  return async ({ DB }: Bindings): Promise<void> => {
    const now = unixNow();
    let count = await deleteInTurns(DB, deleteBefore.bind({ before: now - KEPT_SECONDS }));
    const [noisy] = await batch(DB, [findNoisy.bind({})]);
    for (const { organization_id, surplus } of noisy) {
      const [forgotten] = await batch(DB, [
        deleteOldest.bind({
          organization_id,
          surplus: Math.min(surplus, ROWS_PER_STATEMENT),
          before: now - NEEDED_SECONDS,
        }),
      ]);
      count += forgotten.length;
    }
    if (count > 0) log(count);
  };
}

export const forgetRefusals = forgetter(
  auditActions.filter((action) => action.endsWith('_refused')),
  organizations.refusal_count,
  (count) => logEvent('refusals_forgotten', { count }),
);

export const forgetReads = forgetter(['credentials.read'], organizations.read_count, (count) =>
  logEvent('reads_forgotten', { count }),
);
