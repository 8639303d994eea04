/** What the black-box tests share: the operator's commands as users type them, the server they start, and a look at its state. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { stripVTControlCharacters } from 'node:util';
import { expect, vi } from 'vitest';
import * as z from 'zod';
import { projectDirectory } from '../../src/operator/command-line/project.ts';
import type { Role, Tier } from '../../src/worker/core/vocabulary.ts';
import { assertDocumented } from '../documented.ts';

const READY_MILLISECONDS = 90_000;
const STOP_MILLISECONDS = 15_000;
const SETTLE_MILLISECONDS = 10_000;

export const temporaryDirectory = () => mkdtemp(join(tmpdir(), 'patchbay-'));

export const removeDirectory = (directory: string) => rm(directory, { recursive: true, force: true });

/** Runs a command to its end, in the project's directory. */
export async function run(command: string, parameters: string[]) {
  const child = spawn(command, parameters, { cwd: projectDirectory, stdio: ['ignore', 'pipe', 'pipe'] });
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [code]: unknown[] = await closed;
  return { code, stdout, stderr };
}

export const keysCreate = (...parameters: string[]) => run('npm', ['run', '-s', 'keys:create', '--', ...parameters]);

/** What `npm run dev` prints once it serves. */
const bannerFormat = new RegExp(
  [
    'Ready on (?<url>http://\\S+)\\s+Organization +(?<organization_id>org_\\S+)',
    'API key +(?<raw_key>bk_live_\\S+)',
    'Integrations +(?<in_use>intg_\\S+) +"Twilio Production", used by (?<numbers>.+)',
    ' +(?<spare>intg_\\S+) +"Telnyx Spare", used by none\n',
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
  refused_curl: z.string(),
  deleted_curl: z.string(),
});

/**
 * Starts `npm run dev` on a state directory, at a free port unless one is named. `stop` is Ctrl-C, which reaches the
 * whole process group; `kill` ends npm alone.
 *
 * It has a process group of its own, so that nothing it starts can outlive the test, however the test ends.
 */
