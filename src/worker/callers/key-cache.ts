/**
 * Finds out who is calling: from the isolate's cache, else from KEY_CACHE, else from D1. This module owns the KEY_CACHE
 * namespace.
 *
 * | KV key          | value                                    | expires  |
 * | --------------- | ---------------------------------------- | -------- |
 * | SHA-256 of key  | JSON of {@link Caller} and its deadline  | 60 s     |
 *
 * Each entry has a deadline, counted from the start of the D1 read that filled it, and both caches check it. KV's own
 * expiry only cleans up. It would be too late for an entry that was written while its key was being revoked, or that an
 * edge still has. So a revoked key can read for at most 60 s. It can write nothing, because no mutation trusts a cache
 * (decision/caller.ts).
 */
import { and, eq, gt, isNull, lt, or, sql } from 'drizzle-orm';
import pMap from 'p-map';
import QuickLRU from 'quick-lru';
import * as z from 'zod/mini';
import { MAX_CONNECTIONS } from '../core/connections.ts';
import { DomainError } from '../core/errors.ts';
import { logError } from '../core/log.ts';
import { unixNow } from '../core/time.ts';
import { roles, tiers } from '../core/vocabulary.ts';
import { batch } from '../d1/batch.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { api_keys, organizations } from '../d1/schema.ts';
import type { AfterAnswer, Bindings } from '../env.ts';

const MAX_AGE_SECONDS = 60;
/** KV's minimum for `expirationTtl`. */
const KV_EXPIRATION_SECONDS = 60;
/** KV's minimum for `cacheTtl`. */
const KV_EDGE_CACHE_SECONDS = 30;
const MAX_ISOLATE_ENTRIES = 1000;
const UNKNOWN_MAX_AGE_SECONDS = 5;
const REFRESHED_SECONDS_BEFORE = 5;
/** Longer than a look-up usually takes, so that most calls wait for the one under way. */
const WAIT_MILLISECONDS = 2000;
/** An invocation may do 1,000 operations, and has done some others already. */
const MAX_DROPPED = 900;

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

const isolateCache = new QuickLRU<string, Caller>({ maxSize: MAX_ISOLATE_ENTRIES });

/**
 * Keys that D1 does not have, and the time until which D1 is not asked about them again. This is a cache of its own, so
 * that a flood of unknown keys does not evict callers. Dead keys are not in it, because their organization may be
 * resumed.
 */
const unknownKeys = new QuickLRU<string, number>({ maxSize: MAX_ISOLATE_ENTRIES });

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

// It names no organization, because it finds out which one it is. The hash is unique in the whole system.
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

/**
 * Finds the caller with this key, which must be well-formed.
 *
 * @param admitLookup called before KV and D1 are asked about a key that this isolate does not know. It throws to
 *   refuse: anybody can make well-formed keys, and a flood of them must not reach KV and D1
 * @returns undefined if the key is unknown, revoked or expired, or its organization is not active
 * @throws DomainError `temporarily_unavailable` if D1 is needed and cannot be reached; what `admitLookup` throws
 */
export async function findCaller(
  env: Bindings,
  key_hash: string,
  admitLookup: () => Promise<void>,
  afterAnswer: AfterAnswer,
): Promise<Caller | undefined> {
  const now = unixNow();
  const known = isolateCache.get(key_hash);
  if (known && isBelieved(known, key_hash, now)) {
    if (known.deadline - now <= REFRESHED_SECONDS_BEFORE) afterAnswer(() => refresh(env, key_hash));
    return alive(known, now);
  }
  if (now < (unknownKeys.get(key_hash) ?? 0)) return undefined;
  const caller = await once(key_hash, async () => {
    // A key that this isolate has found alive before is limited by its organization. If it is dead now, the isolate
    // forgets it, and the next look-up must be admitted.
    if (!known) await admitLookup();
    return (await readCache(env, key_hash, now)) ?? (await fill(env, key_hash, afterAnswer));
  });
  return caller && alive(caller, now);
}

/** Asks D1 about a key shortly before its deadline, so that no call has to wait. */
async function refresh(env: Bindings, key_hash: string): Promise<void> {
  const known = isolateCache.get(key_hash);
  if (!known || known.deadline - unixNow() > REFRESHED_SECONDS_BEFORE) return;
  const tasks: (() => Promise<unknown>)[] = [];
  await once(key_hash, () => fill(env, key_hash, (task) => void tasks.push(task)));
  await Promise.all(tasks.map((task) => task()));
}

