/**
 * Measures Patchbay: `npm run bench`, and what of it with `-- --suite edge,growth`.
 *
 * Each suite has a fresh workerd, and compares within one run: figures are ratios of medians of interleaved rounds. A missed
 * target is told and is no failure: a machine's noise must not be one. A wrong answer is.
 */
import { writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { formatTable, formatVerdicts } from './report.ts';
import type { Findings, Settings } from './report.ts';
import { edge } from './suites/edge.ts';
import { growth } from './suites/growth.ts';
import { local } from './suites/local.ts';
import { memory } from './suites/memory.ts';
import { ownCpu } from './suites/own-cpu.ts';
import { profile } from './suites/profile.ts';
import { start } from './suites/start.ts';

const suites: Record<string, (settings: Settings) => Promise<Findings>> = {
  'own-cpu': ownCpu,
  local,
  edge,
  growth,
  start,
  memory,
  profile,
};
/** Its figures explain others, and are none to compare. */
const notByDefault = 'profile';

const reportFile = join(import.meta.dirname, '../../bench-report.json');

const { values } = parseArgs({
  options: {
    suite: { type: 'string' },
    rounds: { type: 'string' },
    'kv-ms': { type: 'string', default: '3' },
    'kv-write-ms': { type: 'string', default: '60' },
    'd1-ms': { type: 'string', default: '40' },
    'd1-busy-ms': { type: 'string', default: '10' },
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

const machine = { node: process.version, cpu: cpus()[0]?.model, cores: availableParallelism() };
const report = { date: new Date().toISOString(), machine, settings, suites: found };
await writeFile(reportFile, `${JSON.stringify(report, null, 2)}\n`);
