/**
 * Finds out whose key a call has: from the isolate's cache, else from KEY_CACHE and D1, which are asked at the same time. D1 is
 * asked by the call's own first batch (d1/replica-session.ts), so no call waits for a look-up. This module owns the KEY_CACHE
 * namespace.
 *
 * | KV key          | value                                    | expires  |
 * | --------------- | ---------------------------------------- | -------- |
 * | SHA-256 of key  | JSON of its holder and its deadline      | 60 s     |
 *
 * Each entry has a deadline, and both caches check it. KV's own expiry only cleans up. It would be too late for an entry that
 * was written while its key was being revoked, or that an edge still has. The deadline is 60 s after the state that D1 answered
 * from: if the primary answered, that state is not from before it was asked; if a replica did, not from before its heartbeat
 * (d1/heartbeat.ts). Where one clock says when the state was, and another when the time is over, the deadline is sooner by as much
 * as both may be off. So a revoked key can read for at most 60 s. It can write nothing, because no mutation trusts a cache
 * (decision/caller.ts, decision/operator.ts).
 */
import type * as z from 'zod/mini';
import { atOnce } from '../core/at-once.ts';
import { CONNECTIONS_AFTER_DECISION } from '../core/connections.ts';
import { logError } from '../core/log.ts';
import { RecentMap } from '../core/recent-map.ts';
import { unixNow } from '../core/time.ts';
import { batch } from '../d1/batch.ts';
import { beat } from '../d1/heartbeat.ts';
import type { CompiledQuery, Rows } from '../d1/query.ts';
import type { KeyLookup } from '../d1/replica-session.ts';
import type { AfterAnswer, Bindings } from '../env.ts';

const MAX_AGE_SECONDS = 60;
/** How far the clocks of isolates and of D1's primary may be off. */
const CLOCK_ERROR_SECONDS = 2;
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

/** What comes of a look-up. `released`: its call has ended without one. */
type LookedUp<Holder> = Holder | 'dead' | 'released';

interface Definition<Holder extends Entry> {
  schema: z.ZodMiniType<Holder>;
  /**
   * Finds a key by its hash, which is unique in the whole system: so it names no organization. Its row has also `is_alive`,
   * and `beat_at`, the heartbeat of the copy that was asked.
   */
  find: CompiledQuery<{ key_hash: string; now: number }, Rows>;
  /** Notes that the key was used. */
  markUsed: CompiledQuery<Holder & { now: number }, unknown>;
}

/** The key that a call came with. */
export interface PresentedKey<Holder> {
  /** Lower-case hex SHA-256 of the raw key. */
  readonly key_hash: string;
  /** Undefined until a cache or D1 has named the holder. */
  holder?: Holder;
  /** Only as long as there is no holder. */
  lookup?: KeyLookup | undefined;
  /** Lets others look the key up who wait for this call to do it. */
  release: () => void;
}

/** The holder of a key, once D1 or a cache has confirmed it. */
export function holderOf<Holder>({ key: { holder } }: { key: PresentedKey<Holder> }): Holder {
  if (!holder) throw new Error('The caller is not known yet.');
  return holder;
}

/** What a call has, whose key is to be looked up. */
export interface Lookup<Holder> {
  env: Bindings;
  key_hash: string;
  afterAnswer: AfterAnswer;
  isAlive: () => KeyLookup['isAlive'];
  /** Receives the holder that was looked up; undefined if the key is unknown or dead. It throws to refuse the call. */
  onFound: (holder: Holder | undefined) => void;
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
   * Look-ups under way, by the key's hash, and what comes of them. Their number is bounded, because a look-up whose call is
   * cancelled is never removed.
   */
  const lookUps = new RecentMap<string, Promise<LookedUp<Holder>>>(MAX_ISOLATE_ENTRIES);

