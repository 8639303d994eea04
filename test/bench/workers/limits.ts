import type { Bindings } from '../../../src/worker/env.ts';

const unlimited: RateLimit = { limit: async () => ({ success: true }) };

/**
 * Rate limits as near as in production, where a call waits for no network; the local ones are another process's work.
 * @see https://developers.cloudflare.com/workers/runtime-apis/bindings/rate-limit/#performance
 */
export const nearLimits = {
  STARTER_LIMIT: unlimited,
  PRO_LIMIT: unlimited,
  ENTERPRISE_LIMIT: unlimited,
  STARTER_MUTATIONS_LIMIT: unlimited,
  PRO_MUTATIONS_LIMIT: unlimited,
  ENTERPRISE_MUTATIONS_LIMIT: unlimited,
  IP_LIMIT: unlimited,
  CREDENTIALS_READER_LIMIT: unlimited,
} satisfies Partial<Bindings>;
