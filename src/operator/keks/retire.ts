/** Retires a key-encryption key (KEK). From then on nothing is wrapped with it, even by isolates that still have it. */
import { and, eq, isNull, not, or, sql } from 'drizzle-orm';
import { findKek } from '../../worker/credentials/kek-check.ts';
import { batch } from '../../worker/d1/batch.ts';
import { boundedCount, toldCount } from '../../worker/d1/bounded-count.ts';
import { existsIn } from '../../worker/d1/columns.ts';
import { query } from '../../worker/d1/query.ts';
import type { Builder, Placeholders } from '../../worker/d1/query.ts';
import {
  credential_purges,
  integrations,
  key_encryption_keys,
  phone_numbers,
  webhook_secrets,
} from '../../worker/d1/schema.ts';
import { databaseNow } from '../clock.ts';

/** After this time no isolate runs with the previous ring. */
const CURRENT_BEFORE_RETIREMENT_SECONDS = 3600;

type KekParameters = Placeholders<{ kek_id: string }>;

/**
 * Predicate of intents: a create or an update is under way, and what it wraps with the KEK may become live. Intents
 * without `kek_id` are older than that column and may use any KEK. (There is no index for this query, because only
 * operators run it.)
 */
const isIntendedUnder = ({ kek_id }: KekParameters) =>
  and(
    eq(credential_purges.state, 'intended'),
    or(eq(credential_purges.kek_id, kek_id), isNull(credential_purges.kek_id)),
  );

const countIntents = query((db, parameters: KekParameters) =>
  boundedCount(db, credential_purges, isIntendedUnder(parameters)),
);

const isUnused = (db: Builder, parameters: KekParameters) =>
  and(
    not(existsIn(db, integrations, eq(integrations.kek_id, parameters.kek_id))),
    not(existsIn(db, phone_numbers, eq(phone_numbers.kek_id, parameters.kek_id))),
    not(existsIn(db, webhook_secrets, eq(webhook_secrets.kek_id, parameters.kek_id))),
    not(existsIn(db, credential_purges, isIntendedUnder(parameters))),
  );

/**
 * In one transaction, it checks that the KEK is unused and retires it. After that no intent can use it
 * (credentials/store.ts).
 */
const markRetired = query((db, parameters: Placeholders<{ kek_id: string; check_value: string }>) =>
  db
    .insert(key_encryption_keys)
    .select(
      db
        .select({
          kek_id: sql<string>`${parameters.kek_id}`.as('kek_id'),
          check_value: sql<string>`${parameters.check_value}`.as('check_value'),
          created_at: sql<number>`unixepoch()`.as('created_at'),
          retired_at: sql<number>`unixepoch()`.as('retired_at'),
          rewrap_place: sql<null>`NULL`.as('rewrap_place'),
        })
        .from(sql`(SELECT 1)`)
        .where(isUnused(db, parameters)),
    )
    .onConflictDoUpdate({
      target: key_encryption_keys.kek_id,
      set: { retired_at: sql`coalesce(${key_encryption_keys.retired_at}, excluded.retired_at)` },
    }),
);

/** How many creates and updates that are under way wrap with the KEK. */
export async function countIntendedUnder(database: D1Database, kek_id: string) {
  const [[counted]] = await batch(database, [countIntents.bind({ kek_id })]);
  return toldCount(counted?.count ?? 0);
}

/**
 * How many seconds to wait before another KEK may be retired: until the current one has been in use for an hour. 0:
 * that is over. Undefined: the current KEK has not wrapped anything yet.
 */
export async function secondsToRetirement(database: D1Database, current: string): Promise<number | undefined> {
  const [[known]] = await batch(database, [findKek.bind({ kek_id: current })]);
  if (!known) return undefined;
  return Math.max(0, known.created_at + CURRENT_BEFORE_RETIREMENT_SECONDS - (await databaseNow(database)));
}

/**
 * Retires a KEK for good, unless it wraps a data key or is about to.
 *
 * @returns whether it is retired now
 * @throws DomainError `temporarily_unavailable`
 */
export async function markKekRetired(
  database: D1Database,
  kek: { kek_id: string; check_value: string },
): Promise<boolean> {
  const [, [known]] = await batch(database, [markRetired.bind(kek), findKek.bind(kek)]);
  return typeof known?.retired_at === 'number';
}
