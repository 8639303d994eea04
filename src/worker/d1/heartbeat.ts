/**
 * How a replica shows how old it is. D1's replicas take over the primary's writes in their order. So a replica that shows a
 * heartbeat has every write from before it.
 *
 * The heartbeat is in seconds by the primary's clock. Whatever writes on the primary renews it, at most every 5 s.
 */
import { sql } from 'drizzle-orm';
import { query } from './query.ts';
import { heartbeats } from './schema.ts';

const INTERVAL_SECONDS = sql.raw('5');

const isPrimarys = sql`${heartbeats.source} = 'primary'`;

/** Renews the heartbeat. One that is later than the primary's clock was not written by it, and is renewed too. */
export const beat = query((db) =>
  db
    .update(heartbeats)
    .set({ beat_at: sql`unixepoch()` })
    .where(
      sql`${isPrimarys} AND ${heartbeats.beat_at} NOT BETWEEN unixepoch() - ${INTERVAL_SECONDS} + 1 AND unixepoch()`,
    ),
);

/** When the state that a statement reads was, at the earliest. */
export const lastBeat = sql<number>`(SELECT ${heartbeats.beat_at} FROM ${heartbeats} WHERE ${isPrimarys})`;
