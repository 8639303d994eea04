import { eq } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { idSchema } from '../core/ids.ts';
import { ownerships, phoneNumberStatuses } from '../core/vocabulary.ts';
import { batch } from '../d1/batch.ts';
import { keysetList, listParameters } from '../d1/list.ts';
import type { FilterOf } from '../d1/list.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import type { ReadingCall } from '../d1/replica-session.ts';
import { nearest } from '../d1/replica-session.ts';
import { phone_numbers } from '../d1/schema.ts';
import { isPhoneNumber, phoneNumberColumns, presentPhoneNumber } from './phone-number.ts';
import type { PhoneNumber, PhoneNumberState } from './phone-number.ts';

const findPhoneNumber = query((db, parameters: Placeholders<{ organization_id: string; phone_number_id: string }>) =>
  db.select(phoneNumberColumns()).from(phone_numbers).where(isPhoneNumber(parameters)),
);

/** @throws DomainError `phone_number_not_found`, `temporarily_unavailable` */
export async function readPhoneNumber(call: ReadingCall, phone_number_id: string): Promise<PhoneNumber> {
  const { organization_id } = call;
  const [[found]] = await nearest(call, (database) =>
    batch(database, [findPhoneNumber.bind({ organization_id, phone_number_id })]),
  );
  if (!found) throw new DomainError('phone_number_not_found', {});
  return presentPhoneNumber(found);
}

export const phoneNumbersQuery = z.lazy(() =>
  z.strictObject({
    status: z.exactOptional(z.enum(phoneNumberStatuses)),
    integration_id: z.exactOptional(idSchema('intg')),
    ownership: z.exactOptional(z.enum(ownerships)),
    ...listParameters(),
  }),
);

/** The phone numbers, by number, ascending. */
export const listPhoneNumbers = keysetList<FilterOf<typeof phoneNumbersQuery>, PhoneNumberState>('phone_numbers', {
  table: phone_numbers,
  key: [phone_numbers.phone_number],
  keyOf: ({ phone_number }) => [phone_number],
  range: () => [[''], ['x']],
  predicates: {
    status: (value) => eq(phone_numbers.status, value),
    integration_id: (value) => eq(phone_numbers.integration_id, value),
    ownership: (value) => eq(phone_numbers.ownership, value),
  },
  page: (db, isListed, order, limit) =>
    db
      .select(phoneNumberColumns())
      .from(phone_numbers)
      .where(isListed)
      .orderBy(...order)
      .limit(limit),
});
