/**
 * How many calls on D1, KV and Queues one invocation may have open at once. The platform queues any further call, and the time
 * in the queue would count against the call's deadline.
 *
 * @see https://developers.cloudflare.com/workers/platform/limits/#simultaneous-open-connections
 */
export const MAX_CONNECTIONS = 6;

/** Of what follows a decision: its wake-up (decision/wake.ts) is under way too. */
export const CONNECTIONS_AFTER_DECISION = MAX_CONNECTIONS - 1;
