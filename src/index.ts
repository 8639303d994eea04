import { app } from './app.ts';
import { drainPurges } from './credentials/purge.ts';
import type { Bindings } from './env.ts';

export default {
  fetch: app.fetch,
  scheduled: (_controller, env) => drainPurges(env),
} satisfies ExportedHandler<Bindings>;
