import { cloudflareTest, readD1Migrations } from '@cloudflare/vitest-pool-workers';
import { defineConfig } from 'vitest/config';

const nodeTests = ['test/commands/**/*.test.ts', 'test/conformance/**/*.test.ts'];
const exhaustiveNodeTests = ['test/commands/**/*.exhaustive.test.ts', 'test/conformance/**/*.exhaustive.test.ts'];

export const workers = {
  plugins: [
    cloudflareTest(async () => ({
      wrangler: { configPath: './wrangler.toml' },
      miniflare: {
        bindings: {
          MIGRATIONS: await readD1Migrations('migrations'),
          CREDENTIALS_KEKS: JSON.stringify({
            current: 'k1',
            keys: { k1: Buffer.alloc(32, 'a test KEK').toString('base64') },
          }),
        },
      },
    })),
  ],
  test: {
    name: 'workers',
    include: ['test/**/*.test.ts'],
    exclude: nodeTests,
    setupFiles: ['test/setup.ts'],
    testTimeout: 60_000,
  },
};

const node = {
  globalSetup: 'test/conformance/shared-server.ts',
  // Last nets: what is waited for comes, however busy the machine is.
  testTimeout: 300_000,
  hookTimeout: 300_000,
};

export default defineConfig({
  test: {
    reporters: ['default', ['json', { outputFile: 'test-report.json' }]],
    projects: [
      workers,
      { test: { ...node, name: 'node', include: nodeTests, exclude: exhaustiveNodeTests } },
      { test: { ...node, name: 'exhaustive-node', include: exhaustiveNodeTests } },
    ],
  },
});
