/** Processes as users start them: the operator's commands, and the server of `npm run dev`. */
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { stripVTControlCharacters } from 'node:util';
import * as z from 'zod';
import packageJson from '../package.json' with { type: 'json' };
import { projectDirectory } from '../src/operator/command-line/project.ts';

export const temporaryDirectory = () => mkdtemp(join(tmpdir(), 'patchbay-'));

export const removeDirectory = (directory: string) => rm(directory, { recursive: true, force: true });

interface Surroundings {
  cwd?: string | undefined;
  environment?: Record<string, string>;
}

/** Runs a program to its end, without a terminal. */
export async function run(
  program: string,
  parameters: string[],
  { cwd = projectDirectory, environment }: Surroundings = {},
) {
  const child = spawn(program, parameters, {
    cwd,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [code]: unknown[] = await closed;
  return { code, stdout, stderr };
}

const scripts = new Map(Object.entries(packageJson.scripts));

/** The words after `node` of an npm script that is a program for Node, for any working directory. */
export function programOf(script: string): string[] {
  const [program, ...words] = scripts.get(script)?.split(' ') ?? [];
  if (program !== 'node') throw new Error(`${script} is no program for Node`);
  return words.map((word) => (/\.[jt]s$/.test(word) ? join(projectDirectory, word) : word));
}

/** Runs an npm script that is a program for Node, without npm around it: npm takes a quarter of a second to start. */
export function runScript(script: string, ...parameters: string[]) {
  return run(process.execPath, [...programOf(script), ...parameters]);
}

/** What `npm run dev` prints once it serves. */
const bannerFormat = new RegExp(
  [
    'Ready on (?<url>http://\\S+)\\s+Organization +(?<organization_id>org_\\S+)',
    'API key +(?<raw_key>bk_live_\\S+)',
    'Integrations +(?<in_use>intg_\\S+) +"Twilio Production", used by (?<numbers>.+)',
    ' +(?<spare>intg_\\S+) +"Telnyx Spare", used by none',
    'Providers +(?<providers>.+)\n',
    '.+\n(?<refused_curl>curl .+)\n',
    '.+\n(?<deleted_curl>curl .+)\n',
  ].join('\n'),
);

const banner = z.object({
  url: z.string(),
  organization_id: z.string(),
  raw_key: z.string(),
  in_use: z.string(),
  numbers: z.string(),
  spare: z.string(),
  providers: z.string(),
  refused_curl: z.string(),
  deleted_curl: z.string(),
});

export type Banner = z.output<typeof banner>;

/** Below the ports that a system gives to whoever asks for any: none of those takes it before the server does. */
export async function freePort(): Promise<number> {
  const candidate = randomInt(10_000, 32_000);
  const server = createServer().listen(candidate, '127.0.0.1');
  const isFree = await once(server, 'listening').then(
    () => true,
    () => false,
  );
  server.close();
  return isFree ? candidate : freePort();
}

interface Started {
  /** Where what it prints is appended to. */
  log: string;
  environment: Record<string, string>;
}

/**
 * Starts an npm script that serves until it is stopped. `stop` is Ctrl-C, which reaches the whole process group; `kill`
 * ends npm alone.
 *
 * It has a process group of its own, so that nothing it starts can outlive the tests, however they end.
 *
 * @param find finds in all that was printed what tells that it serves
 */
async function startScript<Found>(
  words: string[],
  { log, environment }: Started,
  find: (printed: string) => Found | undefined,
) {
  const child = spawn('npm', ['run', ...words], {
    cwd: projectDirectory,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  const group = child.pid;
  if (group === undefined) throw new Error('npm did not start');
  // Its standard input ends with `stop` or with this process, however that goes; then nothing of the group is left.
  const watchdog = spawn('sh', ['-c', 'read -r _; kill -s KILL -- "-$1"', 'sh', String(group)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  const closed = once(child, 'close');
  // A last net: what does not serve in five minutes never will.
  const net = setTimeout(() => interrupt(group), 300_000);

  const serving = Promise.withResolvers<Found>();
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output += stripVTControlCharacters(chunk);
      appendFileSync(log, chunk);
      const found = find(output);
      if (found === undefined) return;
      clearTimeout(net);
      serving.resolve(found);
    });
  }
  child.on('close', () => {
    clearTimeout(net);
    watchdog.stdin.end();
    serving.reject(new Error(`npm run ${words.join(' ')} does not serve, and printed:\n${output}`));
  });

  const stop = async () => {
    interrupt(group);
    await closed;
  };
  return { found: await serving.promise, stop, kill: () => child.kill('SIGTERM') };
}

/** All servers would want the same inspector port, and two that start at once take it from each other. */
const NO_INSPECTOR_PORT = ['--inspector-port', '0'];

/** Where local Workers find each other. By default that is one place for the whole machine. */
const registryOf = (directory: string) => ({ WRANGLER_REGISTRY_PATH: join(directory, 'registry') });

/** Starts `npm run dev` on a state directory. */
export async function startDev(
  directory: string,
  port: number,
  { parameters = [], environment = {} }: { parameters?: string[]; environment?: Record<string, string> } = {},
) {
  const log = join(directory, 'server.log');
  const place = ['--port', String(port), '--persist-to', directory];
  const { found, stop, kill } = await startScript(
    ['dev', '--', ...place, ...NO_INSPECTOR_PORT, ...parameters],
    { log, environment: { ...registryOf(directory), ...environment } },
    (printed) => bannerFormat.exec(printed)?.groups,
  );
  return { banner: banner.parse(found), log, stop, kill };
}

/** Starts a Worker among the examples beside the server of `npm run dev` that has this state directory. */
export async function startExample(
  directory: string,
  port: number,
  { script = 'example', environment = {} }: { script?: string; environment?: Record<string, string> } = {},
) {
  const log = join(directory, `${script}.log`);
  const { found, stop } = await startScript(
    [script, '--', '--port', String(port), '--persist-to', join(directory, script), ...NO_INSPECTOR_PORT],
    // vitest.config.ts keeps wrangler quiet.
    { log, environment: { ...registryOf(directory), WRANGLER_LOG: 'log', ...environment } },
    (printed) => /Ready on (http:\S+)/.exec(printed)?.[1],
  );
  return { url: found, log, stop };
}

/** Ctrl-C, for a process group that may have ended by itself. */
function interrupt(group: number): void {
  try {
    process.kill(-group, 'SIGINT');
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
