/**
 * The typed client, `patchbay-client`. Its published files import only Hono and, to verify webhooks, the library of Standard
 * Webhooks.
 */
export { patchbayClient, patchbayOperator } from './calls.ts';
export { entries } from './lists.ts';
export { PatchbayError, unwrap } from './problem.ts';
export type { Problem } from './problem.ts';
export { verifyWebhook, WebhookVerificationError } from './webhook.ts';
export type { WebhookEvent } from './webhook.ts';
