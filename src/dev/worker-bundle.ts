/** A Worker as one module, with all that it imports. Rolldown's is smaller than esbuild's, which wrangler would use. */
import { join } from 'node:path';
import { rolldown } from 'rolldown';
import type { OutputChunk, Plugin } from 'rolldown';
import { projectDirectory } from '../operator/command-line/project.ts';

/** Where the deployed Worker is built. */
export const target = join(projectDirectory, 'dist/worker');

interface Options {
  minify?: boolean;
  plugins?: Plugin[];
}

/** @param script its path */
export async function bundleWorker(
  script: string,
  { minify = true, plugins = [] }: Options = {},
): Promise<OutputChunk> {
  const bundle = await rolldown({
    input: script,
    plugins,
    platform: 'neutral',
    external: /^cloudflare:/,
    // As wrangler resolves packages.
    resolve: { mainFields: ['module', 'main'], conditionNames: ['workerd', 'worker', 'browser', 'import'] },
  });
  const { output } = await bundle.generate({ dir: target, format: 'esm', minify, comments: false, sourcemap: true });
  return output[0];
}
