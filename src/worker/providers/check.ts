/** Asks a provider whether it accepts credentials. */
import type { Provider, VerificationStatus } from '../core/vocabulary.ts';
import type { Credentials } from '../credentials/envelope.ts';
import type { Bindings } from '../env.ts';
import { exchange, jsonOf } from './exchange.ts';
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
  let outcome: CheckOutcome = { status: 'unreachable', provider_status: null, provider_code: null };
  for (const [index, request] of rowOf(provider).checksOf(credentials).entries()) {
    // A header's value that is not ASCII would be printed by the runtime.
    if (!/^[\x20-\x7e]+$/.test(request.authorization)) return { ...outcome, status: 'unverified' };
    const next = outcomeOf(provider, await exchange(env, provider, request));
    if (index === 0 || next.status !== 'verified') outcome = next;
    if (outcome.status === 'refused' || outcome.status === 'unreachable') break;
  }
  return outcome;
}

const isCode = /^[\w.-]{1,32}$/;

/** Takes nothing from the provider's body but its code. */
function outcomeOf(provider: Provider, answer: ProviderAnswer | undefined): CheckOutcome {
  if (!answer) return { status: 'unreachable', provider_status: null, provider_code: null };
  const { accepted, error, hasLimited } = rowOf(provider).answers;
  const { status: provider_status, body } = answer;
  const value = body === null ? undefined : jsonOf(body);
  const { success: isError, data: code } = error.safeParse(value);
  const provider_code = code !== null && code !== undefined && isCode.test(code) ? code : null;
  const says = (status: CheckOutcome['status']): CheckOutcome => ({ status, provider_status, provider_code });
  if (body === null) return says('unreachable');
  if (provider_status === 200 && accepted.safeParse(value).success) return says('verified');
  if (provider_status === 401 && isError) return says('refused');
  if (provider_status === 403 && isError && hasLimited) return says('limited');
  return says('unreachable');
}
