/** `npm run openapi`: writes the OpenAPI document to public/openapi.json. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openApiDocument } from '../openapi/document.ts';
import { projectDirectory } from '../operator/command-line/project.ts';

await writeFile(join(projectDirectory, 'public/openapi.json'), `${JSON.stringify(openApiDocument(), null, 2)}\n`);
