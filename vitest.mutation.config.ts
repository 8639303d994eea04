/** The project `workers` for Stryker, whose vitest runner does not support projects. `TESTS` can name the files to run. */
import { defineConfig } from 'vitest/config';
import { workers } from './vitest.config.ts';

export default defineConfig({
  ...workers,
  test: {
    ...workers.test,
    include: process.env['TESTS']?.split(' ') ?? workers.test.include,
    // Stryker's setup file activates the mutant, so it must come before test/setup.ts, which loads the Worker.
    setupFiles: ['test/mutation.setup.ts', ...workers.test.setupFiles],
    sequence: { setupFiles: 'list' },
    // A test that fails once because the machine is slow must not count as killing a mutant.
    retry: 1,
  },
});
