import { Hono } from 'hono';
import * as z from 'zod';
import { answer } from '../http/answer.ts';
import { requirePermission } from '../decision/caller.ts';
import type { AppEnv } from '../env.ts';
import { idSchema } from '../core/ids.ts';
import { acceptIdempotencyKey } from '../decision/remembered-answers.ts';
import { acceptBookmark } from '../d1/replica-session.ts';
import { changeParameters, jsonBody, pathParameters, queryParameters } from '../http/validation.ts';
import { presentApiKey } from './api-key.ts';
import { createApiKey, newApiKey } from './create.ts';
import { apiKeysQuery, listApiKeys } from './read.ts';
import { revocation, revokeApiKey } from './revoke.ts';
import { rotateApiKey, rotation } from './rotate.ts';

const apiKeyPath = z.object({ key_id: idSchema('apikey') });

/** Says of a repeated answer why the raw key is not in it. */
const seenOnce = (message: string, { raw_key }: { raw_key?: string }) =>
  raw_key === undefined ? `${message}; its raw key was in the first answer alone` : message;

export const apiKeyRoutes = new Hono<AppEnv>()
  .post(
    '/',
    requirePermission('api_keys:create'),
    changeParameters,
    jsonBody(newApiKey),
    acceptIdempotencyKey,
    async (c) => {
      const data = await createApiKey(c.get('operation'), c.req.valid('json'));
      return answer(c, 201, { success: true, message: seenOnce('API key created successfully', data), data });
    },
  )
  .get('/', requirePermission('api_keys:read'), queryParameters(apiKeysQuery), acceptBookmark, async (c) => {
    const { rows, pagination } = await listApiKeys(c.get('operation'), c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentApiKey), pagination });
  })
  .post(
    '/:key_id/rotate',
    requirePermission('api_keys:rotate'),
    pathParameters(apiKeyPath),
    changeParameters,
    jsonBody(rotation),
    acceptIdempotencyKey,
    async (c) => {
      const data = await rotateApiKey(c.get('operation'), c.req.valid('param').key_id, c.req.valid('json'));
      return answer(c, 201, { success: true, message: seenOnce('API key rotated successfully', data), data });
    },
  )
  .delete(
    '/:key_id',
    requirePermission('api_keys:revoke'),
    pathParameters(apiKeyPath),
    queryParameters(revocation),
    acceptIdempotencyKey,
    async (c) => {
      const data = await revokeApiKey(c.get('operation'), c.req.valid('param').key_id, c.req.valid('query'));
      return answer(c, 200, { success: true, message: 'API key revoked successfully', data });
    },
  );
