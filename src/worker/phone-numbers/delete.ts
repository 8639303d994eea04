import { and, sql } from 'drizzle-orm';
import { eventExists, eventParameters, eventRecorder } from '../decision/event.ts';
import type { EventParameters } from '../decision/event.ts';
import { callerMay } from '../decision/caller.ts';
import { purge } from '../credentials/drain.ts';
import { credentialsKey, enqueuePurge } from '../credentials/store.ts';
import type { Operation } from '../env.ts';
import { mutation } from '../decision/mutation.ts';
import type { NothingElse } from '../decision/mutation.ts';
import { DomainError } from '../core/errors.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { phone_numbers } from '../d1/schema.ts';
import { isPhoneNumber, phoneNumberState, presentPhoneNumber } from './phone-number.ts';
import type { PhoneNumber } from './phone-number.ts';

interface DeleteParameters extends EventParameters {
  phone_number_id: string;
}

/** The rule, and the only statement that evaluates it: refused while an agent holds the number. */
const recordDecision = eventRecorder<DeleteParameters>(
  phone_numbers,
  phone_numbers.phone_number_id,
  () => sql`iif(${phone_numbers.assigned_agent_id} IS NULL, 'phone_number.deleted', 'phone_number.delete_refused')`,
  (db, parameters) => and(isPhoneNumber(parameters), callerMay('phone_numbers:delete', db, parameters)),
);

const removePhoneNumber = query((db, parameters: Placeholders<DeleteParameters>) =>
  db.delete(phone_numbers).where(and(isPhoneNumber(parameters), eventExists(db, parameters, 'phone_number.deleted'))),
);

const decide = mutation<DeleteParameters, NothingElse>('phone_numbers:delete', {
  explain: {},
  act: { recordDecision, enqueuePurge, removePhoneNumber },
});

/**
 * Deletes a phone number, with its SIP credentials, unless an agent holds it (contract.md, Phone numbers). One batch, as
 * for an integration.
 *
 * @returns the phone number as it stood just before
 * @throws DomainError `phone_number_assigned`, `phone_number_not_found`, and what any mutation does (mutation.ts)
 */
export async function deletePhoneNumber(operation: Operation, phone_number_id: string): Promise<PhoneNumber> {
  const { env, afterAnswer } = operation;
  const { event } = await decide(operation, { ...eventParameters(operation), phone_number_id });
  if (!event) throw new DomainError('phone_number_not_found', {});

  const state = phoneNumberState.parse(JSON.parse(event.state));
  const { organization_id, assigned_agent_id, credentials_version } = state;
  if (assigned_agent_id !== null) throw new DomainError('phone_number_assigned', { assigned_agent_id });
  if (credentials_version !== null) {
    afterAnswer(() => purge(env, credentialsKey(organization_id, phone_number_id, credentials_version)));
  }
  return presentPhoneNumber(state);
}
