/** An earlier version of Patchbay, to be measured beside this one. */
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The last commit in which a call with an unknown key asks KV, then D1 for the key, and only then does what it is for. */
export const BEFORE = '4cd50ad60d6a332a363c4ecd3d456224cb323c85';

const projectDirectory = join(import.meta.dirname, '../..');

/**
 * Makes the sources of {@link BEFORE}, with this version's workers of test/bench, for as long as they are used. They are
 * inside this project, and so have its packages and its wrangler.toml.
 *
 * @param use receives their directory
 * @throws Error in a clone without the history
 */
export async function withProjectBefore<Result>(use: (directory: string) => Promise<Result>): Promise<Result> {
  const parent = join(projectDirectory, '.wrangler');
  await mkdir(parent, { recursive: true });
  const directory = await mkdtemp(join(parent, 'before-'));
  try {
    const archive = join(directory, 'src.tar');
    await run('git', ['archive', '--output', archive, BEFORE, 'src'], { cwd: projectDirectory });
    await run('tar', ['-xf', archive, '-C', directory]);
    await cp(join(projectDirectory, 'test/bench'), join(directory, 'test/bench'), { recursive: true });
    return await use(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}
