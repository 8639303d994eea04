/**
 * Who is calling: the isolate's cache, then KEY_CACHE, then D1. This module owns the KEY_CACHE namespace.
 *
 * | KV key          | value                                    | expires  |
 * | --------------- | ---------------------------------------- | -------- |
 * | SHA-256 of key  | JSON of {@link Caller} and its deadline  | 60 s     |
 *
 * Both caches obey the entry's own deadline, counted from the start of the D1 read that filled it. KV's expiry is only
 * tidiness: a fill that races a revocation, or a stale edge, would outlive it. So a revoked key reads for at most 60 s;
 * it writes for 0 s, because no mutation trusts a cache (authorize.ts).
 */
import { and, eq, gt, isNull, lt, or, sql } from 'drizzle-orm';
import { LRUCache } from 'lru-cache';
import pMap from 'p-map';
import * as z from 'zod';
import { MAX_CONNECTIONS } from '../core/connections.ts';
import type { AfterAnswer, Bindings } from '../env.ts';
import { logError } from '../core/log.ts';
import { DomainError } from '../core/errors.ts';
import { query } from '../d1/query.ts';
import { batch } from '../d1/batch.ts';
import { existsIn } from '../d1/columns.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { api_keys, organizations } from '../d1/schema.ts';
import { roles, tiers } from '../core/vocabulary.ts';
import { unixNow } from '../core/time.ts';

const MAX_AGE_SECONDS = 60;
/** KV's own minimum for `expirationTtl`. */
const KV_EXPIRATION_SECONDS = 60;
/** KV's own minimum for `cacheTtl`. */
const KV_EDGE_CACHE_SECONDS = 30;
const MAX_ISOLATE_ENTRIES = 1000;
const UNKNOWN_MAX_AGE_SECONDS = 5;
const REFRESHED_SECONDS_BEFORE = 5;
/** Longer than a look-up takes, so that waiting is what most do. */
const WAIT_MILLISECONDS = 2000;
/** Of the 1,000 operations that an invocation may do, which has done some others. */
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
  expires_at: z.int().nullable(),
  /** Unix seconds; from then on D1 is asked again. */
  deadline: z.int(),
});

/** A key that was alive when D1 was last asked about it. */
export type Caller = z.output<typeof cachedCaller>;

const isolateCache = new LRUCache<string, Caller>({ max: MAX_ISOLATE_ENTRIES });

/**
 * Keys that D1 does not have, and until when it is not asked about them again: apart, lest a flood of them evict callers. A
 * key that is dead is not among them: its organization may be resumed.
 */
const unknownKeys = new LRUCache<string, number>({ max: MAX_ISOLATE_ENTRIES });

/** Active and unexpired. */
export const isUnended = ({ now }: Placeholders<{ now: number }>) =>
  and(eq(api_keys.status, 'active'), or(isNull(api_keys.expires_at), gt(api_keys.expires_at, now)));

/** What a living key is: active and unexpired, of an active organization. */
export const isAlive = (db: Builder, { now }: Placeholders<{ now: number }>) =>
  and(
    isUnended({ now }),
    existsIn(
      db,
      organizations,
      and(eq(organizations.organization_id, api_keys.organization_id), eq(organizations.status, 'active')),
    ),
  );

// The organization is what this statement finds out; the hash of 297 random bits is unique in the system.
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
 * Finds the caller of a well-formed key.
 *
 * @param admitLookup asked before KV and D1 are, about a key that this isolate has never found good: well-formed keys are
 *   free to make, so a flood of them must end here; throws to refuse
 * @returns nothing for a key that is unknown, revoked or expired
 * @throws DomainError `temporarily_unavailable` when D1 is needed and away; what `admitLookup` throws
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
    // What was good a short while ago is its organization's to limit. Found dead, it is forgotten, and takes tokens.
    if (!known) await admitLookup();
    return (await readCache(env, key_hash, now)) ?? (await fill(env, key_hash, afterAnswer));
  });
  return caller && alive(caller, now);
}

/** Asks anew about a key that is about to be no longer believed, so that no call waits for it. */
async function refresh(env: Bindings, key_hash: string): Promise<void> {
  const known = isolateCache.get(key_hash);
  if (!known || known.deadline - unixNow() > REFRESHED_SECONDS_BEFORE) return;
  const tasks: (() => Promise<unknown>)[] = [];
  await once(key_hash, () => fill(env, key_hash, (task) => void tasks.push(task)));
  await Promise.all(tasks.map((task) => task()));
}

/** Look-ups under way, by the key's hash. As many as there are entries: one whose call is cancelled is never taken out. */
const lookUps = new LRUCache<string, Promise<Caller | undefined>>({ max: MAX_ISOLATE_ENTRIES });

/**
 * One look-up of a key at a time: who asks meanwhile hears the same. A call that is cancelled never settles what others wait
 * for, so each has a timer of its own, and then looks up itself; so does who waited for one that met a limit of its own.
 */
async function once(key_hash: string, ask: () => Promise<Caller | undefined>): Promise<Caller | undefined> {
  for (let other = lookUps.get(key_hash); other; other = lookUps.get(key_hash)) {
    const heard = await heardInTime(other);
    if (heard === 'late') break;
    if (heard !== 'limited') return heard;
  }
  const own = ask();
  lookUps.set(key_hash, own);
  try {
    return await own;
  } finally {
    if (lookUps.get(key_hash) === own) lookUps.delete(key_hash);
  }
}

async function heardInTime(other: Promise<Caller | undefined>): Promise<Caller | 'late' | 'limited' | undefined> {
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
  // On the primary, which alone knows of a revocation at once.
  const [[found]] = await batch(env.DB, [findKey.bind({ key_hash, now })]);
  if (!found) unknownKeys.set(key_hash, now + UNKNOWN_MAX_AGE_SECONDS);
  if (!found?.is_alive) {
    forgetKey(key_hash);
    return undefined;
  }
  const caller = cachedCaller.parse({ ...found, deadline: now + MAX_AGE_SECONDS });
  isolateCache.set(key_hash, caller);
  afterAnswer(async () => {
    // The call itself may have ended the key.
    if (isolateCache.get(key_hash) !== caller) return;
    await env.KEY_CACHE.put(key_hash, JSON.stringify(caller), { expirationTtl: KV_EXPIRATION_SECONDS });
  });
  afterAnswer(() => batch(env.DB, [markUsed.bind({ ...caller, now })]));
  return caller;
}

/** Makes this isolate ask again: D1 has said otherwise than the entry. */
export function forgetKey(key_hash: string): void {
  isolateCache.delete(key_hash);
}

/**
 * Tidies up behind a revocation or a rotation: the deadline alone would end the entries too, but later. So it does those in KV
 * that are more than one invocation may delete.
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

/** A deadline further off than any that is given here would let a key that is revoked read until then. */
const isBelieved = (caller: Caller, key_hash: string, now: number) =>
  caller.key_hash === key_hash && now < caller.deadline && caller.deadline <= now + MAX_AGE_SECONDS;

/** KV out of order is no reason to refuse anybody: D1 answers, behind the limiter. */
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
