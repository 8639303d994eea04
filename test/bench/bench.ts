/**
 * Measures Patchbay. `npm run bench` runs every suite and writes docs/performance.md. With options, as in
 * `-- --suite edge,growth`, it runs what they ask for, prints it, and leaves that page alone. Both write bench-report.json.
 *
 * Each suite has a fresh workerd, and compares within one run: figures are ratios of medians of interleaved rounds. A missed
 * target does not fail the run, because noise of the machine must not. A wrong answer does.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { arch, availableParallelism, cpus, type } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import * as z from 'zod';
import { performancePage } from './page.ts';
import type { Report } from './page.ts';
import { formatTable, formatVerdicts } from './report.ts';
import type { Findings, Settings } from './report.ts';
import { edge } from './suites/edge.ts';
import { growth } from './suites/growth.ts';
import { memory } from './suites/memory.ts';
import { overload } from './suites/overload.ts';
import { ownCpu } from './suites/own-cpu.ts';
import { profile } from './suites/profile.ts';
import { start } from './suites/start.ts';
import { world } from './suites/world.ts';

const suites: Record<string, (settings: Settings) => Promise<Findings>> = {
  'own-cpu': ownCpu,
  edge,
  world,
  overload,
  growth,
  start,
  memory,
  profile,
};
/** Its figures explain others, and are none to compare. */
const notByDefault = 'profile';

const projectDirectory = join(import.meta.dirname, '../..');
const installed = z.object({ version: z.string() });

async function versionOf(name: string): Promise<[string, string]> {
  const path = join(projectDirectory, 'node_modules', name, 'package.json');
  return [name, installed.parse(JSON.parse(await readFile(path, 'utf8'))).version];
}

const { values } = parseArgs({
  options: {
    suite: { type: 'string' },
    rounds: { type: 'string' },
    'kv-ms': { type: 'string', default: '3' },
    'kv-write-ms': { type: 'string', default: '60' },
    'd1-ms': { type: 'string', default: '40' },
    'd1-busy-ms': { type: 'string', default: '25' },
  },
});

function number(name: Exclude<keyof typeof values, 'suite'>): number | undefined {
  const value = values[name];
  if (value !== undefined && !/^\d+$/.test(value)) throw new Error(`--${name} must be a whole number`);
  return value === undefined ? undefined : Number(value);
}

const settings: Settings = {
  rounds: number('rounds'),
  kvMs: number('kv-ms') ?? 0,
  kvWriteMs: number('kv-write-ms') ?? 0,
  d1Ms: number('d1-ms') ?? 0,
  d1BusyMs: number('d1-busy-ms') ?? 0,
};

const chosen = values.suite?.split(',') ?? Object.keys(suites).filter((name) => name !== notByDefault);
const print = (text: string) => process.stdout.write(`${text}\n\n`);

// What the suites keep in memory must not outlive an interrupted run.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

const found: Record<string, Findings & { seconds: number }> = {};
for (const name of chosen) {
  const suite = suites[name];
  if (!suite) throw new Error(`there is no suite ${name}; there are ${Object.keys(suites).join(', ')}`);
  const started = performance.now();
  try {
    const findings = await suite(settings);
    const seconds = Math.round((performance.now() - started) / 1000);
    found[name] = { ...findings, seconds };
    print(`${name} (${seconds} s)\n\n${findings.tables.map(formatTable).join('\n\n')}`);
  } catch (error) {
    process.exitCode = 1;
    print(`${name} failed: ${error instanceof Error ? error.stack : String(error)}`);
  }
}

const verdicts = Object.values(found).flatMap((findings) => findings.verdicts);
if (verdicts.length > 0) print(formatVerdicts(verdicts));

const packages = await Promise.all(['workerd', 'wrangler', 'hono', 'drizzle-orm'].map(versionOf));
const report: Report = {
  date: new Date().toISOString(),
  machine: { cpu: cpus()[0]?.model ?? 'unknown', cores: availableParallelism(), system: `${type()} ${arch()}` },
  versions: { Node: process.versions.node, ...Object.fromEntries(packages) },
  suites: found,
};
await writeFile(join(projectDirectory, 'bench-report.json'), `${JSON.stringify({ ...report, settings }, null, 2)}\n`);
const isWholeRun = process.argv.length === 2 && process.exitCode === undefined;
if (isWholeRun) await writeFile(join(projectDirectory, 'docs/performance.md'), performancePage(report));
