/**
 * `npm run build:docs`: copies the files of swagger-ui that the reference page needs, so that it loads nothing from
 * elsewhere.
 */
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { projectDirectory } from '../operator/command-line/project.ts';

const source = join(projectDirectory, 'node_modules/swagger-ui-dist');

await Promise.all(
  ['swagger-ui.css', 'swagger-ui-bundle.js'].map((name) =>
    copyFile(join(source, name), join(projectDirectory, 'public/docs', name)),
  ),
);
