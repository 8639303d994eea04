/**
 * The runbook of a restore (README, Operations), carried out on local D1 and KV: an export, a restore of D1's files, a replay.
 * The tests follow one another.
 */
import { randomBytes } from 'node:crypto';
import { cp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { createKeyByCommand } from '../../src/operator/api-keys/create.ts';
import { app } from '../../src/worker/app.ts';
import { toIso, unixNow } from '../../src/worker/core/time.ts';
import { open } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { credentialsKey } from '../../src/worker/credentials/kv-key.ts';
import type { Bindings } from '../../src/worker/env.ts';
import { problem, twilio } from '../conformance/server.ts';
import { removeDirectory, runScript, temporaryDirectory } from '../processes.ts';
import { withState } from './state.ts';

const ORGANIZATION = 'org_a';
const CREDENTIALS_KEKS = JSON.stringify({ current: 'k1', keys: { k1: randomBytes(32).toString('base64') } });
const renewed = { ...twilio, auth_token: 'renewed-auth-token', region: 'us1' };

const created = z.object({ data: z.object({ integration_id: z.string() }) });
const holder = z.object({ credentials_version: z.string(), data_key: z.string(), kek_id: z.string() });

let directory: string;
let file: string;
let since: string;
let admin: { raw_key: string };
let revoked: { raw_key: string; key_id: string };
let deleted: string;
let updated: string;
let untouched: string;

const onState = <Result>(work: (env: Bindings) => Promise<Result>) =>
  withState(directory, (env) => work({ ...env, CREDENTIALS_KEKS }));

/** Calls the API on the state, and waits for what runs after the answer. */
async function call(env: Bindings, { raw_key }: { raw_key: string }, method: string, path: string, body?: object) {
  const background: Promise<unknown>[] = [];
  const context = {
    waitUntil: (task: Promise<unknown>) => background.push(task),
    passThroughOnException() {},
    props: {},
  };
  const headers = { 'X-API-Key': raw_key, 'X-Organization-Id': ORGANIZATION, 'Content-Type': 'application/json' };
  const init = { method, headers, ...(body && { body: JSON.stringify(body) }) };
  const response = await app.request(path, init, env, context);
  await Promise.all(background);
  const answered: unknown = await response.json();
  return { status: response.status, body: answered };
}

const recovery = (verb: 'export' | 'replay', ...parameters: string[]) =>
  runScript(`recovery:${verb}`, '--file', file, '--persist-to', directory, ...parameters);

beforeAll(async () => {
  directory = await temporaryDirectory();
  file = join(directory, 'events.jsonl');
  await onState(async (env) => {
    const newKey = async () => {
      const key = { organization_id: ORGANIZATION, role: 'admin', name: 'Test', expires_at: null } as const;
      const { raw_key, key: made } = await createKeyByCommand(env.DB, key);
      return { raw_key, key_id: made.key_id };
    };
    admin = await newKey();
    revoked = await newKey();
    const create = async () => {
      const body = { name: 'Twilio', credentials: twilio };
      return created.parse((await call(env, admin, 'POST', '/api/integrations', body)).body).data.integration_id;
    };
    [deleted, updated, untouched] = [await create(), await create(), await create()];
  });
  since = toIso(unixNow());
  await cp(join(directory, 'v3/d1'), join(directory, 'restore-point'), { recursive: true });
  await onState(async (env) => {
    await call(env, admin, 'DELETE', `/api/integrations/${deleted}`);
    await call(env, admin, 'DELETE', `/api/api-keys/${revoked.key_id}`);
    await call(env, admin, 'PUT', `/api/integrations/${updated}`, { credentials: renewed });
  });
});

afterAll(() => removeDirectory(directory));

it('refuses to export since a time that it cannot cover, and leaves no file', async () => {
  const { code, stderr } = await recovery('export', '--since', toIso(unixNow() - 31 * 86_400));

  expect(code).toBe(1);
  expect(stderr).toContain('--since: is more than 30 days ago');
  expect(stderr).toContain('Nothing was done');
  await expect(stat(file)).rejects.toThrow('ENOENT');
});

it('saves what happened since the restore point, in a new file for its owner alone', async () => {
  const { code, stdout } = await recovery('export', '--since', since);

  expect(code).toBe(0);
  expect(stdout).toContain('audit events are in');
  expect(stdout).toContain(`npm run recovery:replay -- --file ${file} --persist-to ${directory}\n`);
  const text = await readFile(file, 'utf8');
  for (const action of ['integration.deleted', 'api_key.revoked', 'integration.updated'])
    expect(text).toContain(action);
  expect(text).not.toMatch(/auth-token|"data_key"|bk_live_[0-9A-Za-z]{56}/);
  expect((await stat(file)).mode & 0o777).toBe(0o600);

  const again = await recovery('export', '--since', since);
  expect(again.code).not.toBe(0);
  expect(await readFile(file, 'utf8')).toBe(text);
});

it('after the restore, what had been deleted and revoked is back', async () => {
  await rm(join(directory, 'v3/d1'), { recursive: true });
  await cp(join(directory, 'restore-point'), join(directory, 'v3/d1'), { recursive: true });

  await onState(async (env) => {
    expect(await call(env, revoked, 'GET', `/api/integrations/${deleted}`)).toMatchObject({ status: 200 });
  });
});

it('a replay without --yes shows what it would do, and does nothing', async () => {
  const { code, stdout } = await recovery('replay');

  expect(code).toBe(1);
  expect(stdout).toContain('1 × integration.deleted');
  expect(stdout).toContain('Nothing was done');
});

it('a replay shows its progress, and which integrations need new credentials', async () => {
  const { code, stdout } = await recovery('replay', '--yes');

  expect(code).toBe(0);
  expect(stdout).toContain('1 deleted again, 1 keys revoked again');
  expect(stdout).toContain('2 KV keys and 2 data keys checked');
  expect(stdout).toMatch(new RegExp(`credentials_missing.*\\n  ${updated}\\n`));
});

it('after the replay, what had been deleted and revoked is so again, and missing credentials can be given anew', async () => {
  await onState(async (env) => {
    const read = (id: string) => call(env, admin, 'GET', `/api/integrations/${id}`);
    expect(await read(deleted)).toMatchObject(problem(404, 'integration_not_found'));
    expect(await call(env, revoked, 'DELETE', `/api/integrations/${untouched}`)).toMatchObject(
      problem(401, 'invalid_api_key'),
    );
    expect(await read(untouched)).toMatchObject({ status: 200, body: { data: { status: 'active' } } });
    expect(await read(updated)).toMatchObject({ body: { data: { status: 'credentials_missing' } } });
    const trail = await call(env, admin, 'GET', `/api/audit-events?target_id=${deleted}`);
    expect(trail.body).toMatchObject({ data: [{ action: 'integration.created' }, { action: 'integration.deleted' }] });

    const healing = await call(env, admin, 'PUT', `/api/integrations/${updated}`, { credentials: renewed });
    expect(healing).toMatchObject({ status: 200, body: { data: { status: 'active' } } });
    const row = await env.DB.prepare('SELECT * FROM integrations WHERE integration_id = ?').bind(updated).first();
    const { credentials_version, ...wrapped } = holder.parse(row);
    const place = credentialsKey(ORGANIZATION, updated, credentials_version);
    const ciphertext = await env.CREDENTIALS.get(place, 'arrayBuffer');
    expect(await open(await parseKekRing(CREDENTIALS_KEKS), place, wrapped, new Uint8Array(ciphertext ?? []))).toEqual(
      renewed,
    );
  });
});

it('after the replay, a revoked key that was still cached can read for a minute at most', async () => {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 61_000 });
  try {
    await onState(async (env) => {
      expect(await call(env, revoked, 'GET', '/api/integrations')).toMatchObject(problem(401, 'invalid_api_key'));
    });
  } finally {
    vi.useRealTimers();
  }
});

