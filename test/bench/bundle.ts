/** Workers as `wrangler deploy` makes them. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';

export const projectDirectory = join(import.meta.dirname, '../..');
const wrangler = join(projectDirectory, 'node_modules/wrangler/bin/wrangler.js');

export interface Bundle {
  code: string;
  gzipBytes: number;
}

const bundles = new Map<string, Promise<Bundle>>();

/**
 * @param script from the project's directory
 * @param minified as wrangler.toml says, or else with the names that a profile is read by
 */
export function bundle(script: string, minified = true): Promise<Bundle> {
  const name = `${script} ${minified}`;
  const made = bundles.get(name) ?? bundleIn(projectDirectory, script, minified);
  bundles.set(name, made);
  return made;
}

/** @param project where wrangler.toml is, and what the script imports */
export async function bundleIn(project: string, script: string, minified: boolean): Promise<Bundle> {
  const directory = await mkdtemp(join(tmpdir(), 'patchbay-bundle-'));
  try {
    const parameters = ['deploy', script, '--dry-run', '--outdir', directory, ...(minified ? [] : ['--no-minify'])];
    await promisify(execFile)(process.execPath, [wrangler, ...parameters], { cwd: project });
    const code = await readFile(join(directory, basename(script).replace(/\.ts$/, '.js')), 'utf8');
    return { code, gzipBytes: gzipSync(code).length };
  } finally {
    await rm(directory, { recursive: true });
  }
}
