/** Tests and replays, and the tests that endpoints get by themselves: an organization must not use us to flood a server. */
import { DomainError } from '../core/errors.ts';
import { passes } from '../core/rate-limiter.ts';
import { spread } from '../core/retry.ts';
import type { ApiCall } from '../decision/call.ts';

/** As wrangler.toml has them. */
export const webhookTestLimit = { binding: 'WEBHOOK_TEST_LIMIT', requests: 10, period_seconds: 60 } as const;

/** @throws DomainError `rate_limited` */
export async function takeTest({ env, organization_id, told }: ApiCall): Promise<void> {
  const { binding, requests, period_seconds } = webhookTestLimit;
  if (await passes(env[binding], organization_id)) return;
  told.exhausted = { name: 'webhook_tests', calls: requests, period_seconds };
  throw new DomainError('rate_limited', { retry_after_seconds: spread(period_seconds) });
}
