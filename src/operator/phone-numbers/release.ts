import { batch } from '../../worker/d1/batch.ts';
import { assertNothingInDoubt, carryOut } from '../../worker/decision/event.ts';
import { phoneNumberState, presentPhoneNumber } from '../../worker/phone-numbers/phone-number.ts';
import type { PhoneNumber, PhoneNumberState } from '../../worker/phone-numbers/phone-number.ts';
import { findHeldNumber, release } from '../../worker/phone-numbers/release.ts';
import { commandCall, commandParameters } from '../call.ts';

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
  const parameters = { ...commandParameters(commandCall(organization_id)), phone_number_id };
  const { event, inDoubt } = await carryOut(database, release, parameters);
  if (!event) assertNothingInDoubt(inDoubt);
  return event && presentPhoneNumber(phoneNumberState.parse(JSON.parse(event.state)));
}
