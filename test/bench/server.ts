/** A fresh workerd that serves the workers of one suite, each on a socket of its own. */
import { existsSync, rmSync } from 'node:fs';
import { mkdtemp, readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Miniflare } from 'miniflare';
import type { Bindings } from '../../src/worker/env.ts';
import { bundleOf } from './before.ts';
import { bundle } from './bundle.ts';
import type { Settings } from './report.ts';
import type { EdgeTimes } from './workers/edge.ts';
import type { Model } from './workers/model.ts';

const LOOPBACK = '127.0.0.1';
const MEMORY_FILE_SYSTEM = '/dev/shm';

export interface Contender {
  name: string;
  /** Its file in workers/, without the ending. */
  worker: string;
  /** For workers that model.ts makes. */
  model?: Model;
  /** For the model `edge`. */
  times?: EdgeTimes;
  /** Further variables of its environment. */
  variables?: Record<string, string>;
  /** Whose src/ it runs, if not the working tree's. */
  commit?: string;
}

export interface Server {
  url(contender: string): Promise<string>;
  /** Its bindings, as its Worker has them before they are modelled; the database is migrated. */
  bindings(contender: string): Promise<Bindings>;
  dispose(): Promise<void>;
}

/** How long D1's own queue may be is not documented. It is longer than the 5 seconds for which a call waits. */
const D1_QUEUE_MS = 10_000;

export const edgeTimes = ({ kvMs, kvWriteMs, d1Ms, d1BusyMs }: Omit<Settings, 'rounds'>): EdgeTimes => ({
  KV_MS: kvMs,
  KV_WRITE_MS: kvWriteMs,
  D1_MS: d1Ms,
  D1_BUSY_MS: d1BusyMs,
  D1_QUEUE_MS,
});

const unlimited = (namespace: string) =>
  ({ type: 'rate-limit', namespace, simple: { limit: 1_000_000_000, period: 60 } }) as const;

const text = (value: string) => ({ type: 'text', value }) as const;

interface ServerOptions {
  /** Where the inspector's protocol is spoken. */
  inspectorPort?: number;
  minified?: boolean;
}

/** @returns once every worker can be called; state is in memory where the machine has a file system there */
export async function serve(
  contenders: Contender[],
  { inspectorPort, minified = true }: ServerOptions = {},
): Promise<Server> {
  const parent = existsSync(MEMORY_FILE_SYSTEM) ? MEMORY_FILE_SYSTEM : tmpdir();
  const directory = await mkdtemp(join(parent, 'patchbay-bench-'));
  const remove = () => rmSync(directory, { recursive: true, force: true });
  process.once('exit', remove);
  const workers = await Promise.all(contenders.map((contender) => workerOptions(contender, minified)));
  const miniflare = new Miniflare({
    workers,
    cf: false,
    ...(inspectorPort === undefined ? {} : { inspectorPort }),
    logRequests: false,
    resourcePersistencePath: directory,
    handleStructuredLogs: () => {},
  });
  async function dispose() {
    await miniflare.dispose();
    process.off('exit', remove);
    remove();
  }
  try {
    await miniflare.ready;
    for (const { name } of contenders) await migrate(await miniflare.getD1Database('DB', name));
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    url: async (contender) => (await miniflare.unsafeGetDirectURL(contender)).href,
    bindings: (contender) => miniflare.getBindings<Bindings>(contender),
    dispose,
  };
}

async function workerOptions({ name, worker, model = 'real', times, variables, commit }: Contender, minified: boolean) {
  const script = `test/bench/workers/${worker}.ts`;
  const { code } = await (commit === undefined ? bundle(script, minified) : bundleOf(commit, script));
  const all = { MODEL: model, ...times, ...variables };
  return {
    config: {
      name,
      compatibilityDate: '2026-11-01',
      compatibilityFlags: ['enable_request_signal'],
      manifest: { mainModule: 'index.js', modules: { 'index.js': { type: 'esm' as const, contents: code } } },
      env: {
        DB: { type: 'd1' as const, id: `${name}-database` },
        KEY_CACHE: { type: 'kv' as const, id: `${name}-keys` },
        CREDENTIALS: { type: 'kv' as const, id: `${name}-credentials` },
        STARTER_LIMIT: unlimited(`${name}-starter`),
        PRO_LIMIT: unlimited(`${name}-pro`),
        ENTERPRISE_LIMIT: unlimited(`${name}-enterprise`),
        STARTER_MUTATIONS_LIMIT: unlimited(`${name}-starter-mutations`),
        PRO_MUTATIONS_LIMIT: unlimited(`${name}-pro-mutations`),
        ENTERPRISE_MUTATIONS_LIMIT: unlimited(`${name}-enterprise-mutations`),
        IP_LIMIT: unlimited(`${name}-ip`),
        CREDENTIALS_READER_LIMIT: unlimited(`${name}-reader`),
        CREDENTIALS_READERS: text(
          JSON.stringify({ bench: { providers: ['twilio'], organizations: '*', unconfirmed: true } }),
        ),
        CORS_ORIGINS: text(''),
        AUDIT_RETENTION_DAYS: text('400'),
        CREDENTIALS_KEKS: text(keks),
        ...Object.fromEntries(Object.entries(all).map(([variable, value]) => [variable, text(String(value))])),
      },
    },
    dev: { unsafeDirectSockets: [{ host: LOOPBACK, port: 0 }] },
  };
}

const keks = JSON.stringify({ current: 'k1', keys: { k1: Buffer.alloc(32, 'a bench KEK').toString('base64') } });

const migrationsDirectory = join(import.meta.dirname, '../../migrations');

async function migrate(database: D1Database): Promise<void> {
  const files = (await readdir(migrationsDirectory)).filter((name) => name.endsWith('.sql')).toSorted();
  for (const file of files) {
    const statements = (await readFile(join(migrationsDirectory, file), 'utf8')).split('--> statement-breakpoint');
    await database.batch(statements.map((statement) => database.prepare(statement)));
  }
}
