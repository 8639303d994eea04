import { and, eq } from 'drizzle-orm';
import * as z from 'zod/mini';
import { toIso } from '../core/time.ts';
import { auditActions, deliveryStatuses } from '../core/vocabulary.ts';
import { columnsOf } from '../d1/columns.ts';
import { audit_events, webhook_deliveries } from '../d1/schema.ts';

const fields = () => ({
  delivery_id: z.string(),
  endpoint_id: z.string(),
  event_id: z.string(),
  event_type: z.enum(auditActions),
  status: z.enum(deliveryStatuses),
  attempts: z.int(),
  created_at: z.int(),
  attempted_at: z.int(),
  next_attempt_at: z.nullable(z.int()),
  response_status: z.nullable(z.int()),
  /** No event has it. */
  response_body: z._default(z.nullable(z.string()), null),
  duration_ms: z.int(),
  last_error: z.nullable(z.string()),
});

/** A delivery as it is in the `state` of its audit events. */
export const deliveryState = z.lazy(() => z.object(fields()));

export type DeliveryState = z.output<typeof deliveryState>;

/** The columns that {@link presentDelivery} needs. */
export const deliveryColumns = () => columnsOf(webhook_deliveries, fields());

/** A delivery as clients see it. */
export function presentDelivery(state: DeliveryState) {
  return {
    ...state,
    created_at: toIso(state.created_at),
    attempted_at: toIso(state.attempted_at),
    next_attempt_at: state.next_attempt_at === null ? null : toIso(state.next_attempt_at),
  };
}

export type WebhookDelivery = ReturnType<typeof presentDelivery>;

/** Selects the event of a delivery, whose row the statement selects from. It may be kept no longer. */
export const isEventOfDelivery = and(
  eq(audit_events.organization_id, webhook_deliveries.organization_id),
  eq(audit_events.event_id, webhook_deliveries.event_id),
);
