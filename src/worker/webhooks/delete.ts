import { and } from 'drizzle-orm';
import { DomainError } from '../core/errors.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { webhook_endpoints } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { mayDecide } from '../decision/caller.ts';
import { eventRecorder, hasDecided } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import { endpointState, isEndpoint, presentEndpoint } from './endpoint.ts';
import type { WebhookEndpoint } from './endpoint.ts';
import type { EndpointMutation } from './update.ts';

const recordDeletion = eventRecorder<EndpointMutation>({
  table: webhook_endpoints,
  target_id: webhook_endpoints.endpoint_id,
  action: 'webhook_endpoint.deleted',
  where: (db, parameters) => and(isEndpoint(parameters), mayDecide('webhooks:delete', db, parameters)),
});

/** With its secrets and deliveries, which a trigger deletes. */
const remove = query((db, parameters: Placeholders<EndpointMutation>) =>
  db.delete(webhook_endpoints).where(and(isEndpoint(parameters), hasDecided(db, parameters))),
);

const decide = mutation('webhooks:delete', { statements: [recordDeletion, remove], found: {} });

/**
 * Deletes a webhook endpoint with its secrets (docs/contract.md, Webhook endpoints). Nothing is sent to it any more, except
 * what is under way.
 *
 * @returns the endpoint as it was just before
 * @throws DomainError `webhook_endpoint_not_found`, and the errors of every mutation (decision/mutation.ts)
 */
export async function deleteEndpoint(call: ApiCall, endpoint_id: string): Promise<WebhookEndpoint> {
  const answer = await decide(call, { ...mutationParameters(call), endpoint_id });
  if (answer.outcome === 'undecided') throw new DomainError('webhook_endpoint_not_found', {});
  return presentEndpoint(endpointState.parse(JSON.parse(answer.event.state)));
}
