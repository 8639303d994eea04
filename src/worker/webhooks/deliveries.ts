/** What became of single events: failures, and the last successes. */
import { and, eq, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { deliveryStatuses } from '../core/vocabulary.ts';
import { existsIn } from '../d1/columns.ts';
import { AFTER_ALL, keysetList, listParameters } from '../d1/list.ts';
import type { FilterOf, Page } from '../d1/list.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import type { ReadingCall } from '../d1/replica-session.ts';
import { audit_events, webhook_deliveries, webhook_endpoints } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { mayDecide } from '../decision/caller.ts';
import { changesOf, decisionSaw, eventRecorder, hasDecided } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import { fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { deliveryColumns, deliveryState, isEventOfDelivery, presentDelivery } from './delivery.ts';
import type { DeliveryState, WebhookDelivery } from './delivery.ts';
import { endpointQuotas, findEndpoint, isEndpoint } from './endpoint.ts';
import { refuseChange, takeClaim } from './update.ts';
import type { EndpointMutation } from './update.ts';

export const deliveriesQuery = z.lazy(() =>
  z.strictObject({ status: z.exactOptional(z.enum(deliveryStatuses)), ...listParameters('desc') }),
);

const findOwner = query((db, parameters: Placeholders<Record<'organization_id' | 'endpoint_id', string>>) =>
  db.select({ endpoint_id: webhook_endpoints.endpoint_id }).from(webhook_endpoints).where(isEndpoint(parameters)),
);

const listOf = keysetList<'endpoint_id' | FilterOf<typeof deliveriesQuery>, DeliveryState>('webhook_deliveries', {
  table: webhook_deliveries,
  key: [webhook_deliveries.created_at, webhook_deliveries.delivery_id],
  keyOf: ({ created_at, delivery_id }) => [created_at, delivery_id],
  range: () => [
    [0, ''],
    [AFTER_ALL, ''],
  ],
  predicates: {
    endpoint_id: (value) => eq(webhook_deliveries.endpoint_id, value),
    status: (value) => eq(webhook_deliveries.status, value),
  },
  owner: findOwner,
  page: (db, isListed, order, limit) =>
    db
      .select(deliveryColumns())
      .from(webhook_deliveries)
      .where(isListed)
      .orderBy(...order)
      .limit(limit),
});

/**
 * The deliveries of an endpoint, newest first.
 *
 * @throws DomainError `webhook_endpoint_not_found`, and the errors of every list (d1/list.ts)
 */
export async function listDeliveries(
  call: ReadingCall,
  endpoint_id: string,
  request: z.output<typeof deliveriesQuery>,
): Promise<Page<DeliveryState>> {
  const { hasOwner, ...page } = await listOf(call, { ...request, endpoint_id });
  if (!hasOwner) throw new DomainError('webhook_endpoint_not_found', {});
  return page;
}

type RetryParameters = EndpointMutation & { delivery_id: string };

const isDelivery = ({ organization_id, endpoint_id, delivery_id }: Placeholders<RetryParameters>) =>
  and(
    eq(webhook_deliveries.organization_id, organization_id),
    eq(webhook_deliveries.delivery_id, delivery_id),
    eq(webhook_deliveries.endpoint_id, endpoint_id),
  );

const newColumns = ({ now }: Placeholders<RetryParameters>) => ({
  status: sql<'retrying'>`'retrying'`,
  next_attempt_at: sql<number>`${now}`,
});

const recordRetry = eventRecorder<RetryParameters>({
  table: webhook_deliveries,
  target_id: webhook_deliveries.delivery_id,
  action: 'webhook_delivery.retried',
  where: (db, parameters) =>
    and(
      isDelivery(parameters),
      existsIn(db, audit_events, isEventOfDelivery),
      mayDecide('webhooks:update', db, parameters),
      hasRoomFor(endpointQuotas),
    ),
  changes: newColumns,
});

const retry = query((db, parameters: Placeholders<RetryParameters>) =>
  db
    .update(webhook_deliveries)
    .set(newColumns(parameters))
    .where(and(isDelivery(parameters), decisionSaw(db, parameters, webhook_deliveries.attempts))),
);

const wakeEndpoint = query((db, parameters: Placeholders<RetryParameters>) =>
  db
    .update(webhook_endpoints)
    .set({ resting_until: sql`0`, ...takeClaim(parameters) })
    .where(and(isEndpoint(parameters), hasDecided(db, parameters))),
);

const findDelivery = query((db, parameters: Placeholders<RetryParameters>) =>
  db
    .select(deliveryColumns())
    .from(webhook_deliveries)
    .where(and(isDelivery(parameters), existsIn(db, audit_events, isEventOfDelivery))),
);

const decide = mutation('webhooks:update', {
  statements: [recordRetry, retry, wakeEndpoint],
  found: { delivery: findDelivery, endpoint: findEndpoint, full: fullQuota(endpointQuotas) },
});

/**
 * Sends an event once more, after the answer (docs/contract.md, Webhook endpoints). If the endpoint is disabled, it waits
 * until that is enabled.
 *
 * @throws DomainError `webhook_endpoint_not_found`, `webhook_delivery_not_found`, `quota_exceeded`, and the errors of every
 *   mutation (decision/mutation.ts)
 */
export async function retryDelivery(call: ApiCall, endpoint_id: string, delivery_id: string): Promise<WebhookDelivery> {
  const answer = await decide(call, { ...mutationParameters(call), endpoint_id, delivery_id });
  const { delivery, ...found } = answer.found;
  if (answer.outcome === 'undecided') {
    if (found.endpoint.length > 0 && delivery.length === 0) throw new DomainError('webhook_delivery_not_found', {});
    refuseChange(found);
  }
  return presentDelivery(deliveryState.parse({ ...JSON.parse(answer.event.state), ...changesOf(answer.event) }));
}
