import { and, lt, not, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError, invalid } from '../core/errors.ts';
import { optional, withDefault } from '../core/fields.ts';
import { newId } from '../core/ids.ts';
import { text, visibleName } from '../core/text.ts';
import { webhookEventPatterns } from '../core/vocabulary.ts';
import { findKek, isNoOtherKek, isUsableKek } from '../credentials/kek-check.ts';
import { defaultedColumns } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { organizations, webhook_endpoints } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { mayDecide } from '../decision/caller.ts';
import { eventRecorder, hasDecided } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import type { Bindings } from '../env.ts';
import { isOrganization } from '../organizations/organization.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { endpointQuotas, endpointState, isEndpoint, presentEndpoint } from './endpoint.ts';
import type { WebhookEndpoint } from './endpoint.ts';
import { newSecret, storeSecret } from './secrets.ts';
import type { NewSecretParameters } from './secrets.ts';
import { faultOfUrl } from './url.ts';

/** Of one organization. */
const MAX_ENDPOINTS = 10;

const MAX_URL_LENGTH = 2048;

export const endpointFields = () => ({
  url: text(1, MAX_URL_LENGTH).check(z.meta({ format: 'uri' })),
  events: z
    .array(z.enum(webhookEventPatterns))
    .check(
      z.minLength(1, 'must name at least one'),
      z.refine((events) => new Set(events).size === events.length, 'must not name one twice'),
    )
    .register(z.globalRegistry, { minItems: 1, uniqueItems: true }),
});

export const newEndpoint = z.lazy(() =>
  z.strictObject({
    ...endpointFields(),
    description: optional(visibleName(200)),
    enabled: withDefault(z.boolean(), true),
  }),
);

/**
 * @param own a URL of this API
 * @throws DomainError `validation_failed` if events must not be sent to the URL
 */
export function assertUrl(env: Bindings, url: string, own: string): void {
  const fault = faultOfUrl(env, url, own);
  if (fault !== undefined) throw invalid('url', fault);
}

type CreateParameters = MutationParameters &
  NewSecretParameters & { url: string; description: string | null; events: string; enabled: number };

const countEndpoints = sql<number>`(SELECT count(*) FROM ${webhook_endpoints} WHERE ${webhook_endpoints.organization_id} = ${organizations.organization_id})`;

/** It begins with the events that follow. */
const insertEndpoint = query((db, parameters: Placeholders<CreateParameters>) =>
  db.insert(webhook_endpoints).select(
    db
      .select(
        defaultedColumns(webhook_endpoints, {
          organization_id: sql`${organizations.organization_id}`,
          endpoint_id: sql`${parameters.endpoint_id}`,
          url: sql`${parameters.url}`,
          description: sql`${parameters.description}`,
          events: sql`${parameters.events}`,
          enabled: sql`${parameters.enabled}`,
          created_at: sql`${parameters.event_time}`,
          updated_at: sql`${parameters.event_time}`,
          cursor_at: sql`${organizations.last_event_at}`,
          cursor_sequence: sql`${organizations.last_sequence}`,
        }),
      )
      .from(organizations)
      .where(
        and(
          isOrganization(parameters),
          mayDecide('webhooks:create', db, parameters),
          hasRoomFor(endpointQuotas),
          lt(countEndpoints, sql.raw(String(MAX_ENDPOINTS))),
          isNoOtherKek(db, parameters),
          not(hasDecided(db, parameters)),
        ),
      ),
  ),
);

const recordCreation = eventRecorder<CreateParameters>({
  table: webhook_endpoints,
  target_id: webhook_endpoints.endpoint_id,
  action: 'webhook_endpoint.created',
  where: (_, parameters) => isEndpoint(parameters),
});

const countAll = query((db, parameters: Placeholders<CreateParameters>) =>
  db
    .select({ count: countEndpoints.as('count') })
    .from(organizations)
    .where(isOrganization(parameters)),
);

const decide = mutation('webhooks:create', {
  statements: [insertEndpoint, recordCreation, ...storeSecret],
  found: { full: fullQuota(endpointQuotas), counted: countAll, kek: findKek },
});

/**
 * Creates a webhook endpoint (docs/contract.md, Webhook endpoints). It gets the events that follow, once it has answered a
 * test.
 *
 * @param own a URL of this API
 * @returns the endpoint, and its secret, which is shown only in the first response: a repeat under the same Idempotency-Key
 *   does not have it
 * @throws DomainError `validation_failed` for a URL to which no event may be sent, `quota_exceeded`, and the errors of every
 *   mutation (decision/mutation.ts)
 */
export async function createEndpoint(
  call: ApiCall,
  own: string,
  { url, description, events, enabled }: z.output<typeof newEndpoint>,
): Promise<{ secret?: string; endpoint: WebhookEndpoint }> {
  assertUrl(call.env, url, own);
  const endpoint_id = newId('whep');
  const { secret, stored } = await newSecret(call.env, call.organization_id, endpoint_id);
  const answer = await decide(call, {
    ...mutationParameters(call),
    ...stored,
    endpoint_id,
    url,
    description: description ?? null,
    events: JSON.stringify(events),
    enabled: Number(enabled),
  });
  if (answer.outcome === 'undecided') {
    const { full, counted, kek } = answer.found;
    assertRoom(full);
    if ((counted[0]?.count ?? 0) >= MAX_ENDPOINTS) {
      throw new DomainError('quota_exceeded', { quota: 'webhook_endpoints', limit: MAX_ENDPOINTS });
    }
    isUsableKek(stored, kek[0]);
    throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  }
  const endpoint = presentEndpoint(endpointState.parse(JSON.parse(answer.event.state)));
  return answer.outcome === 'replayed' ? { endpoint } : { secret, endpoint };
}