  /**
   * Finds the holder of a key, which must be well-formed, or prepares its look-up. Calls that present the same key meanwhile
   * wait for the first one's look-up, however many they are.
   *
   * @param admitLookup called before KV and D1 are asked about a key that this isolate does not know. It throws to
   *   refuse: anybody can make well-formed keys, and a flood of them must not reach KV and D1
   * @returns undefined if the key is unknown or dead
   * @throws what `admitLookup` throws
   */
  async function present(
    call: Lookup<Holder>,
    admitLookup: () => Promise<void>,
  ): Promise<PresentedKey<Holder> | undefined> {
    const { env, key_hash } = call;
    const now = unixNow();
    const known = isolateCache.get(key_hash);
    if (known && isBelieved(known, key_hash, now)) {
      if (known.deadline - now <= REFRESHED_SECONDS_BEFORE) call.afterAnswer(() => refresh(env, key_hash));
      return held(known, now);
    }
    if (now < (unknownKeys.get(key_hash) ?? 0)) return undefined;
    const other = lookUps.get(key_hash);
    const found = other ? await inTime(other) : 'released';
    if (found === 'dead') return undefined;
    if (found !== 'released') return held(found, now);
    const isAdmitted = known && !other;
    const tell = announce(key_hash);
    try {
      // The first call with a key that this isolate has found alive before needs no token. If the key is dead now, the isolate
      // forgets it. Those that have waited for another's look-up in vain go on all at once.
      if (!isAdmitted) await admitLookup();
    } catch (error) {
      tell('released');
      throw error;
    }
    return lookUp(call, readCache(env, key_hash, now), tell);
  }

  /** The holder is not alive if the key has expired since. */
  function held(holder: Holder, now: number): PresentedKey<Holder> | undefined {
    return isUnexpired(holder, now) ? { key_hash: holder.key_hash, holder, release: () => {} } : undefined;
  }

  /** Lets others wait for a look-up. Returns what tells them of it; they heed only the first time. */
  function announce(key_hash: string): (result: LookedUp<Holder>) => void {
    const { promise, resolve } = Promise.withResolvers<LookedUp<Holder>>();
    lookUps.set(key_hash, promise);
    return (result) => {
      if (lookUps.get(key_hash) === promise) lookUps.delete(key_hash);
      resolve(result);
    };
  }

  /** @param reading from KV; it never rejects */
  function lookUp(
    { env, key_hash, afterAnswer, isAlive, onFound }: Lookup<Holder>,
    reading: Promise<Holder | undefined>,
    tell: (result: LookedUp<Holder>) => void,
  ): PresentedKey<Holder> {
    const now = unixNow();
    let inKv: Holder | undefined;
    void reading.then((read) => (inKv = read));

    function end(holder: Holder | undefined): true {
      delete key.lookup;
      if (holder) key.holder = holder;
      tell(holder ?? 'dead');
      onFound(holder);
      return true;
    }

    const key: PresentedKey<Holder> = {
      key_hash,
      lookup: {
        find: findKey.bind({ key_hash, now }),
        isAlive: isAlive(),
        settle([row], isPrimary, hasActed = false) {
          if (row?.['is_alive']) {
            const holder = isPrimary
              ? holderIn(row, now + MAX_AGE_SECONDS)
              : sharedHolderIn(row, Number(row['beat_at']));
            if (isPrimary || isBelieved(holder, key_hash, unixNow())) {
              learn(env, holder, isPrimary ? sharedHolderIn(row, now) : holder, reading, afterAnswer);
              return end(holder);
            }
            // The replica does not know whether the key is alive still. KV may.
            if (inKv && isBelieved(inKv, key_hash, unixNow())) {
              isolateCache.set(key_hash, inKv);
              return end(inKv);
            }
          }
          if (!isPrimary) return false;
          if (row && hasActed) {
            // An earlier try has ended the caller's own key.
            tell('dead');
            return end(holderIn(row, now));
          }
          if (!row) unknownKeys.set(key_hash, now + UNKNOWN_MAX_AGE_SECONDS);
          forget(key_hash);
          return end(undefined);
        },
      },
      release: () => tell('released'),
    };
    return key;
  }

  const holderIn = (row: Rows[number], deadline: number) => schema.parse({ ...row, deadline });

  /** @param asOf the time of the state that D1 answered from, by another clock than that of who believes it */
  const sharedHolderIn = (row: Rows[number], asOf: number) =>
    holderIn(row, asOf + MAX_AGE_SECONDS - 2 * CLOCK_ERROR_SECONDS);

