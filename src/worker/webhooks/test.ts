import { and, eq, isNotNull, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
import { unixNow } from '../core/time.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { webhook_endpoints } from '../d1/schema.ts';
import type { ApiCall, EventParameters } from '../decision/call.ts';
import { confirmAndRead, mayDecide } from '../decision/caller.ts';
import { eventRecorder } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import type { Bindings } from '../env.ts';
import { fullQuota } from '../organizations/quotas.ts';
import { endpointQuotas, findEndpoint, isEndpoint } from './endpoint.ts';
import type { WebhookEndpoint } from './endpoint.ts';
import { findSecrets, openSecrets } from './secrets.ts';
import { send, testMessage } from './send.ts';
import { readsForLimit, countAgainstLimit } from './test-limit.ts';
import { afresh, changeOf, presentChanged, refuseChange, startAfresh, takeClaim } from './update.ts';

/** What came of a test. */
export interface TestOutcome {
  url: string;
  /** Null: none was sent. */
  tested_at: number | null;
  test_response_status: number | null;
  test_duration_ms: number | null;
  test_error: string | null;
}

export type TestedParameters = EventParameters &
  TestOutcome & {
    endpoint_id: string;
    /** The claim of the turn that has tested. Null: a call has, and takes the endpoint from whoever sends to it now. */
    kept_claim: string | null;
  };

const newColumns = (parameters: Placeholders<TestOutcome>) => ({
  verified_at: sql<
    number | null
  >`coalesce(${webhook_endpoints.verified_at}, iif(${parameters.test_error} IS NULL, ${parameters.tested_at}, NULL))`,
  tested_at: sql<number>`${parameters.tested_at}`,
  test_response_status: sql<number | null>`${parameters.test_response_status}`,
  test_duration_ms: sql<number>`${parameters.test_duration_ms}`,
  test_error: sql<string | null>`${parameters.test_error}`,
});

/** Predicate: a test was sent, and to the URL that the endpoint still has. */
const isOfUrl = ({ url, tested_at }: Placeholders<TestOutcome>) =>
  and(eq(webhook_endpoints.url, url), isNotNull(tested_at));

/** Makes the statement that records what came of a test. */
export const testRecorder = <Given extends TestedParameters>(
  where: (db: Builder, parameters: Placeholders<Given>) => SQL | undefined,
) =>
  eventRecorder<Given>({
    table: webhook_endpoints,
    target_id: webhook_endpoints.endpoint_id,
    action: 'webhook_endpoint.tested',
    where: (db, parameters) => and(isEndpoint(parameters), isOfUrl(parameters), where(db, parameters)),
    changes: newColumns,
  });

const unlessFailed = (value: SQL, column: SQLiteColumn, { test_error }: Placeholders<TestOutcome>) =>
  sql`iif(${test_error} IS NULL, ${value}, ${column})`;

/** A receiver that answers is tried at once, whatever has failed before. */
export const writeTest = query((db, parameters: Placeholders<TestedParameters>) => {
  const { columns, isAsDecided } = changeOf(db, parameters);
  const { resting_until, failing_since, last_error, failed_attempt_count } = startAfresh;
  return db
    .update(webhook_endpoints)
    .set({
      ...newColumns(parameters),
      claim: sql`${parameters.kept_claim}`,
      claimed_until: sql`iif(${parameters.kept_claim} IS NULL, ${takeClaim(parameters).claimed_until}, ${webhook_endpoints.claimed_until})`,
      resting_until: unlessFailed(resting_until, webhook_endpoints.resting_until, parameters),
      failing_since: unlessFailed(failing_since, webhook_endpoints.failing_since, parameters),
      last_error: unlessFailed(last_error, webhook_endpoints.last_error, parameters),
      failed_attempt_count: unlessFailed(failed_attempt_count, webhook_endpoints.failed_attempt_count, parameters),
      ...columns,
    })
    .where(isAsDecided);
});

type TestParameters = MutationParameters & TestedParameters;

const record = testRecorder<TestParameters>((db, parameters) => mayDecide('webhooks:update', db, parameters));

const decide = mutation('webhooks:update', {
  statements: [record, writeTest],
  found: { endpoint: findEndpoint, full: fullQuota(endpointQuotas) },
});

/**
 * Sends a test to an endpoint, also to a disabled one, and waits for the answer (docs/contract.md, Webhook endpoints).
 *
 * @returns the endpoint, with what came of the test
 * @throws DomainError `webhook_endpoint_not_found`, `rate_limited`, `quota_exceeded`, and the errors of every mutation
 *   (decision/mutation.ts)
 */
export async function testEndpoint(call: ApiCall, endpoint_id: string): Promise<WebhookEndpoint> {
  const event = { ...mutationParameters(call), endpoint_id };
  const { secrets, ...read } = await confirmAndRead('webhooks:update', call, event, {
    ...readsForLimit(event),
    secrets: findSecrets.bind(event),
  });
  const endpoint = await countAgainstLimit(call, read);
  const outcome = endpoint ? await test(call.env, endpoint, await openSecrets(call.env, endpoint, secrets)) : untested;
  const answer = await decide(call, { ...event, ...outcome, kept_claim: null });
  if (answer.outcome === 'undecided') refuseChange(answer.found);
  const changed = presentChanged(answer.event);
  return changed.last_test?.succeeded === true ? presentChanged(answer.event, afresh) : changed;
}

const untested: TestOutcome = {
  url: '',
  tested_at: null,
  test_response_status: null,
  test_duration_ms: null,
  test_error: null,
};

/** Sends a test. It throws nothing. */
export async function test(
  env: Bindings,
  { organization_id, endpoint_id, url }: { organization_id: string; endpoint_id: string; url: string },
  secrets: CryptoKey[],
): Promise<TestOutcome> {
  const attempt = await send(env, url, secrets, testMessage(organization_id, endpoint_id));
  return {
    url,
    tested_at: unixNow(),
    test_response_status: attempt.response_status,
    test_duration_ms: attempt.duration_ms,
    test_error: attempt.error,
  };
}
