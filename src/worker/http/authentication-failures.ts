/** Authentications that fail, in the log: by reason and network, so that a flood is seen and does not fill the log. */
import { LRUCache } from 'lru-cache';
import { logWarning } from '../core/log.ts';
import type { ProblemCode } from '../core/errors.ts';

const MAX_COUNTED = 1000;
const LINE_INTERVAL_MILLISECONDS = 1000;

const failures = new LRUCache<string, { count: number; toldAt: number }>({ max: MAX_COUNTED });

/**
 * Counts a failure. Logs `authentication_failed` with how many there were since the last line, at most once a second for each
 * reason and network.
 */
export function countFailure(reason: ProblemCode, network: string): void {
  const key = `${reason} ${network}`;
  const { count, toldAt } = failures.get(key) ?? { count: 0, toldAt: 0 };
  if (Date.now() - toldAt < LINE_INTERVAL_MILLISECONDS) {
    failures.set(key, { count: count + 1, toldAt });
    return;
  }
  logWarning('authentication_failed', { reason, network, count: count + 1 });
  failures.set(key, { count: 0, toldAt: Date.now() });
}
