/**
 * Limits how often an organization's calls reach a provider. So nobody can use us to try stolen credentials on a provider,
 * or to flood it.
 */
import { passes } from '../core/rate-limiter.ts';
import type { Tier } from '../core/vocabulary.ts';
import type { Bindings } from '../env.ts';

/** The binding's period. */
export const BUDGET_PERIOD_SECONDS = 60;

/** Checks of credentials of one organization in a period. `test/http/rate-limit.test.ts` compares them with wrangler.toml. */
export const providerLimits = {
  starter: { binding: 'STARTER_PROVIDER_LIMIT', requests: 30 },
  pro: { binding: 'PRO_PROVIDER_LIMIT', requests: 100 },
  enterprise: { binding: 'ENTERPRISE_PROVIDER_LIMIT', requests: 600 },
} as const satisfies Record<Tier, { binding: keyof Bindings; requests: number }>;

/** Whether the organization may make so many calls that reach a provider. */
export async function isWithinBudget(
  env: Bindings,
  { organization_id, tier }: { organization_id: string; tier: Tier },
  calls: number,
): Promise<boolean> {
  const limiter = env[providerLimits[tier].binding];
  for (let call = 0; call < calls; call += 1) {
    if (!(await passes(limiter, organization_id))) return false;
  }
  return true;
}
