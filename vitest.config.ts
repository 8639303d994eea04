import { cloudflareTest, readD1Migrations } from '@cloudflare/vitest-pool-workers';
import { defineConfig } from 'vitest/config';

const nodeTests = ['test/commands/**/*.test.ts', 'test/conformance/**/*.test.ts'];
const exhaustiveTests = ['test/**/*.exhaustive.test.ts'];

// Wrangler looks for the secret that is bound below, and would warn once for each file that it is missing.
process.env['WRANGLER_LOG'] ??= 'error';

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
    exclude: [...nodeTests, ...exhaustiveTests],
    setupFiles: ['test/setup.ts'],
    // The last net under a test that hangs: a slow machine must not fall into it.
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
};

export default defineConfig({
  test: {
    reporters: ['default', 'json'],
    outputFile: { json: 'test-report.json' },
    // A line for each file, and of each failing test what it logged.
    silent: 'passed-only',
    slowTestThreshold: 60_000,
    // Each file has a runtime and a storage of its own.
    maxWorkers: '100%',
    projects: [
      workers,
      { ...workers, test: { ...workers.test, name: 'exhaustive', include: exhaustiveTests, exclude: [] } },
      {
        test: {
          name: 'node',
          include: nodeTests,
          testTimeout: 60_000,
          hookTimeout: 120_000,
          // These tests read what Wrangler says.
          env: { WRANGLER_LOG: 'log' },
        },
      },
    ],
  },
});
