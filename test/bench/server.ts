/** A fresh workerd that serves the workers of one suite, each on a socket of its own. */
import { readdir, readFile, mkdtemp, rm } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { Miniflare } from 'miniflare';
import { bundle } from './bundle.ts';
import type { Model } from './workers/model.ts';

const LOOPBACK = '127.0.0.1';
const MEMORY_FILE_SYSTEM = '/dev/shm';

export interface Contender {
  name: string;
  /** Its file in workers/. */
  script: string;
  model: Model;
}

export interface Server {
  url(contender: string): Promise<string>;
  database(contender: string): Promise<D1Database>;
  dispose(): Promise<void>;
}

const unlimited = (namespace: string) =>
  ({ type: 'rate-limit', namespace, simple: { limit: 1_000_000_000, period: 60 } }) as const;

/** @returns once every worker can be called; state is in memory where the machine has a file system there */
export async function serve(contenders: Contender[], inspectorPort?: number): Promise<Server> {
  const parent = existsSync(MEMORY_FILE_SYSTEM) ? MEMORY_FILE_SYSTEM : tmpdir();
  const directory = await mkdtemp(join(parent, 'patchbay-bench-'));
  const workers = await Promise.all(
    contenders.map(async ({ name, script, model }) => ({
      config: {
        name,
        compatibilityDate: '2026-11-01',
        manifest: {
          mainModule: 'index.js',
          modules: { 'index.js': { type: 'esm' as const, contents: (await bundle(script)).code } },
        },
        env: {
          DB: { type: 'd1' as const, id: name },
          KEY_CACHE: { type: 'kv' as const, id: `${name}-keys` },
          CREDENTIALS: { type: 'kv' as const, id: `${name}-credentials` },
          STARTER_LIMIT: unlimited(`${name}-starter`),
          PRO_LIMIT: unlimited(`${name}-pro`),
          ENTERPRISE_LIMIT: unlimited(`${name}-enterprise`),
          IP_LIMIT: unlimited(`${name}-ip`),
          CORS_ORIGINS: { type: 'text' as const, value: '' },
          AUDIT_RETENTION_DAYS: { type: 'text' as const, value: '400' },
          CREDENTIALS_KEKS: { type: 'text' as const, value: keks },
          MODEL: { type: 'text' as const, value: model },
        },
      },
      dev: { unsafeDirectSockets: [{ host: LOOPBACK, port: 0 }] },
    })),
  );
  const miniflare = new Miniflare({
    workers,
    cf: false,
    ...(inspectorPort ? { inspectorPort } : {}),
    logRequests: false,
    resourcePersistencePath: directory,
    handleStructuredLogs: () => {},
  });
  await miniflare.ready;
  return {
    url: async (contender) => (await miniflare.unsafeGetDirectURL(contender)).href,
    database: async (contender) => migrated(await miniflare.getD1Database('DB', contender)),
    async dispose() {
      await miniflare.dispose();
      await rm(directory, { recursive: true });
    },
  };
}

const keks = JSON.stringify({ current: 'k1', keys: { k1: Buffer.alloc(32, 'a bench KEK').toString('base64') } });

const migrationsDirectory = join(import.meta.dirname, '../../migrations');

async function migrated(database: D1Database): Promise<D1Database> {
  const files = (await readdir(migrationsDirectory)).filter((name) => name.endsWith('.sql')).toSorted();
  for (const file of files) {
    const text = await readFile(join(migrationsDirectory, basename(file)), 'utf8');
    await database.batch(text.split('--> statement-breakpoint').map((statement) => database.prepare(statement)));
  }
  return database;
}
