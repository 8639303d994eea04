import { Hono } from 'hono';
import * as z from 'zod';
import { answer } from '../http/answer.ts';
import { requirePermission } from '../decision/caller.ts';
import type { AppEnv } from '../env.ts';
import { acceptIdempotencyKey } from '../decision/remembered-answers.ts';
import { idSchema } from '../core/ids.ts';
import { acceptBookmark } from '../d1/replica-session.ts';
import { changeParameters, jsonBody, noQueryParameters, pathParameters, queryParameters } from '../http/validation.ts';
import { deletePhoneNumber } from './delete.ts';
import { importPhoneNumber, newPhoneNumber } from './import.ts';
import { presentPhoneNumber } from './phone-number.ts';
import { listPhoneNumbers, phoneNumbersQuery, readPhoneNumber } from './read.ts';
import { phoneNumberChanges, updatePhoneNumber } from './update.ts';

const phoneNumberPath = z.object({ phone_number_id: idSchema('phon') });

export const phoneNumberRoutes = new Hono<AppEnv>()
  .post(
    '/',
    requirePermission('phone_numbers:create'),
    changeParameters,
    jsonBody(newPhoneNumber),
    acceptIdempotencyKey,
    async (c) => {
      const data = await importPhoneNumber(c.get('operation'), c.req.valid('json'));
      return answer(c, 201, {
        success: true,
        message: `Phone number imported successfully with ${data.provider}`,
        data,
      });
    },
  )
  .get('/', requirePermission('phone_numbers:read'), queryParameters(phoneNumbersQuery), acceptBookmark, async (c) => {
    const { rows, pagination } = await listPhoneNumbers(c.get('operation'), c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentPhoneNumber), pagination });
  })
  .get(
    '/:phone_number_id',
    requirePermission('phone_numbers:read'),
    pathParameters(phoneNumberPath),
    noQueryParameters,
    acceptBookmark,
    async (c) => {
      const data = await readPhoneNumber(c.get('operation'), c.req.valid('param').phone_number_id);
      return answer(c, 200, { success: true, data });
    },
  )
  .put(
    '/:phone_number_id',
    requirePermission('phone_numbers:update'),
    pathParameters(phoneNumberPath),
    changeParameters,
    jsonBody(phoneNumberChanges),
    acceptIdempotencyKey,
    async (c) => {
      const data = await updatePhoneNumber(
        c.get('operation'),
        c.req.valid('param').phone_number_id,
        c.req.valid('json'),
      );
      return answer(c, 200, { success: true, message: 'Phone number updated successfully', data });
    },
  )
  .delete(
    '/:phone_number_id',
    requirePermission('phone_numbers:delete'),
    pathParameters(phoneNumberPath),
    noQueryParameters,
    acceptIdempotencyKey,
    async (c) => {
      const data = await deletePhoneNumber(c.get('operation'), c.req.valid('param').phone_number_id);
      return answer(c, 200, { success: true, message: 'Phone number deleted successfully', data });
    },
  );
