import * as z from 'zod';
import { idSchema } from '../core/ids.ts';
import { answer } from '../http/answer.ts';
import { newRoutes } from '../http/new-routes.ts';
import { mutates, reads } from '../http/route.ts';
import { deletePhoneNumber } from './delete.ts';
import { importPhoneNumber, newPhoneNumber } from './import.ts';
import { presentPhoneNumber } from './phone-number.ts';
import { listPhoneNumbers, phoneNumbersQuery, readPhoneNumber } from './read.ts';
import { phoneNumberChanges, updatePhoneNumber } from './update.ts';

const path = z.object({ phone_number_id: idSchema('phon') });

export const phoneNumberRoutes = newRoutes()
  .post('/', mutates('phone_numbers:create', { body: newPhoneNumber }), async (c) => {
    const data = await importPhoneNumber(c.get('call'), c.req.valid('json'));
    const message = `Phone number imported successfully with ${data.provider}`;
    return answer(c, 201, { success: true, message, data });
  })
  .get('/', reads('phone_numbers:read', { query: phoneNumbersQuery }), async (c) => {
    const { rows, pagination } = await listPhoneNumbers(c.get('call'), c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentPhoneNumber), pagination });
  })
  .get('/:phone_number_id', reads('phone_numbers:read', { path }), async (c) => {
    const data = await readPhoneNumber(c.get('call'), c.req.valid('param').phone_number_id);
    return answer(c, 200, { success: true, data });
  })
  .put('/:phone_number_id', mutates('phone_numbers:update', { path, body: phoneNumberChanges }), async (c) => {
    const data = await updatePhoneNumber(c.get('call'), c.req.valid('param').phone_number_id, c.req.valid('json'));
    return answer(c, 200, { success: true, message: 'Phone number updated successfully', data });
  })
  .delete('/:phone_number_id', mutates('phone_numbers:delete', { path }), async (c) => {
    const data = await deletePhoneNumber(c.get('call'), c.req.valid('param').phone_number_id);
    return answer(c, 200, { success: true, message: 'Phone number deleted successfully', data });
  });
