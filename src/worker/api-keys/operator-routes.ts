/** What operators do with the API keys of an organization. */
import * as z from 'zod/mini';
import { idSchema, organizationIdSchema } from '../core/ids.ts';
import { answer } from '../http/answer.ts';
import { newRoutes } from '../http/new-routes.ts';
import { operatorMutates, operatorReads } from '../http/route.ts';
import { MINT_ANOTHER, presentApiKey, shownOnce } from './api-key.ts';
import { mintApiKey, mintedKey } from './mint.ts';
import { apiKeysQuery, listApiKeysOf } from './read.ts';
import { revokeAllKeys } from './revoke-all.ts';
import { revokeApiKeyOf } from './revoke-by-operator.ts';

const path = z.object({ organization_id: organizationIdSchema() });
const pathOfKey = z.object({ organization_id: organizationIdSchema(), key_id: idSchema('apikey') });

export const operatorApiKeyRoutes = newRoutes()
  .post('/', operatorMutates('keys:mint', { path, body: mintedKey }), async (c) => {
    const data = await mintApiKey(c.get('operatorCall'), c.req.valid('param').organization_id, c.req.valid('json'));
    return answer(c, 201, {
      success: true,
      message: shownOnce('API key minted successfully', data.raw_key, MINT_ANOTHER),
      data,
    });
  })
  .get('/', operatorReads('organizations:read', { path, query: apiKeysQuery }), async (c) => {
    const { organization_id } = c.req.valid('param');
    const { rows, pagination } = await listApiKeysOf(c.get('operatorCall'), organization_id, c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentApiKey), pagination });
  })
  .post('/revoke-all', operatorMutates('keys:mint', { path }), async (c) => {
    const data = await revokeAllKeys(c.get('operatorCall'), c.req.valid('param').organization_id);
    return answer(c, 200, { success: true, message: 'API keys revoked successfully', data });
  })
  .delete('/:key_id', operatorMutates('keys:mint', { path: pathOfKey }), async (c) => {
    const { organization_id, key_id } = c.req.valid('param');
    const data = await revokeApiKeyOf(c.get('operatorCall'), organization_id, key_id);
    return answer(c, 200, { success: true, message: 'API key revoked successfully', data });
  });
