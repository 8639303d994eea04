import { eq } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { agentIdSchema, idSchema, phoneNumberPattern } from '../core/ids.ts';
import { ownerships, phoneNumberStatuses, providerNames } from '../core/vocabulary.ts';
import { keysetList, listParameters, ofOneGroup } from '../d1/list.ts';
import type { FilterOf } from '../d1/list.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import type { ReadingCall } from '../d1/replica-session.ts';
import { nearest } from '../d1/replica-session.ts';
import { phone_numbers } from '../d1/schema.ts';
import { isPhoneNumber, phoneNumberColumns } from './phone-number.ts';
import type { PhoneNumberState } from './phone-number.ts';

const findPhoneNumber = query((db, parameters: Placeholders<{ organization_id: string; phone_number_id: string }>) =>
  db.select(phoneNumberColumns()).from(phone_numbers).where(isPhoneNumber(parameters)),
);

/** @throws DomainError `phone_number_not_found`, `temporarily_unavailable` */
export async function readPhoneNumber(call: ReadingCall, phone_number_id: string): Promise<PhoneNumberState> {
  const { organization_id } = call;
  const {
    found: [found],
  } = await nearest(call, { found: findPhoneNumber.bind({ organization_id, phone_number_id }) });
  if (!found) throw new DomainError('phone_number_not_found', {});
  return found;
}

/** In a query string a plus is a space, unless it is written as %2B. */
const inUrl = (digits: string) => `must be + (in a URL %2B) and ${digits} digits, the first of them not 0`;

export const phoneNumbersQuery = z.lazy(() =>
  z
    .strictObject({
      phone_number: z.exactOptional(z.string().check(z.regex(phoneNumberPattern, inUrl('7 to 15')))),
      phone_number_prefix: z.exactOptional(z.string().check(z.regex(/^\+[1-9]\d{0,14}$/, inUrl('1 to 15')))),
      provider: z.exactOptional(z.enum([...providerNames, 'sip'])),
      assigned_agent_id: z.exactOptional(agentIdSchema()),
      status: z.exactOptional(z.enum(phoneNumberStatuses)),
      integration_id: z.exactOptional(idSchema('intg')),
      ownership: z.exactOptional(z.enum(ownerships)),
      ...listParameters(),
    })
    .check(
      ofOneGroup([['phone_number'], ['phone_number_prefix']]),
      ofOneGroup([['status', 'integration_id', 'ownership'], ['provider'], ['assigned_agent_id']], 'phone_number'),
    ),
);

/** The phone numbers, by number. */
export const listPhoneNumbers = keysetList<FilterOf<typeof phoneNumbersQuery>, PhoneNumberState>('phone_numbers', {
  table: phone_numbers,
  key: [phone_numbers.phone_number],
  keyOf: ({ phone_number }) => [phone_number],
  // A colon comes after all digits.
  range: ({ phone_number, phone_number_prefix = '' }) =>
    phone_number === undefined
      ? [[phone_number_prefix], [`${phone_number_prefix}:`]]
      : [[phone_number], [`${phone_number}0`]],
  predicates: {
    status: (value) => eq(phone_numbers.status, value),
    integration_id: (value) => eq(phone_numbers.integration_id, value),
    ownership: (value) => eq(phone_numbers.ownership, value),
    provider: (value) => eq(phone_numbers.provider, value),
    assigned_agent_id: (value) => eq(phone_numbers.assigned_agent_id, value),
    phone_number: undefined,
    phone_number_prefix: undefined,
  },
  page: (db, isListed, order, limit) =>
    db
      .select(phoneNumberColumns())
      .from(phone_numbers)
      .where(isListed)
      .orderBy(...order)
      .limit(limit),
});
