declare namespace Cloudflare {
  interface Env {
    /** The migrations, read by vitest.config.ts. */
    MIGRATIONS: import('cloudflare:test').D1Migration[];
    /** A second database, for organizations that live apart. */
    DB_1: D1Database;
  }
}

declare module '*?raw' {
  const text: string;
  export default text;
}
