/**
 * Bindings as far away as in production: a call takes as long as its trip there, the time that it takes here included.
 * A database does one call at a time, as D1 does, and is busy with each for a while.
 */
import type { Bindings } from '../../../src/worker/env.ts';
import { intercept } from './intercept.ts';
import type { Around } from './intercept.ts';
import { nearLimits } from './limits.ts';

/** Milliseconds. */
export interface EdgeTimes {
  /** A read of KV. */
  KV_MS: number;
  /** A write of KV. */
  KV_WRITE_MS: number;
  /** A call of D1, there and back. */
  D1_MS: number;
  /** The part of it in which D1 does nothing else. */
  D1_BUSY_MS: number;
  /** What would have to wait longer for its turn is refused. */
  D1_QUEUE_MS: number;
}

export async function takeAtLeast(milliseconds: number, call: () => Promise<unknown>): Promise<unknown> {
  const [result] = await Promise.all([call(), scheduler.wait(milliseconds)]);
  return result;
}

/** A queue by the clock: in an isolate no request may wait for another's promise. */
function queue(tripMs: number, busyMs: number, queueMs: number): Around {
  let freeAt = 0;
  return async (_, call) => {
    const now = Date.now();
    const startsAt = Math.max(now, freeAt);
    if (startsAt - now > queueMs) {
      await scheduler.wait(tripMs);
      throw new Error('D1_ERROR: D1 DB is overloaded. Requests queued for too long.');
    }
    freeAt = startsAt + busyMs;
    return takeAtLeast(startsAt - now + tripMs, call);
  };
}

export function edgeBindings(env: Bindings & Record<keyof EdgeTimes, string>): Bindings {
  const namespaceTrip: Around = (method, call) =>
    takeAtLeast(Number(method === 'get' ? env.KV_MS : env.KV_WRITE_MS), call);
  return {
    ...env,
    ...nearLimits,
    DB: intercept(env.DB, queue(Number(env.D1_MS), Number(env.D1_BUSY_MS), Number(env.D1_QUEUE_MS))),
    KEY_CACHE: intercept(env.KEY_CACHE, namespaceTrip),
    CREDENTIALS: intercept(env.CREDENTIALS, namespaceTrip),
  };
}
