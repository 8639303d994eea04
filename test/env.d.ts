declare namespace Cloudflare {
  interface Env {
    /** The migrations, read by vitest.config.ts. */
    MIGRATIONS: import('cloudflare:test').D1Migration[];
  }
}

declare module '*?raw' {
  const text: string;
  export default text;
}
