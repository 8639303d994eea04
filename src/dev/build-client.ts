/**
 * `npm run build:client`: compiles the typed client to dist/. Its types are written out in full, so that they need only
 * Hono.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { projectDirectory } from '../operator/command-line/project.ts';

const emit = ['--noEmit', 'false', '--declaration', '--rewriteRelativeImportExtensions', '--rootDir', projectDirectory];

const compiler = join(projectDirectory, 'node_modules/typescript/bin/tsc');
const compiled = await mkdtemp(join(tmpdir(), 'patchbay-client-'));
try {
  const child = spawn(process.execPath, [compiler, '--project', projectDirectory, ...emit, '--outDir', compiled], {
    stdio: 'inherit',
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error('The client does not compile.');
  await mkdir(join(projectDirectory, 'dist'), { recursive: true });
  await Promise.all(
    ['client.js', 'client.d.ts'].map((name) =>
      copyFile(join(compiled, 'src/client', name), join(projectDirectory, 'dist', name)),
    ),
  );
} finally {
  await rm(compiled, { recursive: true });
}
