/**
 * `npm run check:breaking`: fails if the documents break clients of their baselines. `npm run openapi:baseline` makes them
 * the baselines (CONTRIBUTING.md, Releases).
 */
import { copyFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { projectDirectory } from '../operator/command-line/project.ts';
import { breakingChanges } from './breaking-changes.ts';

const documents = [
  { document: 'public/openapi.json', baseline: 'docs/openapi-baseline.json' },
  { document: 'public/operator/openapi.json', baseline: 'docs/operator-openapi-baseline.json' },
];

const inProject = (path: string) => join(projectDirectory, path);
const read = async (path: string): Promise<unknown> => JSON.parse(await readFile(inProject(path), 'utf8'));

const changes: string[] = [];
for (const { document, baseline } of documents) {
  if (process.argv.includes('--renew')) await copyFile(inProject(document), inProject(baseline));
  else changes.push(...breakingChanges(await read(baseline), await read(document)));
}
for (const change of changes) console.error(change);
if (changes.length > 0) {
  console.error('These changes break clients. If they are meant: CONTRIBUTING.md, Releases.');
  process.exitCode = 1;
}
