import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { AFTER_ALL, keysetList, listParameters } from '../d1/list.ts';
import { nearest } from '../d1/replica-session.ts';
import type { ReadingCall } from '../d1/replica-session.ts';
import { webhook_endpoints } from '../d1/schema.ts';
import { endpointColumns, findEndpoint, presentEndpoint } from './endpoint.ts';
import type { EndpointState, WebhookEndpoint } from './endpoint.ts';

/** @throws DomainError `webhook_endpoint_not_found`, `temporarily_unavailable` */
export async function readEndpoint(call: ReadingCall, endpoint_id: string): Promise<WebhookEndpoint> {
  const { organization_id } = call;
  const {
    found: [found],
  } = await nearest(call, { found: findEndpoint.bind({ organization_id, endpoint_id }) });
  if (!found) throw new DomainError('webhook_endpoint_not_found', {});
  return presentEndpoint(found);
}

export const endpointsQuery = z.lazy(() => z.strictObject(listParameters()));

/** The webhook endpoints, oldest first. */
export const listEndpoints = keysetList<never, EndpointState>('webhook_endpoints', {
  table: webhook_endpoints,
  key: [webhook_endpoints.created_at, webhook_endpoints.endpoint_id],
  keyOf: ({ created_at, endpoint_id }) => [created_at, endpoint_id],
  range: () => [
    [0, ''],
    [AFTER_ALL, ''],
  ],
  predicates: {},
  page: (db, isListed, order, limit) =>
    db
      .select(endpointColumns())
      .from(webhook_endpoints)
      .where(isListed)
      .orderBy(...order)
      .limit(limit),
});
