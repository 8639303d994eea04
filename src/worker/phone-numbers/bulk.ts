import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { withDefault } from '../core/fields.ts';
import { idSchema } from '../core/ids.ts';
import type { ApiCall } from '../decision/call.ts';
import { e164 } from './e164.ts';
import { importNumbers } from './import-numbers.ts';
import type { ImportOutcome } from './import-numbers.ts';

const MAX_NUMBERS = 100;
const COUNT = `must have 1 to ${MAX_NUMBERS} phone numbers`;

export const newPhoneNumbers = z.lazy(() =>
  z.strictObject({
    integration_id: idSchema('intg'),
    phone_numbers: z.array(e164).check(z.minLength(1, COUNT), z.maxLength(MAX_NUMBERS, COUNT)),
    supports_inbound: withDefault(z.boolean(), false),
    supports_outbound: withDefault(z.boolean(), false),
  }),
);

/**
 * Imports up to 100 phone numbers through an integration, each of them wholly or not at all (docs/contract.md, Phone
 * numbers).
 *
 * @param verify whether the account of the integration is asked for the numbers
 * @returns what came of each number, in the order of the request. A number that is given twice is imported once
 * @throws the errors of {@link importNumbers}
 */
export async function importPhoneNumbers(
  call: ApiCall,
  request: z.output<typeof newPhoneNumbers>,
  verify: boolean,
): Promise<{ phone_number: string; outcome: ImportOutcome }[]> {
  const phone_numbers = [...new Set(request.phone_numbers)];
  const outcomes = await importNumbers(call, { ...request, provider: null, phone_numbers }, verify, true);
  return request.phone_numbers.map((phone_number, index) => {
    const isFirst = request.phone_numbers.indexOf(phone_number) === index;
    const outcome = isFirst ? outcomes.get(phone_number) : undefined;
    return { phone_number, outcome: outcome ?? new DomainError('phone_number_exists', {}) };
  });
}
