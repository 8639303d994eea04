import { and, eq } from 'drizzle-orm';
import * as z from 'zod/mini';
import { parseJson } from '../core/json.ts';
import { toIso } from '../core/time.ts';
import type { Quota } from '../core/vocabulary.ts';
import { columnsOf } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { webhook_endpoints } from '../d1/schema.ts';
import type { EventParameters } from '../decision/call.ts';
import { decisionSaw } from '../decision/event.ts';

const fields = () => ({
  endpoint_id: z.string(),
  organization_id: z.string(),
  url: z.string(),
  description: z.nullable(z.string()),
  events: z.string(),
  enabled: z.int(),
  created_at: z.int(),
  updated_at: z.int(),
  verified_at: z.nullable(z.int()),
  tested_at: z.nullable(z.int()),
  test_response_status: z.nullable(z.int()),
  test_duration_ms: z.nullable(z.int()),
  test_error: z.nullable(z.string()),
  cursor_at: z.int(),
  last_delivered_at: z.nullable(z.int()),
  failing_since: z.nullable(z.int()),
  last_error: z.nullable(z.string()),
});

/** A webhook endpoint as it is in the `state` of its audit events. */
export const endpointState = z.lazy(() => z.object(fields()));

export type EndpointState = z.output<typeof endpointState>;

/** The columns that {@link presentEndpoint} needs. */
export const endpointColumns = () => columnsOf(webhook_endpoints, fields());

/** Which endpoint. */
export interface EndpointKey {
  organization_id: string;
  endpoint_id: string;
}

/** Selects one webhook endpoint of one organization. */
export const isEndpoint = ({ organization_id, endpoint_id }: Placeholders<EndpointKey>) =>
  and(eq(webhook_endpoints.organization_id, organization_id), eq(webhook_endpoints.endpoint_id, endpoint_id));

/** Selects the endpoint, if it is as the event that decides saw it: so a late try does not undo what came after. */
export const isEndpointAsDecided = (db: Builder, parameters: Placeholders<EndpointKey & EventParameters>) =>
  and(isEndpoint(parameters), decisionSaw(db, parameters, webhook_endpoints.revision));

/** What the events of calls about an endpoint count against. */
export const endpointQuotas: Quota[] = ['audit_events'];

export const findEndpoint = query((db, parameters: Placeholders<EndpointKey>) =>
  db.select(endpointColumns()).from(webhook_endpoints).where(isEndpoint(parameters)),
);

const patterns = z.array(z.string());

const timeOf = (seconds: number | null) => (seconds === null ? null : toIso(seconds));

/** A webhook endpoint as clients see it. */
export function presentEndpoint(state: EndpointState) {
  return {
    endpoint_id: state.endpoint_id,
    client_id: state.organization_id,
    url: state.url,
    description: state.description,
    events: patterns.parse(parseJson(state.events)),
    enabled: state.enabled === 1,
    verified_at: timeOf(state.verified_at),
    last_test:
      state.tested_at === null
        ? null
        : {
            succeeded: state.test_error === null,
            response_status: state.test_response_status,
            duration_ms: state.test_duration_ms,
            error: state.test_error,
            tested_at: toIso(state.tested_at),
          },
    delivered_until: toIso(state.cursor_at),
    last_delivered_at: timeOf(state.last_delivered_at),
    failing_since: timeOf(state.failing_since),
    last_error: state.last_error,
    created_at: toIso(state.created_at),
    updated_at: toIso(state.updated_at),
  };
}

export type WebhookEndpoint = ReturnType<typeof presentEndpoint>;
