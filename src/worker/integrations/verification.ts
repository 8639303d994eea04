/** What a row stores of the last check of its credentials, and the check that comes before credentials are stored. */
import { holderOf } from '../callers/key-cache.ts';
import { DomainError } from '../core/errors.ts';
import { spread } from '../core/retry.ts';
import { unixNow } from '../core/time.ts';
import type { Provider, Verdict, VerificationStatus } from '../core/vocabulary.ts';
import type { Credentials } from '../credentials/envelope.ts';
import { cancelIntent, intentStands } from '../credentials/outbox.ts';
import type { IntentParameters } from '../credentials/outbox.ts';
import type { Begun } from '../credentials/store.ts';
import { batch, beforeDecision } from '../d1/batch.ts';
import type { integrations } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { accountOf } from '../providers/account.ts';
import type { Account } from '../providers/account.ts';
import { BUDGET_PERIOD_SECONDS, isWithinBudget, providerLimits } from '../providers/budget.ts';
import { checkCredentials } from '../providers/check.ts';
import type { CheckOutcome } from '../providers/check.ts';
import { rowOf } from '../providers/providers.ts';
import { assertNotStopped, logRefusal, refusalCounter } from './refusals.ts';

/** The columns of the last check that clients see, and that events record. */
export const shownColumns = [
  'verification_status',
  'verification_checked_at',
  'verification_provider_status',
  'verification_provider_code',
] as const;

/** The columns that a check sets. */
export type Verification = Pick<typeof integrations.$inferSelect, (typeof shownColumns)[number] | 'last_verdict'>;

/** Of credentials that nobody was asked about. */
export const unverified: Verification = {
  verification_status: 'unverified',
  verification_checked_at: null,
  verification_provider_status: null,
  verification_provider_code: null,
  last_verdict: null,
};

const verdicts: { [Status in VerificationStatus]?: Verdict } = {
  verified: 'accepted',
  limited: 'accepted',
  refused: 'refused',
};

/** @param before the last verdict on the same credentials */
export function verificationOf(
  { status, provider_status, provider_code }: CheckOutcome,
  now: number,
  before: Verdict | null,
): Verification {
  return {
    verification_status: status,
    verification_checked_at: status === 'unverified' ? null : now,
    verification_provider_status: provider_status,
    verification_provider_code: provider_code,
    last_verdict: verdicts[status] ?? before,
  };
}

/**
 * Takes so many calls to a provider from the organization's budget.
 *
 * @throws DomainError `rate_limited`
 */
export async function takeFromBudget(call: ApiCall, count: number): Promise<void> {
  const caller = holderOf(call);
  if (await isWithinBudget(call.env, caller, count)) return;
  const calls = providerLimits[caller.tier].requests;
  call.told.exhausted = { name: `${caller.tier}_provider`, calls, period_seconds: BUDGET_PERIOD_SECONDS };
  throw new DomainError('rate_limited', { retry_after_seconds: spread(BUDGET_PERIOD_SECONDS) });
}

/** What is stored of the account that an integration is of. */
export type UsedAccount = Account & Pick<Begun, 'phone_number_count'>;

/**
 * Other numbers belong to another account.
 *
 * @throws DomainError `provider_account_differs` if phone numbers use the integration, and the accounts are known to
 *   differ
 */
export function assertSameAccount(
  { account_hint, account_fingerprint, phone_number_count }: UsedAccount,
  wanted: Pick<Account, 'account_fingerprint'>,
): void {
  const areKnown = account_fingerprint !== null && wanted.account_fingerprint !== null;
  if (areKnown && account_fingerprint !== wanted.account_fingerprint && phone_number_count > 0) {
    throw new DomainError('provider_account_differs', { account_hint });
  }
}

type Checked = Verification & Account;

const countRefusal = refusalCounter<IntentParameters & { now: number }>(intentStands);

/**
 * Checks new credentials with their provider, after the intent to store them and before the put. So only a caller whom D1
 * has just confirmed reaches a provider, and what the provider refuses is never stored.
 *
 * @param asks whether the provider is asked at all
 */
export function checkBeforePut(call: ApiCall, provider: Provider, credentials: Credentials, asks: boolean) {
  const { env, organization_id } = call;
  let checked: Checked | undefined;

  /** @throws DomainError what stands against the check */
  async function assertMayBeChecked(begun: Begun, account: Account): Promise<void> {
    assertSameAccount(begun, account);
    if (!asks) return;
    assertNotStopped(call, begun.checks_stopped_until, unixNow());
    await takeFromBudget(call, rowOf(provider).checksOf(credentials).length);
  }

  async function check({ kv_key }: Begun): Promise<Verification> {
    const outcome = await checkCredentials(env, provider, credentials);
    const now = unixNow();
    if (outcome.status !== 'refused') return verificationOf(outcome, now, null);
    const intent = { organization_id, kv_key, now };
    const [counted] = await beforeDecision(batch(env.DB, [countRefusal.bind(intent), cancelIntent.bind(intent)]));
    logRefusal(organization_id, provider, counted);
    const { provider_status, provider_code } = outcome;
    throw new DomainError('credentials_refused', { provider_status, provider_code });
  }

  return {
    /**
     * It asks once, however often the put is tried. If it throws, the intent is cancelled.
     *
     * @throws DomainError `provider_account_differs`, `verification_limited`, `rate_limited`, `credentials_refused`,
     *   `temporarily_unavailable` (`not_done`)
     */
    beforePut: async (begun: Begun): Promise<void> => {
      if (checked) return;
      const account = await accountOf(provider, credentials, begun.account_salt);
      await assertMayBeChecked(begun, account).catch(async (error: unknown) => {
        await beforeDecision(batch(env.DB, [cancelIntent.bind({ organization_id, kv_key: begun.kv_key })]));
        throw error;
      });
      checked = { ...account, ...(asks ? await check(begun) : unverified) };
    },
    /** For the batch that decides. Without an intent, that batch does nothing. */
    columns: (): Checked => checked ?? { ...unverified, account_hint: null, account_fingerprint: null },
  };
}
