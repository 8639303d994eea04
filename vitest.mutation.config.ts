/** The project `workers` for Stryker, whose vitest runner knows no projects: all its tests, or the files in `TESTS`. */
import { defineConfig } from 'vitest/config';
import { workers } from './vitest.config.ts';

export default defineConfig({
  ...workers,
  test: {
    ...workers.test,
    include: process.env['TESTS']?.split(' ') ?? workers.test.include,
    // Stryker's own setup file comes first, and switches a mutant on: only then may test/setup.ts load the Worker.
    setupFiles: ['test/mutation.setup.ts', ...workers.test.setupFiles],
    sequence: { setupFiles: 'list' },
    // What fails but once, for slowness, kills no mutant.
    retry: 1,
  },
});
