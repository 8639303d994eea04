/** An integration's account at its provider, as a client's call asks it for phone numbers. */
import { eq, getTableColumns, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import { holderOf } from '../callers/key-cache.ts';
import { DomainError } from '../core/errors.ts';
import { unixNow } from '../core/time.ts';
import type { OpenedCredentials } from '../credentials/envelope.ts';
import { readCredentials } from '../credentials/read.ts';
import { notDone } from '../credentials/store.ts';
import { batch, beforeDecision } from '../d1/batch.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { integrations, organizations } from '../d1/schema.ts';
import { eventParameters } from '../decision/call.ts';
import type { ApiCall, Call } from '../decision/call.ts';
import type { Bindings } from '../env.ts';
import { findHoldings } from '../providers/account-numbers.ts';
import type { Holdings } from '../providers/account-numbers.ts';
import { accountOf } from '../providers/account.ts';
import { isWithinBudget } from '../providers/budget.ts';
import type { CheckOutcome } from '../providers/check.ts';
import { exchange } from '../providers/exchange.ts';
import type { ProviderRequest } from '../providers/providers.ts';
import { isIntegration } from './integration.ts';
import { outcomeWriter, periodOf, unaskedOutcome } from './outcome.ts';
import type { OutcomeParameters } from './outcome.ts';
import { assertNotStopped, logRefusal } from './refusals.ts';
import { takeFromBudget } from './verification.ts';

/** Makes the query of one integration, with what its organization says of checks. */
export const accountQuery = <Parameters extends object>(
  isAccount: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined,
) =>
  query((db, parameters: Placeholders<Parameters>) =>
    db
      .select({
        ...getTableColumns(integrations),
        account_salt: sql<string>`coalesce(${organizations.account_salt}, '')`.as('account_salt'),
        checks_stopped_until: organizations.checks_stopped_until,
        tier: organizations.tier,
      })
      .from(integrations)
      .innerJoin(organizations, eq(organizations.organization_id, integrations.organization_id))
      .where(isAccount(db, parameters)),
  );

export const findAccount = accountQuery<{ organization_id: string; integration_id: string }>((_, parameters) =>
  isIntegration(parameters),
);

export type AccountRow = typeof integrations.$inferSelect &
  Pick<typeof organizations.$inferSelect, 'tier' | 'checks_stopped_until'> & { account_salt: string };

/**
 * The credentials of an integration, to ask its provider now.
 *
 * @throws DomainError `credentials_missing`, `verification_limited`, and `temporarily_unavailable` if they cannot be read:
 *   they may have been replaced meanwhile, so the caller must run in `beginAgain`
 */
export async function openCredentials(
  call: ApiCall,
  row: typeof integrations.$inferSelect & Pick<AccountRow, 'checks_stopped_until'>,
): Promise<OpenedCredentials> {
  if (row.status === 'credentials_missing') throw new DomainError('credentials_missing', {});
  assertNotStopped(call, row.checks_stopped_until, unixNow());
  const { credentials } = await readCredentials(call, { ...row, subject_id: row.integration_id });
  if (!credentials) throw notDone({ kv_key: null });
  return credentials;
}

const { countRefusal, record, write } = outcomeWriter<OutcomeParameters>(() => eq(organizations.status, 'active'));

/** Why a call cannot go on: the provider did not answer what it was asked. */
export function refusalBy({ status, provider_status, provider_code }: CheckOutcome): DomainError {
  if (status === 'refused') return new DomainError('credentials_refused', { provider_status, provider_code });
  if (status === 'limited') return new DomainError('credentials_limited', { provider_status, provider_code });
  return new DomainError('provider_unavailable', {});
}

/**
 * If the provider refused the credentials, writes so as the cron would, unless the cron is about to find out, or has.
 *
 * @throws DomainError `temporarily_unavailable` (`not_done`), also if the credentials were replaced meanwhile: then the
 *   refusal was not counted, and so must not be told
 */
export async function noteRefusal(
  call: Call & { env: Bindings },
  row: AccountRow,
  credentials: OpenedCredentials,
  outcome: CheckOutcome,
): Promise<void> {
  if (outcome.status !== 'refused' || row.last_verdict === 'doubted' || row.last_verdict === 'refused') return;
  const parameters = {
    ...eventParameters(call),
    ...row,
    ...(await accountOf(row.provider, credentials, row.account_salt)),
    ...unaskedOutcome(row, outcome, periodOf(call.env)),
  };
  const [counted] = await beforeDecision(
    batch(call.env.DB, [countRefusal.bind(parameters), record.bind(parameters), write.bind(parameters)]),
  );
  if (row.last_verdict === null && counted.length === 0) throw notDone({ kv_key: null });
  logRefusal(call.organization_id, row.provider, counted);
}

/**
 * Asks an account which of these numbers it holds, within the organization's budget. What the budget leaves open stays
 * open.
 *
 * @throws DomainError `credentials_missing`, `credentials_refused`, `verification_limited`, `rate_limited`, and
 *   `temporarily_unavailable` as {@link openCredentials}
 */
export async function askForNumbers(
  call: ApiCall,
  row: AccountRow,
  phone_numbers: readonly string[],
): Promise<Holdings> {
  const { env } = call;
  const { provider } = row;
  const credentials = await openCredentials(call, row);
  await takeFromBudget(call, 1);
  let calls = 0;
  let isBudgetSpent = false;
  const ask = async (request: ProviderRequest) => {
    calls += 1;
    const isPaid = calls === 1 || (await isWithinBudget(env, holderOf(call), 1));
    isBudgetSpent ||= !isPaid;
    return isPaid ? exchange(env, provider, request) : undefined;
  };
  const holdings = await findHoldings({ provider, credentials, ask }, phone_numbers);
  await noteRefusal(call, row, credentials, holdings.outcome);
  if (holdings.outcome.status === 'refused') throw refusalBy(holdings.outcome);
  return { ...holdings, isCut: holdings.isCut || isBudgetSpent };
}
