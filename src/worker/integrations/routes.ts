import { Hono } from 'hono';
import * as z from 'zod';
import { answer } from '../http/answer.ts';
import { requirePermission } from '../decision/caller.ts';
import type { AppEnv } from '../env.ts';
import { acceptIdempotencyKey } from '../decision/remembered-answers.ts';
import { idSchema } from '../core/ids.ts';
import { acceptBookmark } from '../d1/replica-session.ts';
import { changeParameters, jsonBody, noQueryParameters, pathParameters, queryParameters } from '../http/validation.ts';
import { createIntegration, newIntegration } from './create.ts';
import { deleteIntegration } from './delete.ts';
import { presentIntegration } from './integration.ts';
import { integrationsQuery, listIntegrations, readIntegration } from './read.ts';
import { integrationChanges, updateIntegration } from './update.ts';

const integrationPath = z.object({ integration_id: idSchema('intg') });

export const integrationRoutes = new Hono<AppEnv>()
  .post(
    '/',
    requirePermission('integrations:create'),
    changeParameters,
    jsonBody(newIntegration),
    acceptIdempotencyKey,
    async (c) => {
      const data = await createIntegration(c.get('operation'), c.req.valid('json'));
      return answer(c, 201, { success: true, message: 'Integration created successfully', data });
    },
  )
  .get('/', requirePermission('integrations:read'), queryParameters(integrationsQuery), acceptBookmark, async (c) => {
    const { rows, pagination } = await listIntegrations(c.get('operation'), c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentIntegration), pagination });
  })
  .get(
    '/:integration_id',
    requirePermission('integrations:read'),
    pathParameters(integrationPath),
    noQueryParameters,
    acceptBookmark,
    async (c) => {
      const data = await readIntegration(c.get('operation'), c.req.valid('param').integration_id);
      return answer(c, 200, { success: true, data });
    },
  )
  .put(
    '/:integration_id',
    requirePermission('integrations:update'),
    pathParameters(integrationPath),
    changeParameters,
    jsonBody(integrationChanges),
    acceptIdempotencyKey,
    async (c) => {
      const data = await updateIntegration(
        c.get('operation'),
        c.req.valid('param').integration_id,
        c.req.valid('json'),
      );
      return answer(c, 200, { success: true, message: 'Integration updated successfully', data });
    },
  )
  .delete(
    '/:integration_id',
    requirePermission('integrations:delete'),
    pathParameters(integrationPath),
    noQueryParameters,
    acceptIdempotencyKey,
    async (c) => {
      const data = await deleteIntegration(c.get('operation'), c.req.valid('param').integration_id);
      return answer(c, 200, { success: true, message: 'Integration deleted successfully', data });
    },
  );
