import { Hono } from 'hono';
import * as z from 'zod';
import { requirePermission } from '../auth/authorize.ts';
import type { AppEnv } from '../env.ts';
import { idSchema } from '../ids.ts';
import { jsonBody, pathParameters, queryParameters } from '../validation.ts';
import { presentApiKey } from './api-key.ts';
import { createApiKey, newApiKey } from './create.ts';
import { apiKeysQuery, listApiKeys } from './read.ts';
import { revokeApiKey } from './revoke.ts';

const apiKeyPath = z.object({ key_id: idSchema('apikey') });

export const apiKeyRoutes = new Hono<AppEnv>()
  .post('/', requirePermission('api_keys:create'), jsonBody(newApiKey), async (c) => {
    const data = await createApiKey(c.var.operation, c.req.valid('json'));
    return c.json({ success: true, message: 'API key created successfully', data }, 201);
  })
  .get('/', requirePermission('api_keys:read'), queryParameters(apiKeysQuery), async (c) => {
    const { rows, pagination } = await listApiKeys(c.var.operation, c.req.valid('query'));
    return c.json({ success: true, data: rows.map(presentApiKey), pagination }, 200);
  })
  .delete('/:key_id', requirePermission('api_keys:revoke'), pathParameters(apiKeyPath), async (c) => {
    const data = await revokeApiKey(c.var.operation, c.req.valid('param').key_id);
    return c.json({ success: true, message: 'API key revoked successfully', data }, 200);
  });
