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

/** Runs a program to its end, without a terminal. */
export async function run(program: string, parameters: string[], cwd = projectDirectory) {
  const child = spawn(program, parameters, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [code]: unknown[] = await closed;
  return { code, stdout, stderr };
}

const scripts = new Map(Object.entries(packageJson.scripts));

/** Runs an npm script that is a program for Node, without npm around it: npm takes a quarter of a second to start. */
export function runScript(script: string, ...parameters: string[]) {
  const [program, ...words] = scripts.get(script)?.split(' ') ?? [];
  if (program !== 'node') throw new Error(`${script} is no program for Node`);
  return run(process.execPath, [...words, ...parameters]);
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

/**
 * Starts `npm run dev` on a state directory. `stop` is Ctrl-C, which reaches the whole process group; `kill` ends npm alone.
 * What it prints is appended to `log`.
 *
 * It has a process group of its own, so that nothing it starts can outlive the tests, however they end.
 */
export async function startDev(
  directory: string,
  port: number,
  { parameters = [], environment = {} }: { parameters?: string[]; environment?: Record<string, string> } = {},
) {
  const place = ['--port', String(port), '--persist-to', directory];
  // All servers would want the same inspector port, and two that start at once take it from each other.
  const child = spawn('npm', ['run', 'dev', '--', ...place, '--inspector-port', '0', ...parameters], {
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
  // A last net: without a banner in five minutes, it will have none.
  const net = setTimeout(() => interrupt(group), 300_000);

  const log = join(directory, 'server.log');
  const printed = Promise.withResolvers<Banner>();
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output += stripVTControlCharacters(chunk);
      appendFileSync(log, chunk);
      const found = bannerFormat.exec(output)?.groups;
      if (!found) return;
      clearTimeout(net);
      printed.resolve(banner.parse(found));
    });
  }
  child.on('close', () => {
    clearTimeout(net);
    watchdog.stdin.end();
    printed.reject(new Error(`npm run dev printed no banner, but:\n${output}`));
  });

  const stop = async () => {
    interrupt(group);
    await closed;
  };
  return { banner: await printed.promise, log, stop, kill: () => child.kill('SIGTERM') };
}

/** Ctrl-C, for a process group that may have ended by itself. */
function interrupt(group: number): void {
  try {
    process.kill(-group, 'SIGINT');
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
