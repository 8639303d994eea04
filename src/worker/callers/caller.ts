/** The API keys of organizations, and who calls with them. */
import { and, eq, gt, isNull, lt, or, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { roles, tiers } from '../core/vocabulary.ts';
import { existsIn } from '../d1/columns.ts';
import { lastBeat } from '../d1/heartbeat.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { api_keys, organizations } from '../d1/schema.ts';
import type { AfterAnswer, Bindings } from '../env.ts';
import { dropFromKv, keyCache } from './key-cache.ts';

const cachedCaller = z.object({
  key_id: z.string(),
  name: z.string(),
  /** Lower-case hex SHA-256 of the raw key. */
  key_hash: z.string(),
  organization_id: z.string(),
  tier: z.enum(tiers),
  user_id: z.string(),
  role: z.enum(roles),
  /** Unix seconds; null for a key that does not expire. */
  expires_at: z.nullable(z.int()),
  /** Unix seconds. From then on D1 must be asked again. */
  deadline: z.int(),
});

/** The caller, whose key was alive when D1 was last asked about it. */
export type Caller = z.output<typeof cachedCaller>;

/** Predicate: the key is active and has not expired. */
export const isUnended = ({ now }: Placeholders<{ now: number }>) =>
  and(eq(api_keys.status, 'active'), or(isNull(api_keys.expires_at), gt(api_keys.expires_at, now)));

/** Predicate: the key is active and has not expired, and its organization is active. */
export const isAlive = (db: Builder, { now }: Placeholders<{ now: number }>) =>
  and(
    isUnended({ now }),
    existsIn(
      db,
      organizations,
      and(eq(organizations.organization_id, api_keys.organization_id), eq(organizations.status, 'active')),
    ),
  );

const findKey = query((db, { key_hash, now }: Placeholders<{ key_hash: string; now: number }>) =>
  db
    .select({
      key_id: api_keys.key_id,
      name: api_keys.name,
      key_hash: api_keys.key_hash,
      organization_id: api_keys.organization_id,
      tier: organizations.tier,
      user_id: api_keys.user_id,
      role: api_keys.role,
      expires_at: api_keys.expires_at,
      is_alive: sql<number>`${isAlive(db, { now })}`.as('is_alive'),
      beat_at: lastBeat.as('beat_at'),
    })
    .from(api_keys)
    .innerJoin(organizations, eq(organizations.organization_id, api_keys.organization_id))
    .where(eq(api_keys.key_hash, key_hash)),
);

const markUsed = query(
  (db, { organization_id, key_id, now }: Placeholders<{ organization_id: string; key_id: string; now: number }>) =>
    db
      .update(api_keys)
      .set({ last_used_at: sql`${now}` })
      .where(
        and(
          eq(api_keys.key_id, key_id),
          eq(api_keys.organization_id, organization_id),
          or(isNull(api_keys.last_used_at), lt(api_keys.last_used_at, now)),
        ),
      ),
);

/** For the look-up of a key: a row if it is alive, and of the organization, unless that is null. */
export const findAlive = query(
  (
    db,
    { key_hash, organization_id, now }: Placeholders<{ key_hash: string; organization_id: string | null; now: number }>,
  ) =>
    db
      .select({ one: sql`1` })
      .from(api_keys)
      .where(
        and(
          eq(api_keys.key_hash, key_hash),
          eq(api_keys.organization_id, sql`coalesce(${organization_id}, ${api_keys.organization_id})`),
          isAlive(db, { now }),
        ),
      ),
);

const cache = keyCache<Caller>({ schema: cachedCaller, find: findKey, markUsed });

/** As {@link keyCache} says. A key is dead, too, if its organization is not active. */
export const presentKey = cache.present;

/** Removes a key from the isolate's cache, because D1 has said something else about it. */
export const forgetKey = cache.forget;

/** Removes keys from both caches after a revocation or a rotation, so that they end before their deadline. */
export function dropKeys(call: { env: Bindings; afterAnswer: AfterAnswer }, key_hashes: readonly string[]): void {
  key_hashes.forEach(forgetKey);
  dropFromKv(call, key_hashes);
}
