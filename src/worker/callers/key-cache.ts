/**
 * Finds out whose key a call has: from the isolate's cache, else from KEY_CACHE, else from D1. This module owns the KEY_CACHE
 * namespace.
 *
 * | KV key          | value                                    | expires  |
 * | --------------- | ---------------------------------------- | -------- |
 * | SHA-256 of key  | JSON of its holder and its deadline      | 60 s     |
 *
 * Each entry has a deadline, counted from the start of the D1 read that filled it, and both caches check it. KV's own
 * expiry only cleans up. It would be too late for an entry that was written while its key was being revoked, or that an
 * edge still has. So a revoked key can read for at most 60 s. It can write nothing, because no mutation trusts a cache
 * (decision/caller.ts, decision/operator.ts).
 */
import pMap from 'p-map';
import type * as z from 'zod/mini';
import { MAX_CONNECTIONS } from '../core/connections.ts';
import { DomainError } from '../core/errors.ts';
import { logError } from '../core/log.ts';
import { RecentMap } from '../core/recent-map.ts';
import { unixNow } from '../core/time.ts';
import { batch } from '../d1/batch.ts';
import type { CompiledQuery } from '../d1/query.ts';
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

/** What is cached of a key's holder, who was alive when D1 was last asked. */
interface Entry {
  /** Lower-case hex SHA-256 of the raw key. */
  key_hash: string;
  /** Unix seconds; null for a key that does not expire. */
  expires_at: number | null;
  /** Unix seconds. From then on D1 must be asked again. */
  deadline: number;
}

interface Definition<Holder extends Entry> {
  schema: z.ZodMiniType<Holder>;
  /** Finds a key by its hash, which is unique in the whole system: so it names no organization. */
  find: CompiledQuery<{ key_hash: string; now: number }, { is_alive: number }[]>;
  /** Notes that the key was used. */
  markUsed: CompiledQuery<Holder & { now: number }, unknown>;
}

/** Makes the caches of one kind of key. */
export function keyCache<Holder extends Entry>({ schema, find: findKey, markUsed }: Definition<Holder>) {
  const isolateCache = new RecentMap<string, Holder>(MAX_ISOLATE_ENTRIES);

  /**
   * Keys that D1 does not have, and the time until which D1 is not asked about them again. This is a cache of its own, so
   * that a flood of unknown keys does not evict holders. Dead keys are not in it, because their organization may be
   * resumed.
   */
  const unknownKeys = new RecentMap<string, number>(MAX_ISOLATE_ENTRIES);

  /**
   * Look-ups under way, by the key's hash. Their number is bounded, because a look-up whose call is cancelled is never
   * removed.
   */
  const lookUps = new RecentMap<string, Promise<Holder | undefined>>(MAX_ISOLATE_ENTRIES);

  /**
   * Finds the holder of this key, which must be well-formed.
   *
   * @param admitLookup called before KV and D1 are asked about a key that this isolate does not know. It throws to
   *   refuse: anybody can make well-formed keys, and a flood of them must not reach KV and D1
   * @returns undefined if the key is unknown or dead
   * @throws DomainError `temporarily_unavailable` if D1 is needed and cannot be reached; what `admitLookup` throws
   */
  async function find(
    env: Bindings,
    key_hash: string,
    admitLookup: () => Promise<void>,
    afterAnswer: AfterAnswer,
  ): Promise<Holder | undefined> {
    const now = unixNow();
    const known = isolateCache.get(key_hash);
    if (known && isBelieved(known, key_hash, now)) {
      if (known.deadline - now <= REFRESHED_SECONDS_BEFORE) afterAnswer(() => refresh(env, key_hash));
      return alive(known, now);
    }
    if (now < (unknownKeys.get(key_hash) ?? 0)) return undefined;
    const holder = await once(key_hash, async () => {
      // A key that this isolate has found alive before is limited by its organization. If it is dead now, the isolate
      // forgets it, and the next look-up must be admitted.
      if (!known) await admitLookup();
      return (await readCache(env, key_hash, now)) ?? (await fill(env, key_hash, afterAnswer));
    });
    return holder && alive(holder, now);
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
   * Looks a key up once, however many calls need it at the same time: the others wait for the first one's result. If the
   * first call is cancelled, its promise never settles, so those that wait have a timer, after which they look up
   * themselves. They also do so if the first call was refused by its own rate limit.
   */
  async function once(key_hash: string, ask: () => Promise<Holder | undefined>): Promise<Holder | undefined> {
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

  async function waitFor(other: Promise<Holder | undefined>): Promise<Holder | 'late' | 'limited' | undefined> {
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
  async function fill(env: Bindings, key_hash: string, afterAnswer: AfterAnswer): Promise<Holder | undefined> {
    const now = unixNow();
    // On the primary: a replica may not know yet that the key was revoked.
    const [[found]] = await batch(env.DB, [findKey.bind({ key_hash, now })]);
    if (!found) unknownKeys.set(key_hash, now + UNKNOWN_MAX_AGE_SECONDS);
    if (!found?.is_alive) {
      forget(key_hash);
      return undefined;
    }
    const holder = schema.parse({ ...found, deadline: now + MAX_AGE_SECONDS });
    isolateCache.set(key_hash, holder);
    afterAnswer(async () => {
      // The call may have revoked its own key.
      if (isolateCache.get(key_hash) !== holder) return;
      await env.KEY_CACHE.put(key_hash, JSON.stringify(holder), { expirationTtl: KV_EXPIRATION_SECONDS });
    });
    afterAnswer(() => batch(env.DB, [markUsed.bind({ ...holder, now })]));
    return holder;
  }

  /** Removes a key from the isolate's cache, because D1 has said something else about it. */
  function forget(key_hash: string): void {
    isolateCache.delete(key_hash);
  }

  /** A deadline further away than we ever set cannot be ours: a revoked key could read until then. */
  const isBelieved = (holder: Holder, key_hash: string, now: number) =>
    holder.key_hash === key_hash && now < holder.deadline && holder.deadline <= now + MAX_AGE_SECONDS;

  /** If KV fails, D1 is asked instead, so that nobody is refused. */
  async function readCache(env: Bindings, key_hash: string, now: number): Promise<Holder | undefined> {
    try {
      const value = await env.KEY_CACHE.get(key_hash, { type: 'json', cacheTtl: KV_EDGE_CACHE_SECONDS });
      const { data: holder } = schema.safeParse(value);
      if (!holder || !isBelieved(holder, key_hash, now)) return undefined;
      isolateCache.set(key_hash, holder);
      return holder;
    } catch (error) {
      logError('key_cache_unreadable', error);
      return undefined;
    }
  }

  function alive(holder: Holder, now: number): Holder | undefined {
    return holder.expires_at === null || now < holder.expires_at ? holder : undefined;
  }

  return { find, forget };
}

/**
 * Removes keys from KEY_CACHE after a revocation or a rotation, so that they end before their deadline. If there are
 * more than one invocation may delete from KV, the rest end by their deadline.
 */
export function dropFromKv(
  { env, afterAnswer }: { env: Bindings; afterAnswer: AfterAnswer },
  key_hashes: readonly string[],
): void {
  afterAnswer(() =>
    pMap(key_hashes.slice(0, MAX_DROPPED), (key_hash) => env.KEY_CACHE.delete(key_hash), {
      concurrency: MAX_CONNECTIONS,
      stopOnError: false,
    }),
  );
}
