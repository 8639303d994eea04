/** Tests and replays, and the tests that endpoints get by themselves: an organization must not use us to flood a server. */
import { and, sql } from 'drizzle-orm';
import { DomainError } from '../core/errors.ts';
import { passes } from '../core/rate-limiter.ts';
import { spread } from '../core/retry.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { organizations } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { isUnanswered } from '../decision/remembered-answers.ts';
import { isOrganization } from '../organizations/organization.ts';
import { assertRoom, fullQuota } from '../organizations/quotas.ts';
import { endpointQuotas, findEndpoint } from './endpoint.ts';
import type { EndpointState } from './endpoint.ts';
import type { EndpointMutation } from './update.ts';

/** The same numbers as in wrangler.toml. */
export const webhookTestLimit = { binding: 'WEBHOOK_TEST_LIMIT', requests: 10, period_seconds: 60 } as const;

const findFull = fullQuota(endpointQuotas);

const findUnanswered = query((db, parameters: Placeholders<MutationParameters>) =>
  db
    .select({ one: sql`1`.as('one') })
    .from(organizations)
    .where(and(isOrganization(parameters), isUnanswered(db, parameters))),
);

/** What {@link countAgainstLimit} has to know. */
export const readsForLimit = (event: EndpointMutation) => ({
  endpoint: findEndpoint.bind(event),
  full: findFull.bind(event),
  unanswered: findUnanswered.bind(event),
});

interface Read {
  endpoint: EndpointState[];
  full: Parameters<typeof assertRoom>[0];
  unanswered: unknown[];
}

/**
 * Counts a call against the limit, unless it is wrong otherwise.
 *
 * @returns the endpoint; undefined for a call that has been answered before, which does nothing
 * @throws DomainError `webhook_endpoint_not_found`, `quota_exceeded`, `rate_limited`
 */
export async function countAgainstLimit(
  { env, organization_id, told }: ApiCall,
  { endpoint: [endpoint], full, unanswered }: Read,
): Promise<EndpointState | undefined> {
  if (unanswered.length === 0) return undefined;
  if (!endpoint) throw new DomainError('webhook_endpoint_not_found', {});
  assertRoom(full);
  const { binding, requests, period_seconds } = webhookTestLimit;
  if (await passes(env[binding], organization_id)) return endpoint;
  told.exhausted = { name: 'webhook_tests', calls: requests, period_seconds };
  throw new DomainError('rate_limited', { retry_after_seconds: spread(period_seconds) });
}
