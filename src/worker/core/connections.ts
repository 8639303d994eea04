/**
 * How many calls on D1 and KV one invocation may have open at once. The platform queues any further call, and the time
 * in the queue would count against the call's deadline.
 *
 * @see https://developers.cloudflare.com/workers/platform/limits/#simultaneous-open-connections
 */
export const MAX_CONNECTIONS = 6;
