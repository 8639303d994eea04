/**
 * `npm run check:breaking`: fails if public/openapi.json breaks clients of the baseline. `npm run openapi:baseline` makes
 * it the baseline (CONTRIBUTING.md, Releases).
 */
import { copyFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { projectDirectory } from '../operator/command-line/project.ts';
import { breakingChanges } from './breaking-changes.ts';

const document = join(projectDirectory, 'public/openapi.json');
const baseline = join(projectDirectory, 'docs/openapi-baseline.json');

if (process.argv.includes('--renew')) {
  await copyFile(document, baseline);
} else {
  const [before, after] = await Promise.all([baseline, document].map((path) => readFile(path, 'utf8')));
  const changes = breakingChanges(JSON.parse(before ?? ''), JSON.parse(after ?? ''));
  for (const change of changes) console.error(change);
  if (changes.length > 0) {
    console.error('These changes break clients. If they are meant: CONTRIBUTING.md, Releases.');
    process.exitCode = 1;
  }
}
