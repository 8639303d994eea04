import { cloudflareTest, readD1Migrations } from '@cloudflare/vitest-pool-workers';
import { defineConfig } from 'vitest/config';
import { startSimulation } from './src/dev/simulation.ts';
import { grants } from './test/credentials-reader/grants.ts';
import { startReceivers } from './test/webhooks/receiver-server.ts';

const nodeFolders = ['commands', 'conformance', 'console'];
const nodeTests = nodeFolders.map((folder) => `test/${folder}/**/*.test.ts`);
const exhaustiveNodeTests = nodeFolders.map((folder) => `test/${folder}/**/*.exhaustive.test.ts`);
const exhaustiveTests = ['test/**/*.exhaustive.test.ts'];

// Wrangler does not see that the secret is bound below, and would warn for each file that it is missing.
process.env['WRANGLER_LOG'] ??= 'error';

/** The providers, for all projects of one run. */
const simulation = startSimulation();
void simulation.then(({ unref }) => unref());

/** What receives events, for all projects of one run. */
const receivers = startReceivers();
void receivers.then(({ unref }) => unref());

export const workers = {
  plugins: [
    cloudflareTest(async () => ({
      // Not what is deployed: the tests share modules with the Worker.
      main: './src/worker/index.ts',
      wrangler: { configPath: './wrangler.toml' },
      miniflare: {
        // For a replica of DB (test/faults/revocation.model.ts).
        d1Databases: ['REPLICA'],
        // A queue that nothing consumes: the tests say when a wake-up comes (test/webhooks/receivers.ts). The tests of
        // `wrangler dev` have the real one.
        queueProducers: { WEBHOOK_WAKEUPS: 'unconsumed' },
        bindings: {
          MIGRATIONS: await readD1Migrations('migrations'),
          PROVIDER_ORIGINS: (await simulation).origins,
          CREDENTIALS_READERS: JSON.stringify(grants),
          OPERATOR_API: 'on',
          WEBHOOKS_TO_LOOPBACK: 'on',
          RECEIVERS: (await receivers).origin,
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

const node = {
  globalSetup: 'test/conformance/shared-server.ts',
  // Only for tests that hang. On a busy machine every test may take much longer than usual.
  testTimeout: 300_000,
  hookTimeout: 300_000,
  expect: { poll: { timeout: 240_000, interval: 50 } },
};

export default defineConfig({
  test: {
    reporters: ['default', 'json'],
    outputFile: { json: 'test-report.json' },
    // Prints a line for each file, and the logs of failing tests only.
    silent: 'passed-only',
    slowTestThreshold: 60_000,
    // Each file has a runtime and a storage of its own.
    maxWorkers: '100%',
    projects: [
      workers,
      {
        ...workers,
        test: { ...workers.test, name: 'exhaustive', include: exhaustiveTests, exclude: exhaustiveNodeTests },
      },
      { test: { ...node, name: 'node', include: nodeTests, exclude: exhaustiveNodeTests } },
      { test: { ...node, name: 'exhaustive-node', include: exhaustiveNodeTests } },
    ],
  },
});
