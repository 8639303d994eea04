import { and, sql } from 'drizzle-orm';
import { DomainError } from '../core/errors.ts';
import { purge } from '../credentials/drain.ts';
import { credentialsKey } from '../credentials/kv-key.ts';
import { enqueuePurges } from '../credentials/outbox.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { phone_numbers } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { mayDecide } from '../decision/caller.ts';
import { eventRecorder, hasDecided } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { assertMatched, isAsMatched, unmatchedTarget } from '../decision/precondition.ts';
import { isPhoneNumber, phoneNumberState, presentPhoneNumber } from './phone-number.ts';
import type { PhoneNumber } from './phone-number.ts';

interface DeleteParameters extends MutationParameters {
  phone_number_id: string;
}

/** The rule: a delete is refused while the number is assigned to an agent. No other statement evaluates it. */
const recordDecision = eventRecorder<DeleteParameters>({
  table: phone_numbers,
  target_id: phone_numbers.phone_number_id,
  action: () =>
    sql`iif(${phone_numbers.assigned_agent_id} IS NULL, 'phone_number.deleted', 'phone_number.delete_refused')`,
  where: (db, parameters) =>
    and(
      isPhoneNumber(parameters),
      isAsMatched(phone_numbers.revision, parameters),
      mayDecide('phone_numbers:delete', db, parameters),
    ),
});

const removePhoneNumber = query((db, parameters: Placeholders<DeleteParameters>) =>
  db.delete(phone_numbers).where(and(isPhoneNumber(parameters), hasDecided(db, parameters, 'phone_number.deleted'))),
);

const decide = mutation('phone_numbers:delete', {
  statements: [recordDecision, enqueuePurges, removePhoneNumber],
  found: { unmatched: unmatchedTarget<DeleteParameters>(phone_numbers, isPhoneNumber) },
});

/**
 * Deletes a phone number with its SIP credentials, unless it is assigned to an agent (docs/contract.md, Phone numbers).
 *
 * @returns the phone number as it was just before
 * @throws DomainError `phone_number_assigned`, `phone_number_not_found`, `precondition_failed`, and the errors of
 *   every mutation (decision/mutation.ts)
 */
export async function deletePhoneNumber(call: ApiCall, phone_number_id: string): Promise<PhoneNumber> {
  const answer = await decide(call, { ...mutationParameters(call), phone_number_id });
  if (answer.outcome === 'undecided') {
    assertMatched(answer.found.unmatched);
    throw new DomainError('phone_number_not_found', {});
  }

  const state = phoneNumberState.parse(JSON.parse(answer.event.state));
  const { organization_id, assigned_agent_id, credentials_version } = state;
  if (assigned_agent_id !== null) throw new DomainError('phone_number_assigned', { assigned_agent_id });
  if (credentials_version !== null) {
    const kv_key = credentialsKey(organization_id, phone_number_id, credentials_version);
    call.afterAnswer(() => purge(call.env, kv_key));
  }
  return presentPhoneNumber(state);
}
