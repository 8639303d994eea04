/** What the folders of src/ promise, beyond what lint checks. */
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { projectDirectory } from '../../src/operator/command-line/project.ts';

const worker = join(projectDirectory, 'src/worker');

async function reachedFrom(file: string, reached = new Set<string>()): Promise<Set<string>> {
  if (reached.has(file)) return reached;
  reached.add(file);
  const imports = (await readFile(file, 'utf8')).matchAll(/ from '(\.[^']+)'/g);
  for (const [, path = ''] of imports) await reachedFrom(join(dirname(file), path), reached);
  return reached;
}

it('the Worker reaches every file of src/worker, and no file of another folder', async () => {
  const names = await readdir(worker, { recursive: true });
  const files = names.filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'));

  const reached = await reachedFrom(join(worker, 'index.ts'));

  expect([...reached].toSorted()).toEqual(files.map((name) => join(worker, name)).toSorted());
});
