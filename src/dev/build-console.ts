/** `npm run build:console`: bundles the console and its styles into public/console/. */
import { join } from 'node:path';
import { build } from 'esbuild';
import { projectDirectory } from '../operator/command-line/project.ts';

const source = join(projectDirectory, 'src/console');

await build({
  entryPoints: { console: join(source, 'main.tsx'), style: join(source, 'style.css') },
  outdir: join(projectDirectory, 'public/console'),
  tsconfig: join(source, 'tsconfig.json'),
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  legalComments: 'inline',
});
