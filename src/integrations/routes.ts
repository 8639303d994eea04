import { Hono } from 'hono';
import * as z from 'zod';
import { requirePermission } from '../auth/authorize.ts';
import type { AppEnv } from '../env.ts';
import { idSchema } from '../ids.ts';
import { jsonBody, pathParameters } from '../validation.ts';
import { createIntegration, newIntegration } from './create.ts';
import { deleteIntegration } from './delete.ts';

export const integrationRoutes = new Hono<AppEnv>()
  .post('/', requirePermission('integrations:create'), jsonBody(newIntegration), async (c) => {
    const data = await createIntegration(c.var.operation, c.req.valid('json'));
    return c.json({ success: true, message: 'Integration created successfully', data }, 201);
  })
  .delete(
    '/:integration_id',
    requirePermission('integrations:delete'),
    pathParameters(z.object({ integration_id: idSchema('intg') })),
    async (c) => {
      const data = await deleteIntegration(c.var.operation, c.req.valid('param').integration_id);
      return c.json({ success: true, message: 'Integration deleted successfully', data }, 200);
    },
  );
