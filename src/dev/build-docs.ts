/** `npm run build:docs`: puts what the reference page needs of swagger-ui beside it, so that it asks no other host. */
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { projectDirectory } from '../operator/command-line/project.ts';

const source = join(projectDirectory, 'node_modules/swagger-ui-dist');

await Promise.all(
  ['swagger-ui.css', 'swagger-ui-bundle.js'].map((name) =>
    copyFile(join(source, name), join(projectDirectory, 'public/docs', name)),
  ),
);
