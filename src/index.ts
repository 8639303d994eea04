import { app } from './app.ts';
import { drainPurges } from './credentials/purge.ts';
import type { Bindings } from './env.ts';
import { logError } from './log.ts';

export default {
  fetch: app.fetch,
  async scheduled(_controller, env) {
    try {
      await drainPurges(env);
    } catch (error) {
      logError('drain_failed', error);
      throw error;
    }
  },
} satisfies ExportedHandler<Bindings>;
