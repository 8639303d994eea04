/** @type {import('@stryker-mutator/api/core').PartialStrykerOptions} */
export default {
  testRunner: 'vitest',
  vitest: { configFile: 'vitest.mutation.config.ts' },
  mutate: ['src/{worker,operator}/**/*.ts', '!src/operator/{commands,command-line}/**', '!src/**/*.d.ts'],
  // By default Stryker rewrites tsconfig.json, with an API that TypeScript 7 does not have.
  ignorePatterns: ['tsconfig.json'],
  clearTextReporter: { reportTests: false },
  warnings: { slow: false },
  incremental: true,
  dryRunTimeoutMinutes: 30,
  concurrency: 1,
};
