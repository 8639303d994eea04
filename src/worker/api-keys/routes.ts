import * as z from 'zod/mini';
import { idSchema } from '../core/ids.ts';
import { answer } from '../http/answer.ts';
import { newRoutes } from '../http/new-routes.ts';
import { rateLimitsOf } from '../http/rate-limit.ts';
import { mutates, reads } from '../http/route.ts';
import { presentApiKey, shownOnce } from './api-key.ts';
import { createApiKey, newApiKey } from './create.ts';
import { apiKeysQuery, listApiKeys, readApiKey } from './read.ts';
import { revocation, revokeApiKey } from './revoke.ts';
import { rotateApiKey, rotation } from './rotate.ts';
import { apiKeyChanges, updateApiKey } from './update.ts';
import { whoAmI } from './whoami.ts';

const path = z.object({ key_id: idSchema('apikey') });

export const apiKeyRoutes = newRoutes()
  .post('/', mutates('api_keys:create', { body: newApiKey }), async (c) => {
    const data = await createApiKey(c.get('call'), c.req.valid('json'));
    return answer(c, 201, { success: true, message: shownOnce('API key created successfully', data.raw_key), data });
  })
  .get('/', reads('api_keys:read', { query: apiKeysQuery }), async (c) => {
    const { rows, pagination } = await listApiKeys(c.get('call'), c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentApiKey), pagination });
  })
  .get('/:key_id', reads('api_keys:read', { path }), async (c) => {
    const data = await readApiKey(c.get('call'), c.req.valid('param').key_id);
    return answer(c, 200, { success: true, data });
  })
  .put('/:key_id', mutates('api_keys:update', { path, body: apiKeyChanges }), async (c) => {
    const data = await updateApiKey(c.get('call'), c.req.valid('param').key_id, c.req.valid('json'));
    return answer(c, 200, { success: true, message: 'API key updated successfully', data });
  })
  .post('/:key_id/rotate', mutates('api_keys:rotate', { path, body: rotation }), async (c) => {
    const data = await rotateApiKey(c.get('call'), c.req.valid('param').key_id, c.req.valid('json'));
    return answer(c, 201, { success: true, message: shownOnce('API key rotated successfully', data.raw_key), data });
  })
  .delete('/:key_id', mutates('api_keys:revoke', { path, query: revocation }), async (c) => {
    const data = await revokeApiKey(c.get('call'), c.req.valid('param').key_id, c.req.valid('query'));
    return answer(c, 200, { success: true, message: 'API key revoked successfully', data });
  });

export const whoamiRoutes = newRoutes().get('/', reads(null, {}), async (c) => {
  const { organization, key } = await whoAmI(c.get('call'));
  const rate_limits = rateLimitsOf(organization.tier);
  return answer(c, 200, { success: true, data: { organization: { ...organization, rate_limits }, key } });
});
