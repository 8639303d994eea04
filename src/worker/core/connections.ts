/**
 * How many calls on D1 and KV one invocation has open at once, at most. The platform keeps what is beyond waiting, and
 * whoever waits for it would count that as time that the binding took.
 *
 * @see https://developers.cloudflare.com/workers/platform/limits/#simultaneous-open-connections
 */
export const MAX_CONNECTIONS = 6;
