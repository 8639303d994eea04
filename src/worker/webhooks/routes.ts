import * as z from 'zod/mini';
import { idSchema } from '../core/ids.ts';
import { answer } from '../http/answer.ts';
import { newRoutes } from '../http/new-routes.ts';
import { mutates, reads } from '../http/route.ts';
import { createEndpoint, newEndpoint } from './create.ts';
import { deleteEndpoint } from './delete.ts';
import { deliveriesQuery, listDeliveries, retryDelivery } from './deliveries.ts';
import { presentDelivery } from './delivery.ts';
import { presentEndpoint } from './endpoint.ts';
import { endpointsQuery, listEndpoints, readEndpoint } from './read.ts';
import { replayEvents, replayQuery } from './replay.ts';
import { rotateSecret, secretRotation } from './rotate.ts';
import { testEndpoint } from './test.ts';
import { endpointChanges, updateEndpoint } from './update.ts';

const path = z.object({ endpoint_id: idSchema('whep') });
const deliveryPath = z.object({ endpoint_id: idSchema('whep'), delivery_id: idSchema('whdel') });

const shownOnce = (message: string, secret: string | undefined) =>
  secret === undefined ? `${message}; the secret was shown only in the first response` : message;

export const webhookRoutes = newRoutes()
  .post('/', mutates('webhooks:create', { body: newEndpoint }), async (c) => {
    const data = await createEndpoint(c.get('call'), c.req.url, c.req.valid('json'));
    const message = shownOnce('Webhook endpoint created successfully', data.secret);
    return answer(c, 201, { success: true, message, data });
  })
  .get('/', reads('webhooks:read', { query: endpointsQuery }), async (c) => {
    const { rows, pagination } = await listEndpoints(c.get('call'), c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentEndpoint), pagination });
  })
  .get('/:endpoint_id', reads('webhooks:read', { path }), async (c) => {
    const data = await readEndpoint(c.get('call'), c.req.valid('param').endpoint_id);
    return answer(c, 200, { success: true, data });
  })
  .put('/:endpoint_id', mutates('webhooks:update', { path, body: endpointChanges }), async (c) => {
    const { endpoint_id } = c.req.valid('param');
    const data = await updateEndpoint(c.get('call'), c.req.url, endpoint_id, c.req.valid('json'));
    return answer(c, 200, { success: true, message: 'Webhook endpoint updated successfully', data });
  })
  .delete('/:endpoint_id', mutates('webhooks:delete', { path }), async (c) => {
    const data = await deleteEndpoint(c.get('call'), c.req.valid('param').endpoint_id);
    return answer(c, 200, { success: true, message: 'Webhook endpoint deleted successfully', data });
  })
  .post('/:endpoint_id/rotate-secret', mutates('webhooks:update', { path, body: secretRotation }), async (c) => {
    const data = await rotateSecret(c.get('call'), c.req.valid('param').endpoint_id, c.req.valid('json'));
    const message = shownOnce('Webhook secret rotated successfully', data.secret);
    return answer(c, 201, { success: true, message, data });
  })
  .post('/:endpoint_id/test', mutates('webhooks:update', { path }), async (c) => {
    const data = await testEndpoint(c.get('call'), c.req.valid('param').endpoint_id);
    const isAnswered = data.last_test?.succeeded === true;
    const message = isAnswered
      ? 'Webhook endpoint answered the test'
      : 'Webhook endpoint did not answer the test with 2xx';
    return answer(c, 200, { success: true, message, data });
  })
  .post('/:endpoint_id/replay', mutates('webhooks:update', { path, query: replayQuery }), async (c) => {
    const data = await replayEvents(c.get('call'), c.req.valid('param').endpoint_id, c.req.valid('query'));
    return answer(c, 202, { success: true, message: 'Events will be sent again', data });
  })
  .get('/:endpoint_id/deliveries', reads('webhooks:read', { path, query: deliveriesQuery }), async (c) => {
    const { endpoint_id } = c.req.valid('param');
    const { rows, pagination } = await listDeliveries(c.get('call'), endpoint_id, c.req.valid('query'));
    return answer(c, 200, { success: true, data: rows.map(presentDelivery), pagination });
  })
  .post(
    '/:endpoint_id/deliveries/:delivery_id/retry',
    mutates('webhooks:update', { path: deliveryPath }),
    async (c) => {
      const { endpoint_id, delivery_id } = c.req.valid('param');
      const data = await retryDelivery(c.get('call'), endpoint_id, delivery_id);
      return answer(c, 202, { success: true, message: 'Event will be sent again', data });
    },
  );
