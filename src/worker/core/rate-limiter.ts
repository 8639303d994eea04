/** The rate-limit bindings of Workers. They count per Cloudflare location, and approximately. */
import { logError } from './log.ts';

/** Whether one more call passes. A limiter that fails must not lock everybody out. */
export async function passes(limiter: RateLimit, key: string): Promise<boolean> {
  try {
    return (await limiter.limit({ key })).success;
  } catch (error) {
    logError('rate_limiter_failed', error);
    return true;
  }
}
