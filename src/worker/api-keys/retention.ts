import { and, inArray, isNull, lte, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import { logEvent } from '../core/log.ts';
import { unixNow } from '../core/time.ts';
import { deleteInTurns, ROWS_PER_STATEMENT } from '../d1/delete-old.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { api_keys } from '../d1/schema.ts';
import type { Bindings } from '../env.ts';

const KEPT_SECONDS = 90 * 24 * 60 * 60;

/** Selects keys that meet the condition, of all organizations, at most as many as a statement may change. */
const someKeys = (db: Builder, condition: SQL | undefined) =>
  inArray(
    api_keys.key_id,
    db.select({ key_id: api_keys.key_id }).from(api_keys).where(condition).limit(ROWS_PER_STATEMENT),
  );

/** Then an expired key no longer counts against the quota: a trigger counts the keys without `ended_at`. */
const endExpired = query((db, { now }: Placeholders<{ now: number }>) =>
  db
    .update(api_keys)
    .set({ ended_at: sql`${api_keys.expires_at}` })
    .where(someKeys(db, and(lte(api_keys.expires_at, now), isNull(api_keys.ended_at))))
    .returning({ key_id: api_keys.key_id }),
);

/** There is no foreign key on `created_by`, so other keys may still name a deleted one. */
const deleteEnded = query((db, { until }: Placeholders<{ until: number }>) =>
  db
    .delete(api_keys)
    .where(someKeys(db, lte(api_keys.ended_at, until)))
    .returning({ key_id: api_keys.key_id }),
);

/**
 * A task of the cron: sets `ended_at` of keys that have expired, and deletes keys that ended more than 90 days ago.
 * Their audit events stay.
 */
export async function forgetEndedKeys({ DB }: Bindings): Promise<void> {
  const now = unixNow();
  await deleteInTurns(DB, endExpired.bind({ now }));
  const count = await deleteInTurns(DB, deleteEnded.bind({ until: now - KEPT_SECONDS }));
  if (count > 0) logEvent('api_keys_forgotten', { count });
}
