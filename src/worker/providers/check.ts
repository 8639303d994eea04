/** Asks a provider whether it accepts credentials. */
import * as z from 'zod/mini';
import { parseJson } from '../core/json.ts';
import type { Provider, VerificationStatus } from '../core/vocabulary.ts';
import type { Credentials } from '../credentials/envelope.ts';
import type { Bindings } from '../env.ts';
import { fitsHeader } from './authorization.ts';
import { exchange } from './exchange.ts';
import type { ProviderAnswer } from './exchange.ts';
import { rowOf } from './providers.ts';

/** What came of a check. */
export interface CheckOutcome {
  status: VerificationStatus;
  /** The HTTP status that the provider answered with; null if it gave no answer. */
  provider_status: number | null;
  /** The provider's own code of an error; null if it named none. */
  provider_code: string | null;
}

/** There was no answer. */
export const unreachable: CheckOutcome = { status: 'unreachable', provider_status: null, provider_code: null };

/**
 * - `verified`: the provider accepts the credentials.
 * - `refused`: it refuses them. Only a 401 says so.
 * - `limited`: it knows them, and did not permit the call.
 * - `unreachable`: it gave no answer, or one that is not documented, and so says nothing about the credentials.
 * - `unverified`: it was not asked, because a header cannot have the credentials.
 *
 * It makes one call after the other, one for most credentials. Of several outcomes, the worst counts.
 */
export async function checkCredentials(
  env: Bindings,
  provider: Provider,
  credentials: Credentials,
): Promise<CheckOutcome> {
  let outcome = unreachable;
  for (const [index, request] of rowOf(provider).checksOf(credentials).entries()) {
    if (!fitsHeader(request.authorization)) return { ...outcome, status: 'unverified' };
    const { outcome: next } = judge(provider, await exchange(env, provider, request), rowOf(provider).answers.accepted);
    if (index === 0 || next.status !== 'verified') outcome = next;
    if (outcome.status === 'refused' || outcome.status === 'unreachable') break;
  }
  return outcome;
}

const isCode = /^[\w.-]{1,32}$/;

/**
 * What an answer means. Nothing is taken from the provider's body but its code and, of an answer that is `verified`, what
 * the schema makes of it.
 *
 * @param accepted the body of a 200
 */
export function judge<Accepted>(
  provider: Provider,
  answer: ProviderAnswer | undefined,
  accepted: z.core.$ZodType<Accepted>,
): { outcome: CheckOutcome; data?: Accepted } {
  if (!answer) return { outcome: unreachable };
  const { error, hasLimited } = rowOf(provider).answers;
  const { status: provider_status, body } = answer;
  const value = body === null ? undefined : parseJson(body);
  const { success: isError, data: code } = error.safeParse(value);
  const provider_code = code !== null && code !== undefined && isCode.test(code) ? code : null;
  const says = (status: CheckOutcome['status']) => ({ outcome: { status, provider_status, provider_code } });
  if (body === null) return says('unreachable');
  const { success: isAccepted, data } = z.safeParse(accepted, value);
  if (provider_status === 200 && isAccepted) return { ...says('verified'), data };
  if (provider_status === 401 && isError) return says('refused');
  if (provider_status === 403 && isError && hasLimited) return says('limited');
  return says('unreachable');
}