/**
 * Look-ups under way, by the key's hash. Their number is bounded, because a look-up whose call is cancelled is never
 * removed.
 */
const lookUps = new QuickLRU<string, Promise<Caller | undefined>>({ maxSize: MAX_ISOLATE_ENTRIES });

/**
 * Looks a key up once, however many calls need it at the same time: the others wait for the first one's result. If the
 * first call is cancelled, its promise never settles, so those that wait have a timer, after which they look up
 * themselves. They also do so if the first call was refused by its own rate limit.
 */
async function once(key_hash: string, ask: () => Promise<Caller | undefined>): Promise<Caller | undefined> {
  for (let other = lookUps.get(key_hash); other; other = lookUps.get(key_hash)) {
    const result = await waitFor(other);
    if (result === 'late') break;
    if (result !== 'limited') return result;
  }
  const own = ask();
  lookUps.set(key_hash, own);
  try {
    return await own;
  } finally {
    if (lookUps.get(key_hash) === own) lookUps.delete(key_hash);
  }
}

async function waitFor(other: Promise<Caller | undefined>): Promise<Caller | 'late' | 'limited' | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), WAIT_MILLISECONDS);
  });
  try {
    return await Promise.race([other, late]);
  } catch (error) {
    if (error instanceof DomainError && error.code === 'rate_limited') return 'limited';
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Asks D1, and fills both caches. */
async function fill(env: Bindings, key_hash: string, afterAnswer: AfterAnswer): Promise<Caller | undefined> {
  const now = unixNow();
  // On the primary: a replica may not know yet that the key was revoked.
  const [[found]] = await batch(env.DB, [findKey.bind({ key_hash, now })]);
  if (!found) unknownKeys.set(key_hash, now + UNKNOWN_MAX_AGE_SECONDS);
  if (!found?.is_alive) {
    forgetKey(key_hash);
    return undefined;
  }
  const caller = cachedCaller.parse({ ...found, deadline: now + MAX_AGE_SECONDS });
  isolateCache.set(key_hash, caller);
  afterAnswer(async () => {
    // The call may have revoked its own key.
    if (isolateCache.get(key_hash) !== caller) return;
    await env.KEY_CACHE.put(key_hash, JSON.stringify(caller), { expirationTtl: KV_EXPIRATION_SECONDS });
  });
  afterAnswer(() => batch(env.DB, [markUsed.bind({ ...caller, now })]));
  return caller;
}

/** Removes a key from the isolate's cache, because D1 has said something else about it. */
export function forgetKey(key_hash: string): void {
  isolateCache.delete(key_hash);
}

/**
 * Removes keys from both caches after a revocation or a rotation, so that they end before their deadline. If there are
 * more than one invocation may delete from KV, the rest end by their deadline.
 */
export function dropKeys(
  { env, afterAnswer }: { env: Bindings; afterAnswer: AfterAnswer },
  key_hashes: readonly string[],
): void {
  key_hashes.forEach(forgetKey);
  afterAnswer(() =>
    pMap(key_hashes.slice(0, MAX_DROPPED), (key_hash) => env.KEY_CACHE.delete(key_hash), {
      concurrency: MAX_CONNECTIONS,
      stopOnError: false,
    }),
  );
}

/** A deadline further away than we ever set cannot be ours: a revoked key could read until then. */
const isBelieved = (caller: Caller, key_hash: string, now: number) =>
  caller.key_hash === key_hash && now < caller.deadline && caller.deadline <= now + MAX_AGE_SECONDS;

/** If KV fails, D1 is asked instead, so that nobody is refused. */
async function readCache(env: Bindings, key_hash: string, now: number): Promise<Caller | undefined> {
  try {
    const value = await env.KEY_CACHE.get(key_hash, { type: 'json', cacheTtl: KV_EDGE_CACHE_SECONDS });
    const { data: caller } = cachedCaller.safeParse(value);
    if (!caller || !isBelieved(caller, key_hash, now)) return undefined;
    isolateCache.set(key_hash, caller);
    return caller;
  } catch (error) {
    logError('key_cache_unreadable', error);
    return undefined;
  }
}

function alive(caller: Caller, now: number): Caller | undefined {
  return caller.expires_at === null || now < caller.expires_at ? caller : undefined;
}
