import { and, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { rfc3339InQuery, unixNow } from '../core/time.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { webhook_endpoints } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { confirmAndRead, mayDecide } from '../decision/caller.ts';
import { eventRecorder } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import { fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { endpointQuotas, findEndpoint, isEndpoint } from './endpoint.ts';
import type { WebhookEndpoint } from './endpoint.ts';
import { readsForLimit, countAgainstLimit } from './test-limit.ts';
import { afresh, changeOf, presentChanged, refuseChange, startAfresh, takeClaim } from './update.ts';
import type { EndpointMutation } from './update.ts';

export const replayQuery = z.lazy(() =>
  z.strictObject({
    since: rfc3339InQuery().check(z.refine((time) => time <= unixNow(), 'must not be in the future')),
  }),
);

type ReplayParameters = EndpointMutation & { since: number };

/** Only back: what is between the place that it has reached and a later time is yet to be sent. */
const newTime = ({ since }: Placeholders<ReplayParameters>) => ({
  cursor_at: sql<number>`min(${webhook_endpoints.cursor_at}, ${since})`,
});

const recordReplay = eventRecorder<ReplayParameters>({
  table: webhook_endpoints,
  target_id: webhook_endpoints.endpoint_id,
  action: 'webhook_endpoint.replayed',
  where: (db, parameters) =>
    and(isEndpoint(parameters), mayDecide('webhooks:update', db, parameters), hasRoomFor(endpointQuotas)),
  changes: newTime,
});

const moveBack = query((db, parameters: Placeholders<ReplayParameters>) => {
  const { columns, isAsDecided } = changeOf(db, parameters);
  return db
    .update(webhook_endpoints)
    .set({
      ...newTime(parameters),
      cursor_sequence: sql`iif(${parameters.since} <= ${webhook_endpoints.cursor_at}, -1, ${webhook_endpoints.cursor_sequence})`,
      ...startAfresh,
      ...takeClaim(parameters),
      ...columns,
    })
    .where(isAsDecided);
});

const decide = mutation('webhooks:update', {
  statements: [recordReplay, moveBack],
  found: { endpoint: findEndpoint, full: fullQuota(endpointQuotas) },
});

/**
 * Sends an endpoint's events once more, from a time on (docs/contract.md, Webhook endpoints). They have the same ids as
 * before.
 *
 * @returns the endpoint, at the place from which it sends
 * @throws DomainError `webhook_endpoint_not_found`, `rate_limited`, `quota_exceeded`, and the errors of every mutation
 *   (decision/mutation.ts)
 */
export async function replayEvents(
  call: ApiCall,
  endpoint_id: string,
  { since }: z.output<typeof replayQuery>,
): Promise<WebhookEndpoint> {
  const event = { ...mutationParameters(call), endpoint_id };
  await countAgainstLimit(call, await confirmAndRead('webhooks:update', call, event, readsForLimit(event)));
  const answer = await decide(call, { ...event, since });
  if (answer.outcome === 'undecided') refuseChange(answer.found);
  return presentChanged(answer.event, afresh);
}
