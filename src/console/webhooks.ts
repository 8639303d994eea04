/** Webhook endpoints, as several views name them. */
import type { InferResponseType } from 'hono/client';
import type { Api } from './session.ts';

export type Endpoint = InferResponseType<Api['webhook-endpoints']['$get'], 200>['data'][number];
