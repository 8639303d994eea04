/**
 * `npm run build:client`: compiles the typed client to src/client/dist/. Its types are written out in full; of the
 * Worker's own files it needs only the declarations that they name.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { projectDirectory } from '../operator/command-line/project.ts';

const client = join(projectDirectory, 'src/client');

/** A file and all that it imports by its path. */
async function reachedFrom(file: string, reached = new Set<string>()): Promise<Set<string>> {
  if (reached.has(file)) return reached;
  reached.add(file);
  const text = await readFile(file, 'utf8');
  const declarations = file.endsWith('.d.ts');
  for (const [, path = ''] of text.matchAll(/(?:from |import\()["'](\.[^"']+)["']/g)) {
    const imported = join(dirname(file), declarations ? path.replace(/\.ts$/, '.d.ts') : path);
    await reachedFrom(imported, reached);
  }
  return reached;
}

const compiler = join(projectDirectory, 'node_modules/typescript/bin/tsc');
const compiled = await mkdtemp(join(tmpdir(), 'patchbay-client-'));
const target = join(client, 'dist');
try {
  const child = spawn(process.execPath, [compiler, '--project', client, '--outDir', compiled], {
    stdio: 'inherit',
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error('The client does not compile.');
  await rm(target, { recursive: true, force: true });
  const entry = join(compiled, 'client/client');
  const files = await reachedFrom(`${entry}.d.ts`, await reachedFrom(`${entry}.js`));
  for (const file of files) {
    const copy = join(target, relative(compiled, file));
    await mkdir(dirname(copy), { recursive: true });
    // The compiler rewrites the names of imports in code only.
    const text = await readFile(file, 'utf8');
    await writeFile(copy, text.replaceAll(/(from '\.[^']+)\.ts'/g, "$1.js'"));
  }
  await copyFile(join(projectDirectory, 'LICENSE'), join(client, 'LICENSE'));
} finally {
  await rm(compiled, { recursive: true });
}
