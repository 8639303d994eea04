declare namespace Cloudflare {
  interface Env {
    /** The migrations, read by vitest.config.ts. */
    MIGRATIONS: import('cloudflare:test').D1Migration[];
    /** The origin of receivers of events (test/webhooks/receiver-server.ts). */
    RECEIVERS: string;
    /** A second database, without tables, for a test that needs a replica. */
    REPLICA: D1Database;
  }
}

declare module '*?raw' {
  const text: string;
  export default text;
}
