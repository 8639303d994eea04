import { and, eq } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { optional } from '../core/fields.ts';
import { organizationIdSchema } from '../core/ids.ts';
import { enqueuePurges } from '../credentials/outbox.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { nearest, readOnPrimary } from '../d1/replica-session.ts';
import { phone_numbers } from '../d1/schema.ts';
import type { OperatorCall } from '../decision/call.ts';
import { eventRecorder, hasDecided } from '../decision/event.ts';
import { mayOperate, operatorMutation, operatorParameters } from '../decision/operator.ts';
import type { OperatorParameters } from '../decision/operator.ts';
import { e164 } from './e164.ts';
import { isPhoneNumber, phoneNumberColumns, phoneNumberState, presentPhoneNumber } from './phone-number.ts';
import type { PhoneNumber } from './phone-number.ts';

/** Names one number, which one organization at most has. */
export const heldNumberQuery = z.lazy(() => z.strictObject({ phone_number: e164 }));

export const numberToRelease = z.lazy(() =>
  z.strictObject({ phone_number: e164, organization_id: optional(organizationIdSchema()) }),
);

/** In any organization, because a number is unique in the whole system. */
export const findHeldNumber = query((db, { phone_number }: Placeholders<{ phone_number: string }>) =>
  db.select(phoneNumberColumns()).from(phone_numbers).where(eq(phone_numbers.phone_number, phone_number)),
);

interface ReleaseParameters extends OperatorParameters {
  phone_number_id: string;
}

/** Also if the number is assigned to an agent. */
const recordRelease = eventRecorder<ReleaseParameters>({
  table: phone_numbers,
  target_id: phone_numbers.phone_number_id,
  action: 'phone_number.released',
  where: (db, parameters) => and(isPhoneNumber(parameters), mayOperate('numbers:release', db, parameters)),
});

const removePhoneNumber = query((db, parameters: Placeholders<ReleaseParameters>) =>
  db.delete(phone_numbers).where(and(isPhoneNumber(parameters), hasDecided(db, parameters))),
);

export const release = [recordRelease, enqueuePurges, removePhoneNumber];

/** @throws DomainError `phone_number_not_held`, `temporarily_unavailable` */
export async function readHeldNumber(call: OperatorCall, phone_number: string): Promise<PhoneNumber> {
  const {
    found: [found],
  } = await nearest(call, { found: findHeldNumber.bind({ phone_number }) });
  if (!found) throw new DomainError('phone_number_not_held', {});
  return presentPhoneNumber(found);
}

const found = { held: findHeldNumber };

const decide = operatorMutation<ReleaseParameters & { phone_number: string }, typeof found>('numbers:release', {
  statements: release,
  found,
});

/**
 * Deletes a phone number and its SIP credentials, so that another organization can import it (docs/contract.md, Operators).
 *
 * @param given `organization_id`: the number is left to any other organization. Without it, whoever has the number loses it
 * @returns the number as it was just before
 * @throws DomainError `phone_number_not_held`, and the errors of every operator's mutation (decision/operator.ts)
 */
export async function releasePhoneNumber(
  call: OperatorCall,
  { phone_number, organization_id: named }: z.output<typeof numberToRelease>,
): Promise<PhoneNumber> {
  const {
    held: [held],
  } = await readOnPrimary(call, { held: findHeldNumber.bind({ phone_number }) });
  const isOfNamed = named === undefined || named === held?.organization_id;
  // Without such a number, the batch still finds out who may ask, and what is remembered.
  const { organization_id = '', phone_number_id = '' } = (isOfNamed && held) || {};
  const answer = await decide(call, { ...operatorParameters(call, organization_id), phone_number_id, phone_number });
  if (answer.outcome === 'undecided') {
    // It may have gone to another organization meanwhile.
    if (isOfNamed && answer.found.held.length > 0)
      throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
    throw new DomainError('phone_number_not_held', {});
  }
  return presentPhoneNumber(phoneNumberState.parse(JSON.parse(answer.event.state)));
}
