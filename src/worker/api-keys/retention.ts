import { and, inArray, isNull, lte, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { Bindings } from '../env.ts';
import { deleteInTurns, ROWS_PER_STATEMENT } from '../d1/delete-old.ts';
import { logEvent } from '../core/log.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { api_keys } from '../d1/schema.ts';
import { unixNow } from '../core/time.ts';

const KEPT_SECONDS = 90 * 24 * 60 * 60;

/** Of every organization: as many keys of the condition as a statement may change. */
const someKeys = (db: Builder, condition: SQL | undefined) =>
  inArray(
    api_keys.key_id,
    db.select({ key_id: api_keys.key_id }).from(api_keys).where(condition).limit(ROWS_PER_STATEMENT),
  );

/** An expired key takes no room any more (a trigger counts those that have not ended). */
const endExpired = query((db, { now }: Placeholders<{ now: number }>) =>
  db
    .update(api_keys)
    .set({ ended_at: sql`${api_keys.expires_at}` })
    .where(someKeys(db, and(lte(api_keys.expires_at, now), isNull(api_keys.ended_at))))
    .returning({ key_id: api_keys.key_id }),
);

/** Others' `created_by` may name one of them. */
const deleteEnded = query((db, { until }: Placeholders<{ until: number }>) =>
  db
    .delete(api_keys)
    .where(someKeys(db, lte(api_keys.ended_at, until)))
    .returning({ key_id: api_keys.key_id }),
);

/**
 * The cron's turn: keys that have expired are over since then, and those that were over 90 days ago are deleted. Their audit
 * events stay.
 */
export async function forgetEndedKeys({ DB }: Bindings): Promise<void> {
  const now = unixNow();
  await deleteInTurns(DB, endExpired.bind({ now }));
  const count = await deleteInTurns(DB, deleteEnded.bind({ until: now - KEPT_SECONDS }));
  if (count > 0) logEvent('api_keys_forgotten', { count });
}
