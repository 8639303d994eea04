/**
 * `npm run phone-numbers:release`: deletes an organization's phone number, so that another organization can import it.
 */
import * as z from 'zod';
import { e164 } from '../../worker/phone-numbers/e164.ts';
import type { PhoneNumber } from '../../worker/phone-numbers/phone-number.ts';
import {
  confirmation,
  isConfirmed,
  nothingDone,
  place,
  readOptions,
  usageOf,
  withBindings,
} from '../command-line/options.ts';

const { yes, ...options } = readOptions(
  usageOf('phone-numbers:release', '--phone-number +…', '--phone-number +14155550100'),
  z.strictObject({ 'phone-number': e164, ...confirmation, ...place }),
);
const { findHeldPhoneNumber, releasePhoneNumber } = await import('../phone-numbers/release.ts');
process.exitCode = await withBindings(options, async ({ DB }) => {
  const found = await findHeldPhoneNumber(DB, options['phone-number']);
  if (!found) return nothingDone(`No organization has ${options['phone-number']}`);
  const { phone_number, phone_number_id, client_id } = found;
  const effect = 'This deletes it there, with its SIP credentials if it has any. Then any organization can import it.';
  if (!(await isConfirmed(`${describe(found)}\n${effect}`, yes))) return 1;
  if (!(await releasePhoneNumber(DB, { organization_id: client_id, phone_number_id }))) {
    return nothingDone(`${client_id} does not have ${phone_number} any more`);
  }
  console.log(`${phone_number} is released.`);
  return 0;
});

function describe({ phone_number, client_id, provider, integration_id, assigned_agent_id }: PhoneNumber): string {
  const through = integration_id === null ? provider : `${provider}, ${integration_id}`;
  const use = assigned_agent_id === null ? 'free' : `assigned to ${assigned_agent_id}`;
  return `${phone_number} is a number of ${client_id} (${through}), ${use}.`;
}
