/** The bundle as it is deployed, and the first answer of a fresh isolate: from the start of workerd alone, without Miniflare. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import * as z from 'zod';
import { bundle, deployed } from '../bundle.ts';
import { atMost } from '../report.ts';
import type { Findings, Settings } from '../report.ts';
import { median } from '../statistics.ts';

const ROUNDS = 20;
const KIBIBYTE = 1024;

const ofBench = (worker: string) => () => bundle(`test/bench/workers/${worker}.ts`);

const contenders = {
  bare: { make: ofBench('bare'), status: 200 },
  Hono: { make: ofBench('hello'), status: 200 },
  'Hono and Drizzle': { make: ofBench('hono-drizzle'), status: 200 },
  // Without a key, which no binding is asked about: the whole app has started by then.
  Patchbay: { make: deployed, status: 401 },
};

type Name = keyof typeof contenders;
const names = Object.keys(contenders).filter((name): name is Name => name in contenders);

// The package has no types.
const { default: workerd } = z.object({ default: z.string() }).parse(createRequire(import.meta.url)('workerd'));

export async function start({ rounds = ROUNDS }: Settings): Promise<Findings> {
  const directory = await mkdtemp(join(tmpdir(), 'patchbay-start-'));
  try {
    const milliseconds: Record<Name, number[]> = { bare: [], Hono: [], 'Hono and Drizzle': [], Patchbay: [] };
    const kibibytes: Record<Name, number> = { bare: 0, Hono: 0, 'Hono and Drizzle': 0, Patchbay: 0 };
    for (const name of names) kibibytes[name] = (await writeConfiguration(directory, name)) / KIBIBYTE;
    // Before the rounds one that warms the file system's cache.
    for (let round = -1; round < rounds; round += 1) {
      for (const name of names) {
        const first = await firstAnswer(configurationFile(directory, name), contenders[name].status);
        if (round >= 0) milliseconds[name].push(first);
      }
    }
    const first = (name: Name) => median(milliseconds[name]);
    const rows = [];
    for (const name of names) {
      rows.push({
        worker: name,
        'gzip KiB': kibibytes[name],
        'first answer ms': first(name),
        '÷ Hono and Drizzle': first(name) / first('Hono and Drizzle'),
      });
    }
    return {
      tables: [{ title: `Bundle, and first answer of a fresh isolate: ${rounds} rounds`, rows }],
      verdicts: [
        atMost('bundle, minified: KiB gzip', kibibytes.Patchbay, 100),
        atMost(
          'first answer of a fresh isolate ÷ Hono with Drizzle',
          first('Patchbay') / first('Hono and Drizzle'),
          1.5,
        ),
      ],
    };
  } finally {
    await rm(directory, { recursive: true });
  }
}

const configurationFile = (directory: string, name: Name) => join(directory, `${names.indexOf(name)}.capnp`);

/** @returns the size of its code, compressed */
async function writeConfiguration(directory: string, name: Name): Promise<number> {
  const { code, gzipBytes } = await contenders[name].make();
  const codeFile = `${names.indexOf(name)}.js`;
  await writeFile(join(directory, codeFile), code);
  await writeFile(
    configurationFile(directory, name),
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = (
    modules = [(name = "index.js", esModule = embed "${codeFile}")],
    compatibilityDate = "2026-11-01",
    bindings = [(name = "CORS_ORIGINS", text = "")],
  ))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
`,
  );
  return gzipBytes;
}

const listening = z.object({ event: z.literal('listen'), port: z.int() });

/** @returns milliseconds from the start of the process to the whole of the answer */
async function firstAnswer(configuration: string, status: number): Promise<number> {
  const started = performance.now();
  const child = spawn(workerd, ['serve', configuration, '--control-fd=3'], {
    stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
  });
  try {
    const control = child.stdio[3];
    if (!control || !('read' in control)) throw new Error('workerd has no control channel');
    const port = await portOf(control);
    const answer = await fetch(`http://127.0.0.1:${port}/api/integrations`);
    await answer.text();
    const milliseconds = performance.now() - started;
    if (answer.status !== status) throw new Error(`${configuration}: ${answer.status}`);
    return milliseconds;
  } finally {
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
}

async function portOf(control: Readable): Promise<number> {
  for await (const chunk of control) return listening.parse(JSON.parse(String(chunk))).port;
  throw new Error('workerd does not listen');
}
