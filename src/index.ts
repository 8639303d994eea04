import { app } from './app.ts';
import { forgetOldEvents } from './audit/retention.ts';
import { drainPurges } from './credentials/purge.ts';
import { rewrapDataKeys } from './credentials/rewrap.ts';
import type { Bindings } from './env.ts';
import { forgetIdempotencyKeys } from './idempotency.ts';
import { logError } from './log.ts';

/**
 * What the cron does at each turn: the outbox's drain, data keys to be wrapped anew, and what is old enough to be forgotten.
 * Each is bounded, and goes on at the next turn where it left off.
 */
const chores: Record<string, (env: Bindings) => Promise<void>> = {
  drain: drainPurges,
  idempotency_keys: forgetIdempotencyKeys,
  audit_retention: forgetOldEvents,
  rewrap: rewrapDataKeys,
};

export default {
  fetch: app.fetch,
  /** @throws the first chore's error, once every chore had its turn: the platform counts failed runs */
  async scheduled(_controller, env) {
    const turns = Object.entries(chores).map(async ([name, chore]) => {
      try {
        await chore(env);
      } catch (error) {
        logError(`${name}_failed`, error);
        throw error;
      }
    });
    await Promise.allSettled(turns);
    await Promise.all(turns);
  },
} satisfies ExportedHandler<Bindings>;
