/** What came of the numbers of a call that acts on all of them or on none. */
import * as z from 'zod';
import type { ActResult, DomainError } from '../worker/core/errors.ts';
import { detailOf } from '../worker/http/problem.ts';
import { id } from './operation.ts';

/** A number is refused for one of these. */
const codes = [
  'phone_number_not_found',
  'phone_number_assigned',
  'phone_number_not_in_account',
  'validation_failed',
] as const;

const resultSchema = z.object({
  phone_number_id: id('phon'),
  phone_number: z
    .string()
    .regex(/^\+[1-9]\d{6,14}$/)
    .nullable()
    .meta({ description: 'Null if there is no such number.' }),
  status: z.enum(['updated', 'deleted', 'failed', 'not_done']).meta({
    description: '`not_done`: nothing stands against this number, but something does against another.',
  }),
  code: z
    .enum(codes)
    .nullable()
    .meta({ description: 'Why it failed, as the `code` of a problem. Null if it did not.' }),
  detail: z.string().nullable().meta({ description: 'The same as a sentence for people.' }),
});

const results = z
  .array(resultSchema)
  .meta({ description: 'In the order of the request; the numbers of an integration ascending.' });

export const actResultsSchema = z
  .object({ results })
  .meta({ id: 'PhoneNumberResults', title: 'Results of phone numbers' }) satisfies z.ZodType<{
  results: Omit<ActResult, 'code'>[];
}>;

const ofDryRun = (verb: string) =>
  z
    .boolean()
    .optional()
    .meta({ description: `Of a dry run alone: whether the call would ${verb} them.` });

export const updateResultsSchema = z
  .object({ would_update: ofDryRun('update'), results })
  .meta({ id: 'PhoneNumberUpdates', title: 'Updates of phone numbers' });

export const deletionResultsSchema = z
  .object({ would_delete: ofDryRun('delete'), results })
  .meta({ id: 'PhoneNumberDeletions', title: 'Deletions of phone numbers' });

/** Examples. */
export const doneResult = (status: 'updated' | 'deleted'): ActResult => ({
  phone_number_id: 'phon_a1b2c3d4e5f6',
  phone_number: '+1234567890',
  status,
  code: null,
  detail: null,
});

export const undoneResult: ActResult = {
  phone_number_id: 'phon_a1b2c3d4e5f6',
  phone_number: '+1234567890',
  status: 'not_done',
  code: null,
  detail: null,
};

export const failedResult = (error: DomainError): ActResult => ({
  phone_number_id: 'phon_0f1e2d3c4b5a',
  phone_number: '+12345678901',
  status: 'failed',
  code: error.code,
  detail: detailOf(error),
});
