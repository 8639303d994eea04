/**
 * `npm run build:worker`: bundles the Worker into dist/worker/. Wrangler runs it before it deploys or serves the Worker
 * (`build` in wrangler.toml).
 */
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { projectDirectory } from '../operator/command-line/project.ts';
import { withoutUncalled } from './uncalled.ts';
import { bundleWorker, target } from './worker-bundle.ts';

/** Several wranglers may be at work here: none must read half a file. */
async function replace(name: string, text: string): Promise<void> {
  const written = join(target, `${name}.${process.pid}`);
  await writeFile(written, text);
  await rename(written, join(target, name));
}

const { code, map } = await bundleWorker(join(projectDirectory, 'src/worker/index.ts'), {
  plugins: [withoutUncalled()],
}).catch((error: unknown) => {
  // Wrangler shows it with its own stack.
  console.error(error instanceof Error ? stripVTControlCharacters(error.message) : error);
  process.exit(1);
});
await mkdir(target, { recursive: true });
await replace('index.js.map', JSON.stringify(map));
await replace('index.js', code);
// What `wrangler types` names in the types of Workers that bind to this one.
await replace('index.d.ts', "export { CredentialsReader, default } from '../../src/worker/index.ts';\n");
