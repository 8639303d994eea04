import { defineConfig } from 'orval';

export default defineConfig({
  patchbay: {
    input: '../../../public/openapi.json',
    output: {
      target: 'generated/client.ts',
      client: 'fetch',
      headers: true,
      baseUrl: { runtime: 'globalThis.patchbayUrl' },
    },
  },
});