it('a second replay changes nothing', async () => {
  const { code, stdout } = await recovery('replay', '--yes');

  expect(code).toBe(0);
  expect(stdout).toContain(
    '0 audit events put back, 0 deleted again, 0 keys revoked again, 0 organizations changed again',
  );
  expect(stdout).not.toContain('intg_');
});

it('a replay says beforehand that all credentials under a key that the ring lacks count as lost', async () => {
  const path = join(directory, 'secrets.json');
  const k2 = JSON.stringify({ current: 'k2', keys: { k2: randomBytes(32).toString('base64') } });
  await writeFile(path, JSON.stringify({ CREDENTIALS_KEKS: k2 }));

  const { code, stdout } = await recovery('replay', '--secrets-file', path);

  expect(code).toBe(1);
  expect(stdout).toContain('The ring has no k1: all credentials under it count as lost');
});

it('every replay lists what is left for people to do, and nothing that the ring of a file opens', async () => {
  const path = join(directory, 'secrets.json');
  await writeFile(path, JSON.stringify({ CREDENTIALS_KEKS }));
  await onState(({ DB }) =>
    DB.prepare(`UPDATE integrations SET status = 'credentials_missing' WHERE integration_id = ?`).bind(untouched).run(),
  );

  const { stdout } = await recovery('replay', '--secrets-file', path, '--yes');

  expect(stdout).toMatch(new RegExp(`credentials_missing.*\\n  ${untouched}\\n`));
  expect(stdout).not.toContain(updated);
});