export async function startDev(directory: string, port = 0, environment: Record<string, string> = {}) {
  // All servers would want the same inspector port, and two that start at once take it from each other.
  const parameters = ['run', 'dev', '--', '--port', String(port), '--persist-to', directory, '--inspector-port', '0'];
  const child = spawn('npm', parameters, {
    cwd: projectDirectory,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  const group = child.pid;
  if (group === undefined) throw new Error('npm did not start');
  let closed = false;
  child.on('close', () => (closed = true));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => (output += stripVTControlCharacters(chunk)));
  }

  // Its standard input ends with `stop` or with this process, however that goes; then nothing of the group is left.
  const watchdog = spawn('sh', ['-c', 'read -r _; kill -s KILL -- "-$1"', 'sh', String(group)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  const stop = async () => {
    try {
      if (!closed) interrupt(group);
      await vi.waitUntil(() => closed, { timeout: STOP_MILLISECONDS });
    } finally {
      watchdog.stdin.end();
    }
  };

  try {
    await vi.waitUntil(() => closed || bannerFormat.test(output), { timeout: READY_MILLISECONDS, interval: 100 });
    const printed = banner.parse(bannerFormat.exec(output)?.groups);
    return { ...printed, ...stateBehind(printed.url), stop, kill: () => child.kill('SIGTERM') };
  } catch (cause) {
    await stop();
    throw new Error(`npm run dev printed no banner, but:\n${output}`, { cause });
  }
}

/** Ctrl-C, for a process group that may just have ended by itself. */
function interrupt(group: number): void {
  try {
    process.kill(-group, 'SIGINT');
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}

const rawResult = z.object({
  result: z.tuple([
    z.object({ results: z.object({ columns: z.array(z.string()), rows: z.array(z.array(z.unknown())) }) }),
  ]),
});
const keyList = z.object({ result: z.array(z.object({ name: z.string() })) });

type Table = 'organizations' | 'api_keys' | 'integrations' | 'phone_numbers' | 'credential_purges';

/**
 * D1 and KV as the server has them, through the REST API that `wrangler dev` serves beside the Worker: one process, one
 * connection. A second process on the same files makes SQLite busy, because local D1 writes a bookmark even for a read.
 */
function stateBehind(url: string) {
  const api = `${url}/cdn-cgi/local/explorer/api`;
  const ciphertextValues = `${api}/storage/kv/namespaces/CREDENTIALS`;

  async function ask(address: string, body?: object): Promise<Response> {
    const headers = { 'Content-Type': 'application/json' };
    const response = await fetch(address, body ? { method: 'POST', headers, body: JSON.stringify(body) } : {});
    if (!response.ok) throw new Error(await response.text());
    return response;
  }

  /** That API takes parameters as strings; columns are STRICT and make numbers of them. */
  async function query(sql: string, ...params: string[]): Promise<Record<string, unknown>[]> {
    const response = await ask(`${api}/d1/database/DB/raw`, { sql, params });
    const [{ results }] = rawResult.parse(await response.json()).result;
    return results.rows.map((row) => Object.fromEntries(results.columns.map((column, index) => [column, row[index]])));
  }

  const rows = (table: Table) => query(`SELECT * FROM ${table}`);

  /** The bytes in CREDENTIALS by key, each byte a character. */
  async function ciphertexts(): Promise<Record<string, string>> {
    const keys = keyList.parse(await (await ask(`${ciphertextValues}/keys`)).json()).result;
    const entries = keys.map(async ({ name }) => {
      const value = await ask(`${ciphertextValues}/values/${encodeURIComponent(name)}`);
      return [name, Buffer.from(await value.arrayBuffer()).toString('latin1')] as const;
    });
    return Object.fromEntries(await Promise.all(entries));
  }

  /** Waits until the outbox is empty: credentials are purged after the answer. */
  const purged = () =>
    vi.waitFor(async () => expect(await rows('credential_purges')).toEqual([]), { timeout: SETTLE_MILLISECONDS });

  /** What a refusal must leave as it was, read once the work that follows earlier answers is done. */
  async function stored() {
    await purged();
    return {
      integrations: await rows('integrations'),
      phone_numbers: await rows('phone_numbers'),
      ciphertexts: await ciphertexts(),
    };
  }

  return { query, rows, ciphertexts, purged, stored };
}

/** An API key of an organization. */
export interface Client {
  organization_id: string;
  raw_key: string;
}

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  body: unknown;
}

interface CallOptions {
  /** A string is sent as it is. */
  body?: unknown;
  /** Sent instead of the caller's own; null leaves a header out. */
  headers?: Record<string, string | null>;
}

const createdKey = z.object({ raw_key: z.string(), key: z.object({ key_id: z.string() }) });
const createdIntegration = z.object({ data: z.object({ integration_id: z.string() }) });
const importedNumber = z.object({ data: z.object({ phone_number_id: z.string() }) });

/** A server on a fresh directory of its own, its demo's key, and its state seen from behind. */
export async function startServer() {
  const directory = await temporaryDirectory();
  const dev = await startDev(directory).catch(async (error: unknown) => {
    await removeDirectory(directory);
    throw error;
  });
  const demo: Client = { organization_id: dev.organization_id, raw_key: dev.raw_key };

  async function call(client: Client, method: string, path: string, options: CallOptions = {}): Promise<Answer> {
    const { body, headers = {} } = options;
    const sent: Record<string, string | null> = {
      'X-API-Key': client.raw_key,
      'X-Organization-Id': client.organization_id,
      ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
      ...headers,
    };
    const response = await fetch(dev.url + path, {
      method,
      headers: Object.entries(sent).flatMap(([name, value]) => (value === null ? [] : [[name, value]])),
      body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
    });
    const answered = await response.text();
    const answer = { status: response.status, headers: response.headers, text: answered, body: JSON.parse(answered) };
    assertDocumented(method, path, answer);
    return answer;
  }

  return {
    ...dev,
    demo,
    call,

    /** A key made by the operator's command. */
    async newClient(organization_id: string, role: Role, tier: Tier = 'enterprise') {
      const asked = ['--organization', organization_id, '--role', role, '--tier', tier, '--name', 'Test'];
      const { code, stdout, stderr } = await keysCreate(...asked, '--persist-to', directory, '--json');
      if (code !== 0) throw new Error(stderr);
      const { raw_key, key } = createdKey.parse(JSON.parse(stdout));
      return { organization_id, raw_key, key_id: key.key_id };
    },

    async createIntegration(client = demo): Promise<string> {
      const body = { name: 'Twilio Production', credentials: twilio };
      const answer = await call(client, 'POST', '/api/integrations', { body });
      return createdIntegration.parse(answer.body).data.integration_id;
    },

    async importNumber(integration_id: string, phone_number: string): Promise<string> {
      const body = { phone_number, provider: 'twilio', integration_id };
      const answer = await call(demo, 'POST', '/api/phone-numbers', { body });
      return importedNumber.parse(answer.body).data.phone_number_id;
    },

    /** Stops the server and removes its directory. */
    async close() {
      try {
        await dev.stop();
      } finally {
        await removeDirectory(directory);
      }
    },
  };
}

export type TestServer = Awaited<ReturnType<typeof startServer>>;

export const twilio = {
  provider: 'twilio',
  account_sid: 'AC0123456789abcdef0123456789abcdef',
  auth_token: 'plaintext-auth-token',
};

/** What an answer is that is a problem (RFC 9457) of this code; `members` are those of its body that are told. */
export function problem(status: number, code: string, members: object = {}) {
  return { status, body: { type: `urn:patchbay:problem:${code}`, status, code, ...members } };
}
