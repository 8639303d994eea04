import { sql } from 'drizzle-orm';
import { DomainError } from '../core/errors.ts';
import { unixNow } from '../core/time.ts';
import { beginAgain } from '../credentials/store.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations, organizations } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { confirmAndRead, mayDecide } from '../decision/caller.ts';
import { changesOf } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { isUnanswered } from '../decision/remembered-answers.ts';
import { isOrganization } from '../organizations/organization.ts';
import { assertRoom, fullQuota } from '../organizations/quotas.ts';
import { accountOf } from '../providers/account.ts';
import { checkCredentials } from '../providers/check.ts';
import { rowOf } from '../providers/providers.ts';
import { openCredentials } from './account.ts';
import { integrationColumns, integrationState, isIntegration } from './integration.ts';
import type { IntegrationState } from './integration.ts';
import { consequencesOf, outcomeWriter } from './outcome.ts';
import type { OutcomeParameters } from './outcome.ts';
import { logRefusal } from './refusals.ts';
import { takeFromBudget, unverified, verificationOf } from './verification.ts';

type StoredRow = typeof integrations.$inferSelect;
type VerifyParameters = MutationParameters & OutcomeParameters;
type TargetParameters = MutationParameters & { integration_id: string };

const findOrganization = query((db, parameters: Placeholders<TargetParameters>) =>
  db
    .select({
      account_salt: sql<string>`coalesce(${organizations.account_salt}, '')`.as('account_salt'),
      checks_stopped_until: organizations.checks_stopped_until,
      is_unanswered: sql<number>`${isUnanswered(db, parameters)}`.as('is_unanswered'),
    })
    .from(organizations)
    .where(isOrganization(parameters)),
);

const findChecked = query((db, parameters: Placeholders<TargetParameters>) =>
  db.select().from(integrations).where(isIntegration(parameters)),
);

const findCurrent = query((db, parameters: Placeholders<VerifyParameters>) =>
  db
    .select({ ...integrationColumns(), check_count: integrations.check_count })
    .from(integrations)
    .where(isIntegration(parameters)),
);

const countRefusals = query((db, parameters: Placeholders<VerifyParameters>) =>
  db
    .select({ refused_check_count: organizations.refused_check_count })
    .from(organizations)
    .where(isOrganization(parameters)),
);

const findFull = fullQuota(['audit_events']);

const { countRefusal, record, write } = outcomeWriter<VerifyParameters>((db, parameters) =>
  mayDecide('integrations:update', db, parameters),
);

const decide = mutation('integrations:update', {
  statements: [countRefusal, record, write],
  found: { current: findCurrent, refusals: countRefusals },
});

/**
 * Asks the provider now whether it accepts the stored credentials, and stores what it says (docs/contract.md,
 * Integrations).
 *
 * First D1 confirms the caller, then the provider is asked, then one batch writes the outcome. It records an event only if
 * the provider refuses what it did not refuse before, or accepts what it had refused.
 *
 * @throws DomainError `integration_not_found`, `quota_exceeded`, `credentials_missing`, `verification_limited`, `rate_limited`,
 *   `temporarily_unavailable` also if the credentials cannot be read, and the errors of every mutation
 *   (decision/mutation.ts)
 */
export async function verifyIntegration(call: ApiCall, integration_id: string): Promise<IntegrationState> {
  const event = { ...mutationParameters(call), integration_id };
  // Credentials that were replaced meanwhile cannot be read, and the new ones can.
  return beginAgain(() => attempt(call, event));
}

async function attempt(call: ApiCall, event: TargetParameters): Promise<IntegrationState> {
  const {
    organization: [organization],
    row: [row],
    full,
  } = await confirmAndRead('integrations:update', call, event, {
    organization: findOrganization.bind(event),
    row: findChecked.bind(event),
    full: findFull.bind(event),
  });
  if (!organization) throw new DomainError('integration_not_found', {});
  if (organization.is_unanswered) {
    if (!row) throw new DomainError('integration_not_found', {});
    assertRoom(full);
  }

  const parameters = row && organization.is_unanswered ? await check(call, event, row, organization) : nothing(event);
  const answer = await decide(call, parameters);
  if (answer.outcome === 'replayed') {
    return integrationState.parse({ ...JSON.parse(answer.event.state), ...changesOf(answer.event) });
  }
  const {
    current: [current],
    refusals,
  } = answer.found;
  if (!current) throw new DomainError('integration_not_found', {});
  const isWritten = current.check_count === parameters.check_count + 1;
  if (row && parameters.counts && isWritten) {
    logRefusal(call.organization_id, row.provider, refusals);
  }
  return current;
}

/** For a call that was answered before: nobody is asked, and nothing is written. */
const nothing = (event: TargetParameters): VerifyParameters => ({
  ...event,
  ...unverified,
  account_hint: null,
  account_fingerprint: null,
  credentials_version: '',
  check_count: -1,
  action: null,
  counts: 0,
  recheck_from: 0,
});

async function check(
  call: ApiCall,
  event: TargetParameters,
  row: StoredRow,
  { account_salt, checks_stopped_until }: { account_salt: string; checks_stopped_until: number },
): Promise<VerifyParameters> {
  const credentials = await openCredentials(call, { ...row, checks_stopped_until });
  await takeFromBudget(call, rowOf(row.provider).checksOf(credentials).length);
  const outcome = await checkCredentials(call.env, row.provider, credentials);
  const now = unixNow();
  const verification = verificationOf(outcome, now, row.last_verdict);
  return {
    ...event,
    now,
    ...(await accountOf(row.provider, credentials, account_salt)),
    ...verification,
    credentials_version: row.credentials_version,
    check_count: row.check_count,
    ...consequencesOf(row.last_verdict, verification.last_verdict),
    recheck_from: now,
  };
}
