import type { ProblemCode } from '../core/errors.ts';
import { logWarning } from '../core/log.ts';
/** Logs failed authentications by reason and network, so that a flood can be seen but does not fill the log. */
import { RecentMap } from '../core/recent-map.ts';

const MAX_COUNTED = 1000;
const LINE_INTERVAL_MILLISECONDS = 1000;

const failures = new RecentMap<string, { count: number; loggedAt: number }>(MAX_COUNTED);

/**
 * Counts a failure. At most once a second for each reason and network, it logs `authentication_failed` with the number
 * of failures since the previous line.
 */
export function countFailure(reason: ProblemCode, network: string): void {
  const key = `${reason} ${network}`;
  const { count, loggedAt } = failures.get(key) ?? { count: 0, loggedAt: 0 };
  if (Date.now() - loggedAt < LINE_INTERVAL_MILLISECONDS) {
    failures.set(key, { count: count + 1, loggedAt });
    return;
  }
  logWarning('authentication_failed', { reason, network, count: count + 1 });
  failures.set(key, { count: 0, loggedAt: Date.now() });
}
