import * as z from 'zod/mini';
import { idSchema } from '../core/ids.ts';
import { answer, answerUnlessKnown } from '../http/answer.ts';
import { newRoutes } from '../http/new-routes.ts';
import { mutates, reads, verifies, verifyQuery } from '../http/route.ts';
import { createIntegration, newIntegration } from './create.ts';
import { deleteIntegration } from './delete.ts';
import { presentIntegration, tagOf } from './integration.ts';
import { listProviderNumbers, providerNumbersQuery } from './provider-numbers.ts';
import { integrationsQuery, listIntegrations, readIntegration } from './read.ts';
import { integrationChanges, updateIntegration } from './update.ts';
import { verifyIntegration } from './verify.ts';

const path = z.object({ integration_id: idSchema('intg') });

/** Of calls that may bring credentials. */
export const credentialsQuery = verifyQuery();

export const integrationRoutes = newRoutes()
  .post('/', mutates('integrations:create', { query: credentialsQuery, body: newIntegration }), async (c) => {
    const created = await createIntegration(c.get('call'), c.req.valid('json'), verifies(c.req.valid('query')));
    const message = 'Integration created successfully';
    return answer(c, 201, { success: true, message, data: presentIntegration(created) }, { ETag: tagOf(created) });
  })
  .get('/', reads('integrations:read', { query: integrationsQuery }), async (c) => {
    const { rows, pagination } = await listIntegrations(c.get('call'), c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentIntegration), pagination });
  })
  .get('/:integration_id', reads('integrations:read', { path }, { conditional: true }), async (c) => {
    const found = await readIntegration(c.get('call'), c.req.valid('param').integration_id);
    return answerUnlessKnown(c, tagOf(found), { success: true, data: presentIntegration(found) });
  })
  .put(
    '/:integration_id',
    mutates('integrations:update', { path, query: credentialsQuery, body: integrationChanges }, { conditional: true }),
    async (c) => {
      const { integration_id } = c.req.valid('param');
      const updated = await updateIntegration(
        c.get('call'),
        integration_id,
        c.req.valid('json'),
        verifies(c.req.valid('query')),
      );
      const message = 'Integration updated successfully';
      return answer(c, 200, { success: true, message, data: presentIntegration(updated) }, { ETag: tagOf(updated) });
    },
  )
  .get(
    '/:integration_id/provider-numbers',
    reads('phone_numbers:create', { path, query: providerNumbersQuery }),
    async (c) => {
      const { integration_id } = c.req.valid('param');
      const { data, pagination } = await listProviderNumbers(c.get('call'), integration_id, c.req.valid('query'));
      return answer(c, 200, { success: true, data, pagination });
    },
  )
  .post('/:integration_id/verify', mutates('integrations:update', { path }), async (c) => {
    const checked = await verifyIntegration(c.get('call'), c.req.valid('param').integration_id);
    const message = 'Integration checked successfully';
    return answer(c, 200, { success: true, message, data: presentIntegration(checked) }, { ETag: tagOf(checked) });
  })
  .delete('/:integration_id', mutates('integrations:delete', { path }, { conditional: true }), async (c) => {
    const data = await deleteIntegration(c.get('call'), c.req.valid('param').integration_id);
    return answer(c, 200, { success: true, message: 'Integration deleted successfully', data });
  });
