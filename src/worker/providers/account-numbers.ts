/** Asks an account for its phone numbers. */
import * as z from 'zod/mini';
import { atOnce } from '../core/at-once.ts';
import { MAX_CONNECTIONS } from '../core/connections.ts';
import { parseJson } from '../core/json.ts';
import type { Provider } from '../core/vocabulary.ts';
import type { Credentials } from '../credentials/envelope.ts';
import { judge } from './check.ts';
import type { CheckOutcome } from './check.ts';
import type { ProviderAnswer } from './exchange.ts';
import { numbersOf } from './numbers.ts';
import type { NumbersPage, Place } from './numbers.ts';
import { rowOf } from './providers.ts';
import type { ProviderRequest } from './providers.ts';

/** An account that can be asked. */
export interface Account {
  provider: Provider;
  credentials: Credentials;
  /** Sends a call to the provider; undefined if there was no answer, or no call. */
  ask: (request: ProviderRequest) => Promise<ProviderAnswer | undefined>;
}

const MAX_CALLS = 50;
/** A call that is under way then lasts 5 seconds more at most. */
const NO_CALL_AFTER_MILLISECONDS = 15_000;
/** Two connections to spare, for D1 and KV. */
const CALLS_AT_ONCE = MAX_CONNECTIONS - 2;

/** Twilio's Auth Token may do more than its API key may. */
function requestOf({ provider, credentials }: Account, path: string): ProviderRequest {
  const check = rowOf(provider).checksOf(credentials).at(-1);
  return { origin: '', authorization: '', ...check, path };
}

/** A page of the account's numbers; `page` is undefined if there is none, and `outcome` says why. */
export async function listPage(
  account: Account,
  place: Place,
  size: number,
): Promise<{ outcome: CheckOutcome; page?: NumbersPage | undefined }> {
  const { provider, credentials } = account;
  const { pathOf, pageOf } = numbersOf[provider];
  const answer = await account.ask(requestOf(account, pathOf(credentials, place, size)));
  const { outcome, data: page } = judge(provider, answer, pageOf(place, size));
  // A list that is shorter than what it shows says nothing about what it does not show.
  const isShort = page && page.pages !== null && page.numbers.length > 0 && page.pages <= place.page;
  return isShort ? { outcome: { ...outcome, status: 'unreachable' } } : { outcome, page };
}

/** Plivo's answer for a number that the account does not have. */
const isNotThere = z.object({ error: z.string() });

/** What one call says of a number: `isHeld` is undefined if it says nothing, and `outcome` says why. */
async function lookUp(
  account: Account,
  path: string,
  phone_number: string,
): Promise<{ outcome: CheckOutcome; isHeld?: boolean | undefined }> {
  const { provider } = account;
  const answer = await account.ask(requestOf(account, path));
  const { outcome, data: found } = judge(provider, answer, numbersOf[provider].one);
  if (found) {
    const number = found.find((other) => other.phone_number === phone_number);
    return { outcome, isHeld: number ? number.isSure || undefined : false };
  }
  const isGone =
    provider === 'plivo' && answer?.status === 404 && isNotThere.safeParse(parseJson(answer.body ?? '')).success;
  return isGone ? { outcome: { ...outcome, status: 'verified' }, isHeld: false } : { outcome };
}

export interface Holdings {
  /** Of the numbers in question, those that the account has. */
  held: ReadonlySet<string>;
  /** Those that it does not have. The others stay open, and so do those that it may not hold for long. */
  absent: ReadonlySet<string>;
  /** `verified`, or that of the answer which left numbers open. */
  outcome: CheckOutcome;
  /** Whether numbers stay open because our own limits ended the questions, and not because the provider did not say. */
  isCut: boolean;
}

/**
 * Finds out which of these numbers an account holds: by listing its numbers or one by one, whichever is fewer calls as far
 * as is known, in at most 50 calls and 20 seconds. It ends early with the first answer that says nothing.
 */
export async function findHoldings(account: Account, phone_numbers: readonly string[]): Promise<Holdings> {
  const { pageSize, onePathsOf } = numbersOf[account.provider];
  const open = new Set(phone_numbers);
  const held = new Set<string>();
  const absent = new Set<string>();
  const end = Date.now() + NO_CALL_AFTER_MILLISECONDS;
  let calls = 0;
  let outcome: CheckOutcome = { status: 'verified', provider_status: null, provider_code: null };
  const mayCall = () => outcome.status === 'verified' && calls < MAX_CALLS && Date.now() < end;

  let isListing = open.size > 1;
  for (let place: Place = { page: 0 }; isListing && mayCall();) {
    calls += 1;
    const { outcome: said, page } = await listPage(account, place, pageSize);
    outcome = said;
    if (!page) break;
    for (const { phone_number, isSure } of page.numbers) {
      if (open.delete(phone_number) && isSure) held.add(phone_number);
    }
    if (page.next === null) return { held, absent: open, outcome, isCut: false };
    place = page.next;
    // A list whose length is not told is taken for twice as long as what was seen of it.
    isListing = open.size > (page.pages === null ? calls : page.pages - calls);
  }

  let isCut = false;
  await atOnce(CALLS_AT_ONCE, open, async (phone_number) => {
    let isHeld: boolean | undefined;
    for (const path of onePathsOf(account.credentials, phone_number)) {
      if (!mayCall()) {
        isCut ||= outcome.status === 'verified';
        return;
      }
      calls += 1;
      const said = await lookUp(account, path, phone_number);
      if (outcome.status === 'verified') outcome = said.outcome;
      ({ isHeld } = said);
      if (isHeld !== false) break;
    }
    if (isHeld !== undefined) (isHeld ? held : absent).add(phone_number);
  });
  return { held, absent, outcome, isCut };
}
