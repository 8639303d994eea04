/** What the black-box tests share: the operator's commands as users type them, the server they start, and a look at its state. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect, vi } from 'vitest';
import * as z from 'zod';
import { openLocal, projectDirectory } from '../../src/cli/platform.ts';
import type { Bindings } from '../../src/env.ts';
import type { Role, Tier } from '../../src/schema.ts';

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
  ]
    .join('\n')
    .replaceAll('\\s+\n', '\\s+'),
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
 * Starts `npm run dev` on a state directory, at a free port unless one is named. `stop` is Ctrl-C.
 *
 * It has a process group of its own, so that nothing it starts can outlive the test, however the test ends.
 */
export async function startDev(directory: string, port = 0) {
  const parameters = ['run', 'dev', '--', '--port', String(port), '--persist-to', directory];
  const child = spawn('npm', parameters, { cwd: projectDirectory, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  const group = child.pid;
  if (group === undefined) throw new Error('npm did not start');
  let closed = false;
  child.on('close', () => (closed = true));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => (output += chunk));
  }

  const signal = (name: 'SIGINT' | 'SIGKILL') => {
    try {
      process.kill(-group, name);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
    }
  };
  const kill = () => signal('SIGKILL');
  process.once('exit', kill);
  const stop = async () => {
    try {
      signal('SIGINT');
      await vi.waitUntil(() => closed, { timeout: STOP_MILLISECONDS });
    } finally {
      kill();
      process.off('exit', kill);
    }
  };

  try {
    await vi.waitUntil(() => closed || bannerFormat.test(output), { timeout: READY_MILLISECONDS, interval: 100 });
    return { ...banner.parse(bannerFormat.exec(output)?.groups), stop };
  } catch (cause) {
    await stop();
    throw new Error(`npm run dev printed no banner, but:\n${output}`, { cause });
  }
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
  const { env, dispose } = await openLocal(directory);
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
    return { status: response.status, headers: response.headers, text: answered, body: JSON.parse(answered) };
  }

  return {
    ...dev,
    env,
    demo,
    call,

    /** A key made by the operator's command. */
    async newClient(organization_id: string, role: Role, tier: Tier = 'enterprise') {
      const parameters = [
        '--organization',
        organization_id,
        '--role',
        role,
        '--tier',
        tier,
        '--name',
        'Test',
        '--json',
      ];
      const { stdout } = await keysCreate(...parameters, '--persist-to', directory);
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

    /** What a refusal must leave as it was, read once the work that follows earlier answers is done. */
    async stored() {
      await vi.waitUntil(async () => (await rows(env, 'credential_purges')).length === 0, {
        timeout: SETTLE_MILLISECONDS,
      });
      return {
        integrations: await rows(env, 'integrations'),
        phone_numbers: await rows(env, 'phone_numbers'),
        CREDENTIALS: await ciphertexts(env),
      };
    },

    /** Stops the server and removes its directory. */
    async close() {
      try {
        await dispose();
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

type Table = 'organizations' | 'api_keys' | 'integrations' | 'phone_numbers' | 'credential_purges';

export async function rows({ DB }: Bindings, table: Table): Promise<Record<string, unknown>[]> {
  const { results } = await DB.prepare(`SELECT * FROM ${table}`).all();
  return results;
}

/** The bytes in CREDENTIALS by key, each byte a character. */
export async function ciphertexts({ CREDENTIALS }: Bindings): Promise<Record<string, string>> {
  const { keys } = await CREDENTIALS.list();
  const entries = keys.map(async ({ name }) => {
    const value = await CREDENTIALS.get(name, 'arrayBuffer');
    return [name, Buffer.from(value ?? new ArrayBuffer(0)).toString('latin1')] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

/** Expects exactly the members of a problem (RFC 9457), and `members` beside them. */
export function expectProblem({ status, headers, body }: Answer, expected: number, code: string, members: object = {}) {
  expect(status).toBe(expected);
  expect(headers.get('Content-Type')).toBe('application/problem+json');
  expect(body).toEqual({
    type: `urn:patchbay:problem:${code}`,
    title: expect.stringMatching(/./),
    status: expected,
    code,
    detail: expect.stringMatching(/./),
    request_id: headers.get('X-Request-Id'),
    ...members,
  });
}
