import { and, desc, eq, isNotNull, ne, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { integer, withDefault } from '../core/fields.ts';
import { SECONDS_A_DAY } from '../core/time.ts';
import { findKek, isNoOtherKek, isUsableKek } from '../credentials/kek-check.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { webhook_endpoints, webhook_secrets } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { confirmAndRead, mayDecide } from '../decision/caller.ts';
import { eventRecorder } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import { fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { endpointQuotas, findEndpoint, isEndpoint } from './endpoint.ts';
import type { WebhookEndpoint } from './endpoint.ts';
import { isSecretOf, newSecret, storeSecret } from './secrets.ts';
import type { NewSecretParameters } from './secrets.ts';
import { changeOf, presentChanged, refuseChange, takeClaim } from './update.ts';
import type { EndpointMutation } from './update.ts';

const MAX_OVERLAP_SECONDS = 7 * SECONDS_A_DAY;

export const secretRotation = z.lazy(() =>
  z.strictObject({ overlap_seconds: withDefault(integer(0, MAX_OVERLAP_SECONDS), SECONDS_A_DAY) }),
);

type RotateParameters = EndpointMutation &
  NewSecretParameters & {
    ends_at: number;
    /** Of the endpoint, when it was read before. */
    seen_revision: number;
  };

const findRevision = query((db, parameters: Placeholders<EndpointMutation>) =>
  db.select({ revision: webhook_endpoints.revision }).from(webhook_endpoints).where(isEndpoint(parameters)),
);

const recordRotation = eventRecorder<RotateParameters>({
  table: webhook_endpoints,
  target_id: webhook_endpoints.endpoint_id,
  action: 'webhook_endpoint.secret_rotated',
  // A late first try would sign with a secret that was shown to nobody: it finds an endpoint that has changed since.
  where: (db, parameters) =>
    and(
      isEndpoint(parameters),
      eq(webhook_endpoints.revision, parameters.seen_revision),
      mayDecide('webhooks:update', db, parameters),
      hasRoomFor(endpointQuotas),
      isNoOtherKek(db, parameters),
    ),
});

const isAsDecided = (db: Builder, parameters: Placeholders<RotateParameters>) =>
  and(isSecretOf(parameters), existsIn(db, webhook_endpoints, changeOf(db, parameters).isAsDecided));

/**
 * Of earlier rotations, whose overlaps may not have ended, the last one's old secret is kept: the answer to that rotation may
 * have been lost, and the receiver knows no newer one.
 */
const removeOldest = query((db, parameters: Placeholders<RotateParameters>) => {
  const kept = db
    .select({ secret_id: webhook_secrets.secret_id })
    .from(webhook_secrets)
    .where(and(isSecretOf(parameters), isNotNull(webhook_secrets.ends_at)))
    .orderBy(desc(webhook_secrets.created_at), desc(webhook_secrets.secret_id))
    .limit(1);
  return db
    .delete(webhook_secrets)
    .where(
      and(
        isAsDecided(db, parameters),
        isNotNull(webhook_secrets.ends_at),
        sql`${webhook_secrets.secret_id} NOT IN ${kept}`,
      ),
    );
});

const endPrevious = query((db, parameters: Placeholders<RotateParameters>) =>
  db
    .update(webhook_secrets)
    .set({ ends_at: sql`min(coalesce(${webhook_secrets.ends_at}, ${parameters.ends_at}), ${parameters.ends_at})` })
    .where(and(isAsDecided(db, parameters), ne(webhook_secrets.secret_id, parameters.secret_id))),
);

/** An attempt that is under way still signs without the new secret. What it leads to does not count. */
const markRotated = query((db, parameters: Placeholders<RotateParameters>) => {
  const { columns, isAsDecided: isEndpointAsDecided } = changeOf(db, parameters);
  return db
    .update(webhook_endpoints)
    .set({ ...columns, ...takeClaim(parameters) })
    .where(isEndpointAsDecided);
});

const decide = mutation('webhooks:update', {
  statements: [recordRotation, removeOldest, ...storeSecret, endPrevious, markRotated],
  found: { endpoint: findEndpoint, full: fullQuota(endpointQuotas), kek: findKek },
});

/**
 * Gives an endpoint a new secret (docs/contract.md, Webhook endpoints). Until the overlap ends, what is sent to it is signed
 * with the old one too.
 *
 * @returns the endpoint, and the secret, which is shown only in the first response: a repeat under the same Idempotency-Key
 *   does not have it
 * @throws DomainError `webhook_endpoint_not_found`, `quota_exceeded`, and the errors of every mutation (decision/mutation.ts)
 */
export async function rotateSecret(
  call: ApiCall,
  endpoint_id: string,
  { overlap_seconds }: z.output<typeof secretRotation>,
): Promise<{ secret?: string; endpoint: WebhookEndpoint }> {
  const event = { ...mutationParameters(call), endpoint_id };
  const { seen } = await confirmAndRead('webhooks:update', call, event, { seen: findRevision.bind(event) });
  const { secret, stored } = await newSecret(call.env, call.organization_id, endpoint_id);
  const ends_at = event.event_time + overlap_seconds;
  const answer = await decide(call, { ...event, ...stored, ends_at, seen_revision: seen[0]?.revision ?? 0 });
  if (answer.outcome === 'undecided') {
    // Logs why not.
    isUsableKek(stored, answer.found.kek[0]);
    refuseChange(answer.found);
  }
  const endpoint = presentChanged(answer.event);
  return answer.outcome === 'replayed' ? { endpoint } : { secret, endpoint };
}
