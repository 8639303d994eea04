/** `npm run operators:create`, `operators:list` and `operators:revoke`, as an operator types them. */
import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { isWellFormed } from '../../src/worker/callers/raw-key.ts';
import { operatorPermissions } from '../../src/worker/core/permissions.ts';
import { removeDirectory, runScript, temporaryDirectory } from '../processes.ts';
import { withState } from './state.ts';

const DAY_MILLISECONDS = 86_400_000;

const time = z.iso.datetime().transform((text) => Date.parse(text));

const created = z.strictObject({
  raw_key: z.string(),
  key: z.strictObject({
    operator_key_id: z.string().regex(/^opkey_[0-9a-f]{12}$/),
    name: z.string(),
    prefix: z.string(),
    permissions: z.array(z.string()),
    status: z.literal('active'),
    created_at: time,
    expires_at: time,
    last_used_at: z.null(),
  }),
});

let directory: string;

beforeAll(async () => {
  directory = await temporaryDirectory();
});

afterAll(() => removeDirectory(directory));

const runHere = (script: string, ...parameters: string[]) =>
  runScript(script, ...parameters, '--persist-to', directory);

async function create(...parameters: string[]) {
  const { code, stdout, stderr } = await runHere('operators:create', ...parameters, '--create', '--json');
  if (code !== 0) throw new Error(stderr);
  return created.parse(JSON.parse(stdout));
}

const rows = () =>
  withState(directory, async ({ DB }) => {
    const { results } = await DB.prepare('SELECT * FROM operator_keys').all();
    return results;
  });

describe('operators:create', () => {
  it('makes a key with all permissions for 90 days, and stores its hash alone', async () => {
    const { raw_key, key } = await create('--name', 'Signup service');

    expect(isWellFormed(raw_key, 'bk_operator_')).toBe(true);
    expect(key).toMatchObject({ name: 'Signup service', permissions: operatorPermissions });
    expect(raw_key.startsWith(key.prefix)).toBe(true);
    expect(key.expires_at - key.created_at).toBe(90 * DAY_MILLISECONDS);
    const stored = await rows();
    expect(stored).toEqual([
      expect.objectContaining({
        operator_key_id: key.operator_key_id,
        key_hash: createHash('sha256').update(raw_key).digest('hex'),
      }),
    ]);
    expect(JSON.stringify(stored)).not.toContain(raw_key);
  });

  it('makes one with some permissions, each once, until a time', async () => {
    const soon = new Date(Math.floor(Date.now() / 1000) * 1000 + DAY_MILLISECONDS).toISOString();
    const permissions = 'audit:read, organizations:read,audit:read';

    const { key } = await create('--name', 'Support', '--permissions', permissions, '--expires-at', soon);

    expect(key.permissions).toEqual(['organizations:read', 'audit:read']);
    expect(key.expires_at).toBe(Date.parse(soon));
  });

  const inDays = (days: number) => new Date(Date.now() + days * DAY_MILLISECONDS).toISOString();

  it.each([
    ['a permission that there is not', ['--permissions', 'organizations:create,everything'], '--permissions: must be'],
    ['no permission', ['--permissions', ''], '--permissions: must be some of'],
    ['a later end', ['--expires-at', inDays(91)], '--expires-at: must be at most 90 days ahead'],
    ['an end that has passed', ['--expires-at', inDays(-1)], '--expires-at: must be in the future'],
  ])('refuses %s, and makes nothing', async (_, options, message) => {
    const before = await rows();

    const { code, stdout, stderr } = await runHere('operators:create', '--name', 'Test', ...options);

    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain(message);
    expect(await rows()).toEqual(before);
  });
});

describe('operators:revoke', () => {
  it('ends a key for good, which operators:list then shows', async () => {
    const { key } = await create('--name', 'Leaked');

    const { code, stdout } = await runHere('operators:revoke', '--operator-key', key.operator_key_id, '--yes');

    expect(code).toBe(0);
    expect(stdout).toContain(`${key.operator_key_id} is revoked.`);
    const list = await runHere('operators:list');
    expect(list.stdout).toMatch(new RegExp(`${key.operator_key_id} .* revoked, until`));
    expect(list.stdout).toContain('"Signup service" may: organizations:create');
  });

  it('does nothing without a confirmation, or to a key that there is not', async () => {
    const { key } = await create('--name', 'Kept');
    const before = await rows();

    const unconfirmed = await runHere('operators:revoke', '--operator-key', key.operator_key_id);
    const missing = await runHere('operators:revoke', '--operator-key', 'opkey_000000000000', '--yes');

    expect([unconfirmed.code, missing.code]).toEqual([1, 1]);
    expect(missing.stderr).toContain('There is no operator key opkey_000000000000. Nothing was done.');
    expect(await rows()).toEqual(before);
  });
});
