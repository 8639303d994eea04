/** The Worker's bindings in Node, for the operator's commands. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { getPlatformProxy, unstable_readConfig } from 'wrangler';
import type { PlatformProxy } from 'wrangler';
import type { Bindings } from '../../worker/env.ts';
import { projectDirectory } from './project.ts';

// The output is the command's own. Wrangler's notes would stand in its JSON, its warnings are about what no command needs.
process.env['WRANGLER_LOG'] ??= 'error';

const configPath = join(projectDirectory, 'wrangler.toml');
const wranglerPath = join(projectDirectory, 'node_modules/wrangler/bin/wrangler.js');

/** Where the local D1 and KV live: wrangler's default, or what `--persist-to` names, from the working directory. */
export function stateDirectory(persistTo: string | undefined): string {
  return persistTo === undefined ? join(projectDirectory, '.wrangler/state') : resolve(persistTo);
}

/** The local bindings, on the state that `wrangler dev` serves. */
export function openLocal(directory: string): Promise<PlatformProxy<Bindings>> {
  // Wrangler's own commands keep their state in a folder of this version.
  return getPlatformProxy<Bindings>({ configPath, persist: { path: join(directory, 'v3') } });
}

const remotely = <Binding extends object>(binding: Binding) => ({ ...binding, remote: true });

/** What an operator's command works on: the same, local or deployed. */
export type OperatorBindings = Pick<Bindings, 'DB' | 'CREDENTIALS'>;

/** The deployed D1 and credentials. Wrangler signs in as it does for a deployment. */
export async function openRemote(): Promise<PlatformProxy<OperatorBindings>> {
  const { name, account_id, compatibility_date, d1_databases, kv_namespaces } = unstable_readConfig({
    config: configPath,
  });
  const directory = join(projectDirectory, '.wrangler/remote');
  await mkdir(directory, { recursive: true });
  const remoteConfigPath = join(directory, 'wrangler.json');
  const config = {
    name,
    account_id,
    compatibility_date,
    d1_databases: d1_databases.map(remotely),
    kv_namespaces: kv_namespaces
      .filter((namespace: { binding: string }) => namespace.binding === 'CREDENTIALS')
      .map(remotely),
  };
  await writeFile(remoteConfigPath, JSON.stringify(config));
  return getPlatformProxy<OperatorBindings>({ configPath: remoteConfigPath, persist: false });
}

/** Runs wrangler, with its standard output piped and without questions. */
export function spawnWrangler(parameters: string[], stdin: 'inherit' | 'ignore') {
  return spawn(process.execPath, [wranglerPath, ...parameters, '--config', configPath], {
    stdio: [stdin, 'pipe', 'inherit'],
    env: { ...process.env, WRANGLER_LOG: 'log', WRANGLER_SEND_METRICS: 'false' },
  });
}

/**
 * Applies the migrations that the local D1 lacks.
 *
 * @throws Error with wrangler's output when it fails
 */
export async function migrateLocal(directory: string): Promise<void> {
  const child = spawnWrangler(['d1', 'migrations', 'apply', 'DB', '--local', '--persist-to', directory], 'ignore');
  const output: string[] = [];
  child.stdout.setEncoding('utf8').on('data', (text: string) => output.push(text));
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`The migrations were not applied:\n${output.join('')}`);
}
