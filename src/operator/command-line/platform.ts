/** The Worker's bindings in Node, for the operator's commands and the dev server. */
import { spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { PlatformProxy } from 'wrangler';
import type { Bindings } from '../../worker/env.ts';
import { CommandError } from './command-error.ts';
import { whyNotOpened } from './deployed-errors.ts';
import { projectDirectory } from './project.ts';

// Wrangler's notes must not appear in the JSON that a command prints, and its warnings do not concern the commands.
process.env['WRANGLER_LOG'] ??= 'error';
// Nothing here needs the network, and without one wrangler would wait for it: to look for a newer version of itself, and
// for what `request.cf` would tell at the edge.
process.env['WRANGLER_HIDE_BANNER'] ??= 'true';
process.env['CLOUDFLARE_CF_FETCH_ENABLED'] ??= 'false';

/** Loading wrangler takes a second, which is too long to tell of a wrong option. */
const loadWrangler = () => import('wrangler');

const configPath = join(projectDirectory, 'wrangler.toml');
const migrationsDirectory = join(projectDirectory, 'migrations');
const wranglerPath = join(projectDirectory, 'node_modules/wrangler/bin/wrangler.js');

/** The directory of the local D1 and KV: wrangler's default, or `--persist-to`, relative to the working directory. */
export function stateDirectory(persistTo: string | undefined): string {
  return persistTo === undefined ? join(projectDirectory, '.wrangler/state') : resolve(persistTo);
}

const devServerUrlPath = (directory: string) => join(directory, 'dev-server-url');

/** Keeps the address of the dev server that works on the directory, for what commands print. */
export function keepDevServerUrl(directory: string, url: string): void {
  writeFileSync(devServerUrlPath(directory), url);
}

/** Where the dev server that last worked on the directory answers, or would by default. */
export function readDevServerUrl(directory: string): Promise<string> {
  return readFile(devServerUrlPath(directory), 'utf8').catch(() => 'http://localhost:8787');
}

/** Whether the directory has a local D1. */
export const hasDatabase = (directory: string) => existsSync(join(directory, 'v3/d1'));

/** The local bindings, with the state that `wrangler dev` uses. The database is migrated first. */
export async function openLocal(directory: string): Promise<PlatformProxy<Bindings>> {
  const { getPlatformProxy } = await loadWrangler();
  // Wrangler's commands keep their state in this folder.
  const local = await getPlatformProxy<Bindings>({ configPath, persist: { path: join(directory, 'v3') } });
  try {
    await applyMigrations(local.env.DB);
    return local;
  } catch (error) {
    await local.dispose();
    throw error;
  }
}

/**
 * Applies missing migrations, and records them in the same table as `wrangler d1 migrations apply` does. Starting
 * wrangler to do this would take most of a command's time.
 */
async function applyMigrations(database: D1Database): Promise<void> {
  await database
    .prepare(
      `CREATE TABLE IF NOT EXISTS d1_migrations(
         id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL)`,
    )
    .run();
  const { unstable_splitSqlQuery } = await loadWrangler();
  const { results } = await database.prepare('SELECT name FROM d1_migrations').all<{ name: string }>();
  const applied = new Set(results.map(({ name }) => name));
  const names = (await readdir(migrationsDirectory)).filter((name) => name.endsWith('.sql') && !applied.has(name));
  for (const name of names.toSorted()) {
    const statements = unstable_splitSqlQuery(await readFile(join(migrationsDirectory, name), 'utf8'));
    await database.batch([
      ...statements.map((statement) => database.prepare(statement)),
      database.prepare('INSERT INTO d1_migrations (name) VALUES (?)').bind(name),
    ]);
  }
}

const remotely = <Binding extends object>(binding: Binding) => ({ ...binding, remote: true });

/** The bindings of an operator's command, local or deployed. */
export type OperatorBindings = Pick<Bindings, 'DB' | 'CREDENTIALS'>;

/**
 * The deployed D1 and CREDENTIALS namespace, and in words which D1 that is. Wrangler signs in as it does for a deployment,
 * but does not ask anything.
 *
 * @throws CommandError that says what to do
 */
export async function openRemote(): Promise<PlatformProxy<OperatorBindings> & { database: string }> {
  // What wrangler logs of a failure it throws, too. And with nothing logged, nobody would see that it waits for a sign-in
  // in a browser.
  process.env['WRANGLER_LOG'] = 'none';
  process.env['CI'] = 'true';
  const { getPlatformProxy, unstable_readConfig } = await loadWrangler();
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
  const platform = await getPlatformProxy<OperatorBindings>({ configPath: remoteConfigPath, persist: false }).catch(
    (error: unknown) => {
      throw new CommandError(whyNotOpened(error));
    },
  );
  const names = d1_databases.map(
    (d1: { database_name?: string; database_id?: string }) => `${d1.database_name} (id ${d1.database_id})`,
  );
  return { ...platform, database: `deployed, ${names.join()}` };
}

/** Starts wrangler with its output piped. */
export function spawnWrangler(parameters: string[], stdin: 'inherit' | 'ignore') {
  return spawn(process.execPath, [wranglerPath, ...parameters, '--config', configPath], {
    stdio: [stdin, 'pipe', 'pipe'],
    env: { ...process.env, WRANGLER_LOG: 'log', WRANGLER_SEND_METRICS: 'false' },
  });
}
