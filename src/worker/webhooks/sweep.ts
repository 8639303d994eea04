import { and, eq, isNotNull, lt, lte, ne, sql } from 'drizzle-orm';
import { logEvent } from '../core/log.ts';
import { SECONDS_A_DAY, unixNow } from '../core/time.ts';
import { batch } from '../d1/batch.ts';
import { existsIn } from '../d1/columns.ts';
import { deleteInTurns, ROWS_PER_STATEMENT } from '../d1/delete-old.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { organizations, webhook_deliveries, webhook_endpoints, webhook_secrets } from '../d1/schema.ts';
import { bySystem, eventParameters } from '../decision/call.ts';
import type { EventParameters } from '../decision/call.ts';
import { eventRecorder } from '../decision/event.ts';
import type { Bindings } from '../env.ts';
import { findOrganizationsDue } from './due.ts';
import { isEndpoint } from './endpoint.ts';
import { changeOf } from './update.ts';

const FAILING_SECONDS = 5 * SECONDS_A_DAY;
const DISABLED_PER_RUN = 100;
const ORGANIZATIONS_PER_RUN = 1000;
/** Of Queues. */
const MESSAGES_PER_BATCH = 100;
/** Deliveries that are not tried any more, with what their endpoints answered. */
const KEPT_SECONDS = 7 * SECONDS_A_DAY;

/**
 * A task of the cron: wakes the deliveries of organizations with endpoints that are due, because a wake-up may have been lost,
 * and because nothing else wakes those that wait for long.
 *
 * @throws DomainError `temporarily_unavailable`; what Queues throws
 */
export async function sweepWebhooks({ DB, WEBHOOK_WAKEUPS }: Bindings): Promise<void> {
  const [due] = await batch(DB, [findOrganizationsDue.bind({ now: unixNow(), limit: ORGANIZATIONS_PER_RUN })]);
  for (let from = 0; from < due.length; from += MESSAGES_PER_BATCH) {
    await WEBHOOK_WAKEUPS.sendBatch(due.slice(from, from + MESSAGES_PER_BATCH).map((body) => ({ body })));
  }
}

const isFailing = ({ failing_before }: Placeholders<{ failing_before: number }>) =>
  and(eq(webhook_endpoints.enabled, sql`1`), lte(webhook_endpoints.failing_since, failing_before));

/** Nothing is tried while an organization is suspended, so that time does not count. */
const restartOfSuspended = query((db, parameters: Placeholders<{ failing_before: number; now: number }>) =>
  db
    .update(webhook_endpoints)
    .set({ failing_since: sql`${parameters.now}` })
    .where(
      and(
        isFailing(parameters),
        existsIn(
          db,
          organizations,
          and(eq(organizations.organization_id, webhook_endpoints.organization_id), ne(organizations.status, 'active')),
        ),
      ),
    ),
);

const findFailing = query((db, parameters: Placeholders<{ failing_before: number }>) =>
  db
    .select({ organization_id: webhook_endpoints.organization_id, endpoint_id: webhook_endpoints.endpoint_id })
    .from(webhook_endpoints)
    .where(isFailing(parameters))
    .limit(DISABLED_PER_RUN),
);

type DisableParameters = EventParameters & { endpoint_id: string; failing_before: number };

const recordDisabling = eventRecorder<DisableParameters>({
  table: webhook_endpoints,
  target_id: webhook_endpoints.endpoint_id,
  action: 'webhook_endpoint.disabled',
  where: (_, parameters) => and(isEndpoint(parameters), isFailing(parameters)),
  changes: () => ({ enabled: sql`0` }),
});

const disable = query((db, parameters: Placeholders<DisableParameters>) => {
  const { columns, isAsDecided } = changeOf(db, parameters);
  return db
    .update(webhook_endpoints)
    .set({ enabled: sql`0`, ...columns })
    .where(isAsDecided);
});

/**
 * A task of the cron: disables the endpoints that have failed for five days. Their events wait.
 *
 * @throws DomainError `temporarily_unavailable`
 */
export async function disableFailing({ DB }: Bindings): Promise<void> {
  const now = unixNow();
  const failing_before = now - FAILING_SECONDS;
  const [, failing] = await batch(DB, [
    restartOfSuspended.bind({ failing_before, now }),
    findFailing.bind({ failing_before }),
  ]);
  for (const { organization_id, endpoint_id } of failing) {
    const event = eventParameters(bySystem(organization_id));
    const parameters = { ...event, endpoint_id, failing_before };
    await batch(DB, [recordDisabling.bind(parameters), disable.bind(parameters)]);
  }
}

const deleteOldDeliveries = query((db, { before }: Placeholders<{ before: number }>) => {
  const { organization_id, delivery_id, attempted_at, status } = webhook_deliveries;
  return db
    .delete(webhook_deliveries)
    .where(
      sql`(${organization_id}, ${delivery_id}) IN ${db
        .select({ organization_id, delivery_id })
        .from(webhook_deliveries)
        .where(and(ne(status, 'retrying'), lt(attempted_at, before)))
        .limit(ROWS_PER_STATEMENT)}`,
    )
    .returning({ delivery_id });
});

const deleteEndedSecrets = query((db, { now }: Placeholders<{ now: number }>) =>
  db.delete(webhook_secrets).where(lte(webhook_secrets.ends_at, now)),
);

/** Those that wait for a retry, of a disabled endpoint for example, stay without their answers. */
const forgetAnswers = query((db, { before }: Placeholders<{ before: number }>) =>
  db
    .update(webhook_deliveries)
    .set({ response_body: sql`NULL` })
    .where(and(lt(webhook_deliveries.attempted_at, before), isNotNull(webhook_deliveries.response_body))),
);

/**
 * A task of the cron: deletes deliveries and answers that are too old, and secrets whose overlap has ended.
 *
 * @throws DomainError `temporarily_unavailable`
 */
export async function forgetDeliveries({ DB }: Bindings): Promise<void> {
  const now = unixNow();
  const count = await deleteInTurns(DB, deleteOldDeliveries.bind({ before: now - KEPT_SECONDS }));
  await batch(DB, [forgetAnswers.bind({ before: now - KEPT_SECONDS }), deleteEndedSecrets.bind({ now })]);
  if (count > 0) logEvent('webhook_deliveries_forgotten', { count });
}
