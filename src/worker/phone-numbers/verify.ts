import { and, eq, sql } from 'drizzle-orm';
import { DomainError, invalid } from '../core/errors.ts';
import { unixNow } from '../core/time.ts';
import type { Ownership, Quota } from '../core/vocabulary.ts';
import { beginAgain, notDone } from '../credentials/store.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations, organizations, phone_numbers } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { confirmAndRead, mayDecide } from '../decision/caller.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { isUnanswered } from '../decision/remembered-answers.ts';
import { accountQuery, askForNumbers, refusalBy } from '../integrations/account.ts';
import type { AccountRow } from '../integrations/account.ts';
import { periodOf } from '../integrations/outcome.ts';
import { isOrganization } from '../organizations/organization.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { ownershipWriter } from './ownership.ts';
import type { OwnershipParameters } from './ownership.ts';
import { isPhoneNumber, noCredentials, phoneNumberColumns, updatedState } from './phone-number.ts';
import type { PhoneNumberState } from './phone-number.ts';

type TargetParameters = MutationParameters & { phone_number_id: string };
type VerifyParameters = TargetParameters & OwnershipParameters;

const findUnanswered = query((db, parameters: Placeholders<TargetParameters>) =>
  db
    .select({ is_unanswered: sql<number>`${isUnanswered(db, parameters)}`.as('is_unanswered') })
    .from(organizations)
    .where(isOrganization(parameters)),
);

const findPhoneNumber = query((db, parameters: Placeholders<TargetParameters>) =>
  db.select(phoneNumberColumns()).from(phone_numbers).where(isPhoneNumber(parameters)),
);

const findItsAccount = accountQuery<TargetParameters>((db, parameters) =>
  and(
    eq(integrations.organization_id, parameters.organization_id),
    eq(
      integrations.integration_id,
      sql`(${db.select({ id: phone_numbers.integration_id }).from(phone_numbers).where(isPhoneNumber(parameters))})`,
    ),
  ),
);

const quotas: Quota[] = ['audit_events'];
const findFull = fullQuota(quotas);

const { record, write } = ownershipWriter<VerifyParameters>(
  (db, parameters) => and(mayDecide('phone_numbers:update', db, parameters), hasRoomFor(quotas)),
  false,
);

const decide = mutation<VerifyParameters, { current: typeof findPhoneNumber }>('phone_numbers:update', {
  statements: [record, write],
  found: { current: findPhoneNumber },
});

/**
 * Asks the account of the number's integration now whether it holds the number, and stores what it says (docs/contract.md,
 * Phone numbers).
 *
 * First D1 confirms the caller, then the provider is asked, then one batch writes the answer, with an event if it is
 * another than before.
 *
 * @returns the phone number; it is unconfirmed if the account does not hold it
 * @throws DomainError `phone_number_not_found`, `validation_failed` for a SIP number, `quota_exceeded`,
 *   `credentials_missing`, `credentials_refused`, `credentials_limited`, `provider_unavailable`, `verification_limited`,
 *   `rate_limited`, `temporarily_unavailable` also if the credentials cannot be read, and the errors of every mutation
 *   (decision/mutation.ts)
 */
export function verifyPhoneNumber(call: ApiCall, phone_number_id: string): Promise<PhoneNumberState> {
  const event = { ...mutationParameters(call), phone_number_id };
  // A number that has moved meanwhile, or whose integration has other credentials, is asked about again.
  return beginAgain(() => attempt(call, event));
}

async function attempt(call: ApiCall, event: TargetParameters): Promise<PhoneNumberState> {
  const {
    organization: [organization],
    number: [number],
    account: [account],
    full,
  } = await confirmAndRead('phone_numbers:update', call, event, {
    organization: findUnanswered.bind(event),
    number: findPhoneNumber.bind(event),
    account: findItsAccount.bind(event),
    full: findFull.bind(event),
  });
  const isUnansweredYet = organization?.is_unanswered === 1;
  if (isUnansweredYet) {
    if (!number) throw new DomainError('phone_number_not_found', {});
    assertRoom(full);
  }
  const asked = isUnansweredYet && number ? await ask(call, number, account) : nothing;
  const answer = await decide(call, { ...event, ...asked, now: unixNow() });
  if (answer.outcome !== 'undecided') return updatedState(answer.event);
  const [current] = answer.found.current;
  if (!current) throw new DomainError('phone_number_not_found', {});
  if (current.ownership !== asked.ownership) throw notDone(noCredentials);
  return current;
}

/** For a call that was answered before: nobody is asked, and nothing is written. */
const nothing = { integration_id: '', asked_version: null, asked_at: null, answers: '{}', due_at: 0, ownership: null };

/** Undefined: the account has the number, but perhaps not for long. */
function ownershipBy(
  phone_number: string,
  held: ReadonlySet<string>,
  absent: ReadonlySet<string>,
): Ownership | undefined {
  if (held.has(phone_number)) return 'confirmed';
  return absent.has(phone_number) ? 'unconfirmed' : undefined;
}

async function ask(call: ApiCall, number: PhoneNumberState, account: AccountRow | undefined) {
  if (!account) {
    throw invalid('phone_number_id', 'must be a number with an integration; nobody can be asked about a SIP number');
  }
  const { phone_number, phone_number_id } = number;
  const { held, absent, outcome } = await askForNumbers(call, account, [phone_number]);
  if (outcome.status !== 'verified') throw refusalBy(outcome);
  const ownership = ownershipBy(phone_number, held, absent) ?? number.ownership;
  return {
    integration_id: account.integration_id,
    asked_version: account.credentials_version,
    asked_at: unixNow(),
    answers: JSON.stringify({ [phone_number_id]: ownership }),
    due_at: unixNow() + periodOf(call.env),
    ownership,
  };
}
