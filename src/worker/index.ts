import { forgetEndedKeys } from './api-keys/retention.ts';
import { app } from './app.ts';
import { forgetOldEvents, forgetRefusals } from './audit/retention.ts';
import { drainPurges } from './credentials/drain.ts';
import { rewrapDataKeys } from './credentials/rewrap.ts';
import { watchSize } from './d1/database-size.ts';
import { BULK_BATCH_MILLISECONDS, CALL_MILLISECONDS, withDeadlines } from './core/deadlines.ts';
import type { Bindings } from './env.ts';
import { deleteOldRememberedAnswers } from './decision/remembered-answers.ts';
import { logError } from './core/log.ts';

/**
 * What the cron does at each turn: the outbox's drain, data keys to be wrapped anew, what is old enough to be forgotten,
 * and a look at the database's size. Each is bounded, and goes on at the next where it left off. One after the other, because an
 * invocation has few connections (connections.ts).
 */
const chores: Record<string, (env: Bindings) => Promise<void>> = {
  drain: drainPurges,
  idempotency_keys: deleteOldRememberedAnswers,
  audit_retention: forgetOldEvents,
  refusal_retention: forgetRefusals,
  api_key_retention: forgetEndedKeys,
  rewrap: rewrapDataKeys,
  database_size: watchSize,
};

export default {
  fetch: (request: Request, env: Bindings, context: ExecutionContext) =>
    app.fetch(
      request,
      withDeadlines(env, (late) => context.waitUntil(late), CALL_MILLISECONDS),
      context,
    ),
  /** @throws the first chore's error, once every chore had its turn: the platform counts failed runs */
  async scheduled(_controller: ScheduledController, untimed: Bindings, context?: ExecutionContext) {
    const env = withDeadlines(untimed, (late) => context?.waitUntil(late), BULK_BATCH_MILLISECONDS);
    const failures: unknown[] = [];
    for (const [name, chore] of Object.entries(chores)) {
      try {
        await chore(env);
      } catch (error) {
        logError(`${name}_failed`, error);
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  },
} satisfies ExportedHandler<Bindings>;
