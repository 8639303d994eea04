import * as z from 'zod/mini';
import { forgetEndedKeys } from './api-keys/retention.ts';
import { app } from './app.ts';
import { forgetOldEvents, forgetReads, forgetRefusals } from './audit/retention.ts';
import { BULK_BATCH_MILLISECONDS, CALL_MILLISECONDS, withDeadlines } from './core/deadlines.ts';
import { logError } from './core/log.ts';
import { drainPurges } from './credentials/drain.ts';
import { rewrapDataKeys } from './credentials/rewrap.ts';
import { watchSize } from './d1/database-size.ts';
import { deleteOldRememberedAnswers } from './decision/remembered-answers.ts';
import type { Bindings } from './env.ts';
import { foldNames } from './integrations/fold-names.ts';
import { RECHECK_CRON, recheckCredentials } from './integrations/recheck.ts';
import { continueOffboardings } from './organizations/offboarding.ts';
import { recheckOwnership } from './phone-numbers/recheck.ts';
import { deliver } from './webhooks/deliver.ts';
import { disableFailing, forgetDeliveries, sweepWebhooks } from './webhooks/sweep.ts';

export { CredentialsReader } from './credentials-reader/entrypoint.ts';

/** The body of a wake-up. */
const wakeUp = z.object({ organization_id: z.string(), endpoint_id: z.optional(z.string()) });

type Task = (env: Bindings) => Promise<void>;

/**
 * The tasks of the cron, which runs every minute. Each does a bounded amount of work, and the next run continues it.
 * They run one after the other, because an invocation has few connections (core/connections.ts).
 */
const tasks: Record<string, Task> = {
  drain: drainPurges,
  idempotency_keys: deleteOldRememberedAnswers,
  audit_retention: forgetOldEvents,
  refusal_retention: forgetRefusals,
  read_retention: forgetReads,
  api_key_retention: forgetEndedKeys,
  rewrap: rewrapDataKeys,
  names: foldNames,
  offboarding: continueOffboardings,
  webhooks: sweepWebhooks,
  webhooks_failing: disableFailing,
  delivery_retention: forgetDeliveries,
  database_size: watchSize,
};

/** Providers may be slow, and must not hold up the other tasks. */
const recheckTasks: Record<string, Task> = { ownership: recheckOwnership, recheck: recheckCredentials };

export default {
  fetch: (request: Request, env: Bindings, context: ExecutionContext) =>
    app.fetch(
      request,
      withDeadlines(env, (late) => context.waitUntil(late), CALL_MILLISECONDS, request),
      context,
    ),
  /** @throws the first task's error, after all tasks have run, because the platform counts failed runs */
  async scheduled({ cron }: ScheduledController, untimed: Bindings, context?: ExecutionContext) {
    const env = withDeadlines(untimed, (late) => context?.waitUntil(late), BULK_BATCH_MILLISECONDS);
    const failures: unknown[] = [];
    for (const [name, task] of Object.entries(cron === RECHECK_CRON ? recheckTasks : tasks)) {
      try {
        await task(env);
      } catch (error) {
        logError(`${name}_failed`, error);
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  },
  /** Of wake-ups (decision/wake.ts). One that fails is not tried again: the cron wakes what is left. */
  async queue({ messages }: MessageBatch, untimed: Bindings, context?: ExecutionContext) {
    const env = withDeadlines(untimed, (late) => context?.waitUntil(late), CALL_MILLISECONDS);
    const woken = messages.flatMap(({ body }) => wakeUp.safeParse(body).data ?? []);
    await deliver(env, woken);
  },
} satisfies ExportedHandler<Bindings>;