  /**
   * Fills both caches, unless another call has just done so.
   *
   * @param shared the same, for KV
   * @param reading the entry in KV, if there is one already
   */
  function learn(
    env: Bindings,
    holder: Holder,
    shared: Holder,
    reading: Promise<Holder | undefined>,
    afterAnswer: AfterAnswer,
  ): void {
    const { key_hash, deadline } = holder;
    const known = isolateCache.get(key_hash);
    // One that is not believed was made while the clock was wrong.
    if (known && known.deadline >= deadline && isBelieved(known, key_hash, unixNow())) return;
    isolateCache.set(key_hash, holder);
    afterAnswer(async () => {
      if (await reading) return;
      // The call may have revoked its own key.
      const isKept = isolateCache.get(key_hash) === holder;
      const options = { expirationTtl: KV_EXPIRATION_SECONDS };
      await Promise.all([
        batch(env.DB, [beat.bind({}), markUsed.bind({ ...holder, now: unixNow() })]),
        isKept && env.KEY_CACHE.put(key_hash, JSON.stringify(shared), options),
      ]);
    });
  }

  /** Asks D1 about a key shortly before its deadline, so that no call has to. */
  async function refresh(env: Bindings, key_hash: string): Promise<void> {
    const now = unixNow();
    const known = isolateCache.get(key_hash);
    if (!known || known.deadline - now > REFRESHED_SECONDS_BEFORE || lookUps.get(key_hash)) return;
    const tell = announce(key_hash);
    const tasks: (() => Promise<unknown>)[] = [];
    try {
      const [[row]] = await batch(env.DB, [findKey.bind({ key_hash, now })]);
      if (row?.['is_alive']) {
        const holder = holderIn(row, now + MAX_AGE_SECONDS);
        learn(env, holder, sharedHolderIn(row, now), Promise.resolve(undefined), (task) => tasks.push(task));
        tell(holder);
      } else forget(key_hash);
    } finally {
      tell('released');
    }
    await Promise.all(tasks.map((task) => task()));
  }

  async function inTime(other: Promise<LookedUp<Holder>>): Promise<LookedUp<Holder>> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<'released'>((resolve) => {
      timer = setTimeout(() => resolve('released'), WAIT_MILLISECONDS);
    });
    try {
      return await Promise.race([other, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Removes a key from the isolate's cache, because D1 has said something else about it. */
  function forget(key_hash: string): void {
    isolateCache.delete(key_hash);
  }

  /** A deadline further away than we ever set cannot be ours: a revoked key could read until then. */
  const isBelieved = (holder: Holder, key_hash: string, now: number) =>
    holder.key_hash === key_hash && now < holder.deadline && holder.deadline <= now + MAX_AGE_SECONDS;

  const isUnexpired = ({ expires_at }: Holder, now: number) => expires_at === null || now < expires_at;

  /** If KV fails, D1 decides alone, so that nobody is refused. */
  async function readCache(env: Bindings, key_hash: string, now: number): Promise<Holder | undefined> {
    try {
      const value = await env.KEY_CACHE.get(key_hash, { type: 'json', cacheTtl: KV_EDGE_CACHE_SECONDS });
      const { data: holder } = schema.safeParse(value);
      return holder && isBelieved(holder, key_hash, now) && isUnexpired(holder, now) ? holder : undefined;
    } catch (error) {
      logError('key_cache_unreadable', error);
      return undefined;
    }
  }

  return { present, forget };
}

/**
 * Removes keys from KEY_CACHE after a revocation or a rotation, so that they end before their deadline. If there are
 * more than one invocation may delete from KV, the rest end by their deadline.
 */
export function dropFromKv(
  { env, afterAnswer }: { env: Bindings; afterAnswer: AfterAnswer },
  key_hashes: readonly string[],
): void {
  afterAnswer(async () => {
    const errors: unknown[] = [];
    await atOnce(CONNECTIONS_AFTER_DECISION, key_hashes.slice(0, MAX_DROPPED), async (key_hash) => {
      try {
        await env.KEY_CACHE.delete(key_hash);
      } catch (error) {
        errors.push(error);
      }
    });
    if (errors.length > 0) throw new AggregateError(errors);
  });
}
