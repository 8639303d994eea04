/** Workers as they are deployed. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { bundleWorker } from '../../src/dev/worker-bundle.ts';

export const projectDirectory = join(import.meta.dirname, '../..');
const wrangler = join(projectDirectory, 'node_modules/wrangler/bin/wrangler.js');

export interface Bundle {
  code: string;
  gzipBytes: number;
}

const measured = (code: string): Bundle => ({ code, gzipBytes: gzipSync(code).length });

/** What `wrangler deploy` uploads. */
export async function deployed(): Promise<Bundle> {
  const directory = await mkdtemp(join(tmpdir(), 'patchbay-bundle-'));
  try {
    const parameters = ['deploy', '--dry-run', '--outdir', directory];
    await promisify(execFile)(process.execPath, [wrangler, ...parameters], { cwd: projectDirectory });
    return measured(await readFile(join(directory, 'index.js'), 'utf8'));
  } finally {
    await rm(directory, { recursive: true });
  }
}

const bundles = new Map<string, Promise<Bundle>>();

/**
 * Another Worker, bundled as the deployed one is.
 *
 * @param script from the project's directory
 * @param minified or else with the names that a profile is read by
 */
export function bundle(script: string, minified = true): Promise<Bundle> {
  const name = `${script} ${minified}`;
  const made = bundles.get(name) ?? bundleIn(projectDirectory, script, minified);
  bundles.set(name, made);
  return made;
}

/** @param project where the script is, and what it imports */
export async function bundleIn(project: string, script: string, minified: boolean): Promise<Bundle> {
  const { code } = await bundleWorker(join(project, script), { minify: minified });
  return measured(code);
}
