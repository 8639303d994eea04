/** `npm run openapi`: writes the OpenAPI documents, where they are served. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openApiDocument, operatorsDocument } from '../openapi/document.ts';
import { projectDirectory } from '../operator/command-line/project.ts';

const documents = { 'openapi.json': openApiDocument(), 'operator/openapi.json': operatorsDocument() };

for (const [path, document] of Object.entries(documents)) {
  await writeFile(join(projectDirectory, 'public', path), `${JSON.stringify(document, null, 2)}\n`);
}
