/** Webhook endpoints, as several views read and name them. */
import type { InferResponseType } from 'hono/client';
import type { Api } from './session.ts';

export type Endpoint = InferResponseType<Api['webhook-endpoints']['$get'], 200>['data'][number];

/** What came of a message that was sent, as sentences. */
export const outcomeOf = (status: number | null, milliseconds: number | null, error: string | null) =>
  `${error ?? `The answer had status ${status}.`} It took ${milliseconds?.toLocaleString()} ms.`;
