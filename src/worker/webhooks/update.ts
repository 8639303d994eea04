import { and, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { visibleName } from '../core/text.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { webhook_endpoints } from '../d1/schema.ts';
import type { ApiCall, EventParameters } from '../decision/call.ts';
import { mayDecide } from '../decision/caller.ts';
import { changesOf, eventRecorder, updateTime } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { Decision, MutationParameters } from '../decision/mutation.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { assertUrl, endpointFields } from './create.ts';
import {
  endpointQuotas,
  endpointState,
  findEndpoint,
  isEndpoint,
  isEndpointAsDecided,
  presentEndpoint,
} from './endpoint.ts';
import type { EndpointState, WebhookEndpoint } from './endpoint.ts';

export const endpointChanges = z.lazy(() => {
  const { url, events } = endpointFields();
  return z
    .strictObject({
      url: z.exactOptional(url),
      events: z.exactOptional(events),
      description: z.exactOptional(z.nullable(visibleName(200))),
      enabled: z.exactOptional(z.boolean()),
    })
    .check(
      z.refine(
        (changes) => Object.keys(changes).length > 0,
        'must have at least one of url, events, description, enabled',
      ),
    );
});

type UpdateParameters = MutationParameters & {
  endpoint_id: string;
  url: string | null;
  events: string | null;
  description: string | null;
  enabled: number | null;
  /** Whether the description is among the changes: it can be set to null. */
  describes: number;
};

/** Another URL must answer a test, as that of a new endpoint must. */
const newColumns = ({ url, events, description, enabled, describes }: Placeholders<UpdateParameters>) => ({
  url: sql<string>`coalesce(${url}, ${webhook_endpoints.url})`,
  events: sql<string>`coalesce(${events}, ${webhook_endpoints.events})`,
  description: sql<string | null>`iif(${describes}, ${description}, ${webhook_endpoints.description})`,
  enabled: sql<number>`coalesce(${enabled}, ${webhook_endpoints.enabled})`,
  verified_at: sql<
    number | null
  >`iif(coalesce(${url}, ${webhook_endpoints.url}) = ${webhook_endpoints.url}, ${webhook_endpoints.verified_at}, NULL)`,
});

const recordUpdate = eventRecorder<UpdateParameters>({
  table: webhook_endpoints,
  target_id: webhook_endpoints.endpoint_id,
  action: 'webhook_endpoint.updated',
  where: (db, parameters) =>
    and(isEndpoint(parameters), mayDecide('webhooks:update', db, parameters), hasRoomFor(endpointQuotas)),
  changes: newColumns,
});

/** An attempt that is under way is over by then. */
const ATTEMPT_SECONDS = sql.raw('12');

/** Takes the endpoint from whoever sends to it now. The next turn begins only when the attempt that is under way is over. */
export const takeClaim = ({ now }: Placeholders<{ now: number }>) => ({
  claim: sql`NULL`,
  claimed_until: sql`min(${webhook_endpoints.claimed_until}, ${now} + ${ATTEMPT_SECONDS})`,
});

/** Lets the endpoint be tried at once, whatever has failed before. */
export const startAfresh = {
  resting_until: sql`0`,
  failing_since: sql`NULL`,
  last_error: sql`NULL`,
  failed_attempt_count: sql`0`,
};

export type EndpointMutation = MutationParameters & { endpoint_id: string };

/** Selects the endpoint, if it is as the event that decides saw it; and what every change of it sets. */
export const changeOf = (db: Builder, parameters: Placeholders<EventParameters & { endpoint_id: string }>) => ({
  columns: {
    updated_at: updateTime(db, parameters, webhook_endpoints.updated_at),
    revision: sql`${webhook_endpoints.revision} + 1`,
  },
  isAsDecided: isEndpointAsDecided(db, parameters),
});

const update = query((db, parameters: Placeholders<UpdateParameters>) => {
  const { columns, isAsDecided } = changeOf(db, parameters);
  return db
    .update(webhook_endpoints)
    .set({ ...newColumns(parameters), ...startAfresh, ...takeClaim(parameters), ...columns })
    .where(isAsDecided);
});

const decide = mutation('webhooks:update', {
  statements: [recordUpdate, update],
  found: { endpoint: findEndpoint, full: fullQuota(endpointQuotas) },
});

/**
 * The endpoint as a change left it, as clients see it. A repeated request gets the same answer, whatever has become of the
 * endpoint since.
 *
 * @param set what the change set beside its event's changes
 */
export function presentChanged(event: Decision, set: Partial<EndpointState> = {}): WebhookEndpoint {
  const before = endpointState.parse(JSON.parse(event.state));
  const updated_at = Math.max(before.updated_at, event.created_at);
  return presentEndpoint(endpointState.parse({ ...before, updated_at, ...set, ...changesOf(event) }));
}

/** What {@link startAfresh} sets, of what clients see. */
export const afresh = { failing_since: null, last_error: null };

/**
 * Why an endpoint was not changed.
 *
 * @throws DomainError `webhook_endpoint_not_found`, `quota_exceeded`, `temporarily_unavailable`
 */
export function refuseChange({
  endpoint,
  full,
}: {
  endpoint: unknown[];
  full: Parameters<typeof assertRoom>[0];
}): never {
  if (endpoint.length === 0) throw new DomainError('webhook_endpoint_not_found', {});
  assertRoom(full);
  throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
}

/**
 * Changes a webhook endpoint (docs/contract.md, Webhook endpoints). Its deliveries begin afresh: what failed before does not
 * hold them up.
 *
 * @param own a URL of this API
 * @returns the endpoint after the update
 * @throws DomainError `webhook_endpoint_not_found`, `validation_failed` for a URL to which no event may be sent,
 *   `quota_exceeded`, and the errors of every mutation (decision/mutation.ts)
 */
export async function updateEndpoint(
  call: ApiCall,
  own: string,
  endpoint_id: string,
  { url, events, description, enabled }: z.output<typeof endpointChanges>,
): Promise<WebhookEndpoint> {
  if (url !== undefined) assertUrl(call.env, url, own);
  const answer = await decide(call, {
    ...mutationParameters(call),
    endpoint_id,
    url: url ?? null,
    events: events ? JSON.stringify(events) : null,
    description: description ?? null,
    describes: Number(description !== undefined),
    enabled: enabled === undefined ? null : Number(enabled),
  });
  if (answer.outcome === 'undecided') refuseChange(answer.found);
  return presentChanged(answer.event, afresh);
}
