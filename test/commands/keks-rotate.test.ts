/** `npm run keks:rotate`, as an operator types it. The tests follow one another: one rotation, from the first step to the last. */
import { randomBytes } from 'node:crypto';
import { chmod, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import * as z from 'zod';
import { createKeyByCommand } from '../../src/operator/api-keys/create.ts';
import { keepDevServerUrl } from '../../src/operator/command-line/platform.ts';
import { readRingFile } from '../../src/operator/command-line/ring-file.ts';
import { seal } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { credentialsKey } from '../../src/worker/credentials/kv-key.ts';
import { rewrapDataKeys } from '../../src/worker/credentials/rewrap.ts';
import type { Bindings } from '../../src/worker/env.ts';
import { removeDirectory, run, runScript, temporaryDirectory } from '../processes.ts';
import { withState } from './state.ts';

const first = randomBytes(32).toString('base64');
const second = randomBytes(32).toString('base64');
const secret = z.object({ CREDENTIALS_KEKS: z.string(), OTHER: z.literal('kept') });
const ringFormat = z.object({ current: z.string(), keys: z.record(z.string(), z.string()) });

let parent: string;
let directory: string;
let secretsFile: string;
/** The id of the key that is added. */
let added: string;
let printed = '';

beforeAll(async () => {
  parent = await temporaryDirectory();
  // A shell would read it as more than one word, and run some of it.
  directory = join(parent, "it's $(here)");
  secretsFile = join(directory, 'secrets.json');
  await mkdir(directory);
  const CREDENTIALS_KEKS = JSON.stringify({ current: 'k1', keys: { k1: first } });
  await writeFile(secretsFile, JSON.stringify({ CREDENTIALS_KEKS, OTHER: 'kept' }));
  await onState(async ({ DB }) => {
    await createKeyByCommand(DB, { organization_id: 'org_a', role: 'admin', name: 'Test', expires_at: null });
    for (const id of ['intg_000000000001', 'intg_000000000002', 'intg_000000000003']) {
      const place = credentialsKey('org_a', id, 'v');
      const { data_key, kek_id } = await seal(await parseKekRing(CREDENTIALS_KEKS), place, { api_key: 'secret' });
      await DB.prepare(
        `INSERT INTO integrations (organization_id, integration_id, name, provider, category, status, credentials_version,
           data_key, kek_id, created_at, updated_at)
         VALUES ('org_a', ?, 'Telnyx', 'telnyx', 'telephony', 'active', 'v', ?, ?, 0, 0)`,
      )
        .bind(id, data_key, kek_id)
        .run();
    }
  });
});

afterAll(() => removeDirectory(parent));

const onState = <Result>(work: (env: Bindings) => Promise<Result>) => withState(directory, work);

const place = () => ['--persist-to', directory, '--secrets-file', secretsFile];

async function rotate(...parameters: string[]) {
  const outcome = await runScript('keks:rotate', ...parameters, ...place());
  printed += outcome.stdout + outcome.stderr;
  return outcome;
}

/** The words that a shell makes of the printed command, after `npm run keks:rotate --`. */
async function nextCommand(stdout: string): Promise<string[]> {
  const [, words = ''] = /npm run keks:rotate -- (.+)\n$/.exec(stdout) ?? [];
  return (await run('sh', ['-c', `printf '%s\\n' ${words}`])).stdout.trimEnd().split('\n');
}

const bytesOfFile = () => readFile(secretsFile, 'utf8');
const deployed = async () => secret.parse(JSON.parse(await bytesOfFile())).CREDENTIALS_KEKS;
const ring = async () => ringFormat.parse(JSON.parse(await deployed()));

it('tells what each key wraps and what comes next, and does nothing', async () => {
  const before = await bytesOfFile();

  const { code, stdout } = await rotate();

  expect(code).toBe(0);
  expect(stdout).toMatch(/k1 +current +3 data keys\n/);
  expect(await nextCommand(stdout)).toEqual(['--step', 'add', ...place()]);
  expect(await bytesOfFile()).toBe(before);
});

it('shows what a step would do, and does it with --yes alone', async () => {
  const before = await bytesOfFile();

  const { code, stdout } = await rotate('--step', 'add');

  expect(code).toBe(1);
  expect(stdout).toMatch(/Adds the key k\w+ to .*secrets\.json/);
  expect(await bytesOfFile()).toBe(before);
});

it('adds a key that is not current, in a file for its owner alone that keeps its other secrets', async () => {
  await chmod(secretsFile, 0o644);

  const { code, stdout } = await rotate('--step', 'add', '--yes');

  expect(code).toBe(0);
  expect(stdout).toContain('  1. Restart npm run dev');
  expect(await nextCommand(stdout)).toEqual(['--step', 'promote', ...place()]);
  const { current, keys } = await ring();
  expect(current).toBe('k1');
  [, added = ''] = Object.keys(keys);
  expect(keys).toEqual({ k1: first, [added]: expect.stringMatching(/^[A-Za-z0-9+/]{43}=$/) });
  expect((await stat(secretsFile)).mode & 0o777).toBe(0o600);
});

it('makes the newest key current, and names the cron of the dev server that works on the same state', async () => {
  keepDevServerUrl(directory, 'http://localhost:8790');

  const { code, stdout } = await rotate('--step', 'promote', '--yes');

  expect(code).toBe(0);
  expect(stdout).toContain('the cron re-wraps 100 data keys a minute');
  expect(stdout).toContain('curl http://localhost:8790/cdn-cgi/local/scheduled\n');
  expect(await nextCommand(stdout)).toEqual(place());
  expect(await ring()).toMatchObject({ current: added, keys: { k1: first } });
});

it('refuses to retire a key that wraps data keys, says how many, and leaves the file as it was', async () => {
  const before = await bytesOfFile();

  const { code, stderr } = await rotate('--step', 'retire', '--kek', 'k1', '--yes');

  expect(code).toBe(1);
  expect(stderr).toContain('k1 still wraps 3 data keys in D1');
  expect(await bytesOfFile()).toBe(before);
});

it('refuses to retire a key under which credentials are being stored', async () => {
  const CREDENTIALS_KEKS = await deployed();
  await onState(async (env) => {
    await rewrapDataKeys({ ...env, CREDENTIALS_KEKS });
    await env.DB.prepare(
      `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts, state, kek_id)
       VALUES ('v1/org_a/intg_000000000004/v', 'org_a', unixepoch() + 3600, 0, 'intended', 'k1')`,
    ).run();
  });
  const before = await bytesOfFile();

  const { code, stderr } = await rotate('--step', 'retire', '--kek', 'k1', '--yes');

  expect(code).toBe(1);
  expect(stderr).toContain('1 data key under k1 may still be stored by calls that are under way');
  expect(await bytesOfFile()).toBe(before);
});

it('refuses to retire a key for an hour after the current one has first wrapped something', async () => {
  await onState(({ DB }) => DB.prepare('DELETE FROM credential_purges').run());
  const before = await bytesOfFile();

  const { code, stderr } = await rotate('--step', 'retire', '--kek', 'k1', '--yes');

  expect(code).toBe(1);
  expect(stderr).toMatch(/must have been current for an hour.*wait \d+ more minutes/);
  expect(await bytesOfFile()).toBe(before);
});

it('retires a key that wraps nothing any more, and warns of what Time Travel can bring back', async () => {
  await onState(({ DB }) => DB.prepare('UPDATE key_encryption_keys SET created_at = created_at - 3600').run());

  const { code, stdout } = await rotate('--step', 'retire', '--kek', 'k1', '--yes');

  expect(code).toBe(0);
  expect(stdout).toContain('For 30 days, Time Travel can bring rows back that k1 wraps');
  const { current, keys } = await ring();
  expect([current, Object.keys(keys)]).toEqual([added, [added]]);
  // Not the same step again: that is done.
  expect(stdout).toMatch(/Restart npm run dev[^]*For another rotation: /);
  expect(await nextCommand(stdout)).toEqual(['--step', 'add', ...place()]);
});

it('has never printed a key', async () => {
  const { keys } = await ring();

  expect(printed).not.toContain(first);
  expect(printed).not.toContain(keys[added]);
});

it('tells all that is wrong with its options: a secret cannot be read back, so the deployed ring’s file is needed', async () => {
  const { code, stderr } = await runScript('keks:rotate', '--step', 'retire', '--remote');

  expect(code).toBe(2);
  expect(stderr).toContain('--kek: is for --step retire, which needs it');
  expect(stderr).toContain('--secrets-file: is needed with --remote');
});

it('changes the ring of a .dev.vars, and no other line', async () => {
  const path = join(directory, '.dev.vars');
  const line = (current: string) =>
    `CREDENTIALS_KEKS='${JSON.stringify({ current, keys: { k1: first, k2: second } })}'`;
  await writeFile(path, `# Secrets\n${line('k1')}\nOTHER="kept"\n`);

  const file = await readRingFile(path);
  await file.write({ ...file.ring, current: 'k2' });

  expect(await readFile(path, 'utf8')).toBe(`# Secrets\n${line('k2')}\nOTHER="kept"\n`);
});

it.each([
  ['a space before the sign', (value: string) => `CREDENTIALS_KEKS = '${value}'\n`],
  ['an export', (value: string) => `export CREDENTIALS_KEKS='${value}'\n`],
  ['an indent', (value: string) => `  CREDENTIALS_KEKS='${value}'\n`],
  ['the name twice', (value: string) => `CREDENTIALS_KEKS='${value}'\nCREDENTIALS_KEKS='${value}'\n`],
  ['more than one line', (value: string) => `CREDENTIALS_KEKS='${value.replace(',', ',\n')}'\nOTHER=kept\n`],
])('leaves a .dev.vars with %s as it was, and says why', async (_, text) => {
  const path = join(directory, '.dev.vars');
  const before = text(JSON.stringify({ current: 'k1', keys: { k1: first, k2: second } }));
  await writeFile(path, before);

  const file = await readRingFile(path);
  const error: unknown = await file.write({ ...file.ring, current: 'k2' }).catch((thrown: unknown) => thrown);

  expect(String(error)).toContain(`${path} was not changed: it needs CREDENTIALS_KEKS once, in one line`);
  expect(String(error)).not.toContain(first);
  expect(await readFile(path, 'utf8')).toBe(before);
});

it('does not quote a file that it cannot read', async () => {
  const path = join(parent, 'wrong.json');
  await writeFile(path, '{"CREDENTIALS_KEKS": plaintext}');

  await expect(readRingFile(path)).rejects.toThrow(/^\S+wrong\.json has no CREDENTIALS_KEKS, or its form is wrong$/);
});
