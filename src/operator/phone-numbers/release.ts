import { and, eq } from 'drizzle-orm';
import { enqueuePurges } from '../../worker/credentials/outbox.ts';
import { batch } from '../../worker/d1/batch.ts';
import { query } from '../../worker/d1/query.ts';
import type { Placeholders } from '../../worker/d1/query.ts';
import { phone_numbers } from '../../worker/d1/schema.ts';
import { eventParameters } from '../../worker/decision/call.ts';
import type { EventParameters } from '../../worker/decision/call.ts';
import { assertNothingInDoubt, carryOut, eventRecorder, hasDecided } from '../../worker/decision/event.ts';
import {
  isPhoneNumber,
  phoneNumberColumns,
  phoneNumberState,
  presentPhoneNumber,
} from '../../worker/phone-numbers/phone-number.ts';
import type { PhoneNumber, PhoneNumberState } from '../../worker/phone-numbers/phone-number.ts';
import { operatorCall } from '../call.ts';

interface ReleaseParameters extends EventParameters {
  phone_number_id: string;
}

/** In any organization, because a number is unique in the whole system. */
const findHeldNumber = query((db, { phone_number }: Placeholders<{ phone_number: string }>) =>
  db.select(phoneNumberColumns()).from(phone_numbers).where(eq(phone_numbers.phone_number, phone_number)),
);

/** Also if the number is assigned to an agent. */
const recordRelease = eventRecorder<ReleaseParameters>({
  table: phone_numbers,
  target_id: phone_numbers.phone_number_id,
  action: 'phone_number.released',
  where: (_, parameters) => isPhoneNumber(parameters),
});

const removePhoneNumber = query((db, parameters: Placeholders<ReleaseParameters>) =>
  db.delete(phone_numbers).where(and(isPhoneNumber(parameters), hasDecided(db, parameters))),
);

/** The phone number, whatever its organization, for the preview. */
export async function findHeldPhoneNumber(
  database: D1Database,
  phone_number: string,
): Promise<PhoneNumber | undefined> {
  const [[found]] = await batch(database, [findHeldNumber.bind({ phone_number })]);
  return found && presentPhoneNumber(found);
}

/**
 * Deletes an organization's phone number and its SIP credentials, so that another organization can import it.
 *
 * @returns the phone number as it was just before; undefined if the organization does not have it
 * @throws DomainError `temporarily_unavailable`
 */
export async function releasePhoneNumber(
  database: D1Database,
  { organization_id, phone_number_id }: Pick<PhoneNumberState, 'organization_id' | 'phone_number_id'>,
): Promise<PhoneNumber | undefined> {
  const parameters = { ...eventParameters(operatorCall(organization_id)), phone_number_id };
  const { event, inDoubt } = await carryOut(database, [recordRelease, enqueuePurges, removePhoneNumber], parameters);
  if (!event) assertNothingInDoubt(inDoubt);
  return event && presentPhoneNumber(phoneNumberState.parse(JSON.parse(event.state)));
}
