/** What came of the numbers of an import of several. */
import * as z from 'zod';
import type { NumberResult } from '../worker/core/errors.ts';
import { id } from './operation.ts';

/** A result is refused for one of these. */
const codes = [
  'phone_number_exists',
  'phone_number_not_in_account',
  'quota_exceeded',
  'integration_not_found',
  'credentials_missing',
  'credentials_refused',
] as const;

const resultSchema = z.object({
  phone_number: z.string().regex(/^\+[1-9]\d{6,14}$/),
  status: z.enum(['imported', 'failed']),
  phone_number_id: id('phon').nullable().meta({ description: 'Null if it failed.' }),
  code: z
    .enum(codes)
    .nullable()
    .meta({ description: 'Why it failed, as the `code` of a problem. Null if it did not.' }),
  detail: z.string().nullable().meta({ description: 'The same as a sentence for people.' }),
});

export const importResultsSchema = z
  .object({ results: z.array(resultSchema).meta({ description: 'In the order of the request.' }) })
  .meta({ id: 'PhoneNumberImports', title: 'Imports of phone numbers' }) satisfies z.ZodType<{
  results: Omit<NumberResult, 'code'>[];
}>;
