/** The code of an earlier commit, under the working tree's models. */
import { execFile } from 'node:child_process';
import { cp, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { bundleIn, projectDirectory } from './bundle.ts';
import type { Bundle } from './bundle.ts';

/** The last commit in which a call whose key no cache knows asks KV, then D1 for the key, and only then acts. */
export const BEFORE = '4cd50ad60d6a332a363c4ecd3d456224cb323c85';

const run = promisify(execFile);
const bundles = new Map<string, Promise<Bundle>>();

/**
 * Bundles a worker with the `src/` of a commit, and with the packages that are installed.
 *
 * @param script in test/bench/workers, from the project's directory
 */
export function bundleOf(commit: string, script: string): Promise<Bundle> {
  const name = `${commit} ${script}`;
  const made = bundles.get(name) ?? make(commit, script);
  bundles.set(name, made);
  return made;
}

async function make(commit: string, script: string): Promise<Bundle> {
  const directory = await mkdtemp(join(tmpdir(), 'patchbay-before-'));
  try {
    const archive = join(directory, 'before.tar');
    await run('git', ['archive', '-o', archive, commit, 'src', 'package.json', 'tsconfig.json'], {
      cwd: projectDirectory,
    });
    await run('tar', ['-xf', archive, '-C', directory]);
    const models = 'test/bench';
    await cp(join(projectDirectory, models), join(directory, models), { recursive: true });
    await symlink(join(projectDirectory, 'node_modules'), join(directory, 'node_modules'));
    return await bundleIn(directory, script, true);
  } finally {
    await rm(directory, { recursive: true });
  }
}
