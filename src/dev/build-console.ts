/** `npm run build:console`: bundles the console and its styles into public/console/. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from 'rolldown';
import { compile } from 'sass';
import { projectDirectory } from '../operator/command-line/project.ts';

const source = join(projectDirectory, 'src/console');
const target = join(projectDirectory, 'public/console');

await build({
  input: join(source, 'main.tsx'),
  tsconfig: join(source, 'tsconfig.json'),
  platform: 'browser',
  output: {
    file: join(target, 'console.js'),
    format: 'esm',
    minify: true,
    comments: { legal: true, annotation: false, jsdoc: false },
  },
});

const { css } = compile(join(source, 'style.scss'), {
  loadPaths: [join(projectDirectory, 'node_modules')],
  quietDeps: true,
  style: 'compressed',
});
await writeFile(join(target, 'style.css'), css);
