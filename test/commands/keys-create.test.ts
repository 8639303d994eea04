/** `npm run keys:create`, as an operator types it. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { openLocal } from '../../src/operator/command-line/platform.ts';
import { keysCreate, removeDirectory, temporaryDirectory } from '../conformance/server.ts';

const time = z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);

const created = z.strictObject({
  raw_key: z.string(),
  key: z.strictObject({
    key_id: z.string().regex(/^apikey_[0-9a-f]{12}$/),
    name: z.string(),
    role: z.string(),
    prefix: z.string(),
    client_id: z.string(),
    user_id: z.string().regex(/^user_[A-Za-z0-9_-]{1,40}$/),
    status: z.literal('active'),
    created_at: time,
    last_used_at: z.null(),
    expires_at: time.nullable(),
  }),
});

let parent: string;
/** Holds one key, `first`, of org_first. */
let directory: string;
let stdout: string;
let first: z.output<typeof created>;

beforeAll(async () => {
  parent = await temporaryDirectory();
  directory = join(parent, 'state');
  ({ stdout } = await keysCreate(...options({ '--organization': 'org_first' })));
  first = created.parse(JSON.parse(stdout));
});

afterAll(() => removeDirectory(parent));

type Options = Record<string, string | undefined>;

/** Good arguments but for those named; an undefined one is left out. */
function options(named: Options): string[] {
  const all: Options = { '--role': 'admin', '--name': 'Test', '--persist-to': directory, ...named };
  return [...Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [name, value])), '--json'];
}

async function create(named: Options) {
  const { code, stdout: printed, stderr } = await keysCreate(...options(named));
  if (code !== 0) throw new Error(stderr);
  return created.parse(JSON.parse(printed));
}

/** Every row of every table of D1. */
async function everyRow(of = directory): Promise<Record<string, unknown[]>> {
  const { env, dispose } = await openLocal(of);
  try {
    const { results } = await env.DB.prepare(`SELECT name FROM sqlite_master WHERE type = 'table'`).all();
    const names = z.array(z.object({ name: z.string() })).parse(results);
    const tables = names.filter(({ name }) => !name.startsWith('_cf_'));
    const dumps = tables.map(async ({ name }) => {
      const dump = await env.DB.prepare(`SELECT * FROM "${name}"`).all();
      return [name, dump.results] as const;
    });
    return Object.fromEntries(await Promise.all(dumps));
  } finally {
    await dispose();
  }
}

async function filesIn(path: string): Promise<Map<string, Buffer>> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
  return new Map(await Promise.all(files.map(async (file) => [file, await readFile(file)] as const)));
}

async function tierOf(organization_id: string): Promise<unknown> {
  const { organizations = [] } = await everyRow();
  return z
    .array(z.object({ organization_id: z.string(), tier: z.string() }))
    .parse(organizations)
    .find((row) => row.organization_id === organization_id)?.tier;
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

describe('a new key', () => {
  it('is printed with --json as one JSON object and nothing else', () => {
    expect(stdout).toBe(`${JSON.stringify(first)}\n`);
    expect(Object.keys(first)).toEqual(['raw_key', 'key']);
  });

  it('has the members of a listed key', () => {
    expect(Object.keys(first.key)).toEqual([
      'key_id',
      'name',
      'role',
      'prefix',
      'client_id',
      'user_id',
      'status',
      'created_at',
      'last_used_at',
      'expires_at',
    ]);
    expect(first.key).toMatchObject({ client_id: 'org_first', role: 'admin', name: 'Test', expires_at: null });
    expect(first.key.prefix).toBe(first.raw_key.slice(0, 'bk_live_xxxx'.length));
    expect(Math.abs(Date.parse(first.key.created_at) - Date.now())).toBeLessThan(120_000);
  });

  it('is bk_live_, 50 base62 characters and the base62 CRC-32 of all before', () => {
    expect(first.raw_key).toMatch(/^bk_live_[0-9A-Za-z]{56}$/);
    const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
    let checksum = 0;
    for (const digit of first.raw_key.slice(-6)) checksum = checksum * 62 + digits.indexOf(digit);
    expect(checksum).toBe(crc32(first.raw_key.slice(0, -6)));
  });

  it('is stored as its SHA-256 alone', async () => {
    const dump = JSON.stringify(await everyRow());
    expect(dump).toContain(sha256(first.raw_key));
    expect(dump).not.toContain(first.raw_key);
    const files = [...(await filesIn(directory))];
    expect(files.filter(([, bytes]) => bytes.includes(first.raw_key))).toEqual([]);
    expect(files.some(([, bytes]) => bytes.includes(sha256(first.raw_key)))).toBe(true);
  });

  it('has the role, name and expiry that are asked for', async () => {
    const name = `O'Brien"); DROP TABLE api_keys; --`;
    const { key } = await create({
      '--organization': 'org_first',
      '--role': 'user',
      '--name': name,
      '--expires-at': '2100-01-15T10:30:00Z',
    });

    expect(key).toMatchObject({ role: 'user', name, expires_at: '2100-01-15T10:30:00Z' });
    const { api_keys } = await everyRow();
    expect(api_keys).toContainEqual(
      expect.objectContaining({
        key_id: key.key_id,
        role: 'user',
        name,
        expires_at: Date.parse('2100-01-15T10:30:00Z') / 1000,
      }),
    );
  });

  it('is printed once without --json, for people', async () => {
    const withoutJson = options({ '--organization': 'org_first' }).slice(0, -1);

    const { code, stdout: printed } = await keysCreate(...withoutJson);

    expect(code).toBe(0);
    const rawKeys = printed.match(/bk_live_[0-9A-Za-z]{56}/g) ?? [];
    expect(rawKeys).toHaveLength(1);
    expect(JSON.stringify(await everyRow())).toContain(sha256(rawKeys.join()));
  });
});

describe('its organization', () => {
  it('is made, of the tier starter', async () => {
    expect(await tierOf('org_first')).toBe('starter');
  });

  it('is made of the tier that is asked for, keeps it when none is, and changes it when one is', async () => {
    await create({ '--organization': 'org_tiers', '--tier': 'enterprise' });
    expect(await tierOf('org_tiers')).toBe('enterprise');

    await create({ '--organization': 'org_tiers' });
    expect(await tierOf('org_tiers')).toBe('enterprise');

    await create({ '--organization': 'org_tiers', '--tier': 'pro' });
    expect(await tierOf('org_tiers')).toBe('pro');
    expect(await tierOf('org_first')).toBe('starter');
  });
});

describe('a directory without a database', () => {
  it.each([
    { what: 'is made where there is none', prepare: async () => {} },
    { what: 'may be there and empty', prepare: (path: string) => mkdir(path) },
  ])('$what, and is migrated', async ({ what, prepare }) => {
    const path = join(parent, what);
    await prepare(path);

    const { raw_key } = await create({ '--organization': 'org_new', '--persist-to': path });

    const { api_keys } = await everyRow(path);
    expect(api_keys).toEqual([expect.objectContaining({ organization_id: 'org_new', key_hash: sha256(raw_key) })]);
  });
});

describe('wrong arguments', () => {
  const organization = { '--organization': 'org_first' };

  it.each<{ what: string; named: Options; says: string }>([
    { what: 'no organization', named: {}, says: '--organization' },
    { what: 'an organization that is not org_…', named: { '--organization': 'first' }, says: '--organization' },
    { what: 'no role', named: { ...organization, '--role': undefined }, says: '--role' },
    { what: 'an unknown role', named: { ...organization, '--role': 'root' }, says: '--role' },
    { what: 'no name', named: { ...organization, '--name': undefined }, says: '--name' },
    { what: 'an empty name', named: { ...organization, '--name': '' }, says: '--name' },
    { what: 'a name of 101 characters', named: { ...organization, '--name': 'n'.repeat(101) }, says: '--name' },
    { what: 'an unknown tier', named: { ...organization, '--tier': 'gold' }, says: '--tier' },
    {
      what: 'an expiry in the past',
      named: { ...organization, '--expires-at': '2024-01-15T10:30:00Z' },
      says: 'future',
    },
    { what: 'an expiry that is no time', named: { ...organization, '--expires-at': 'tomorrow' }, says: '--expires-at' },
    { what: 'an option that there is not', named: { ...organization, '--scope': 'all' }, says: '--scope' },
  ])('are refused: $what', async ({ named, says }) => {
    const before = await filesIn(directory);

    const { code, stdout: printed, stderr } = await keysCreate(...options(named));

    expect(code).toBe(2);
    expect(printed).toBe('');
    const [problem] = stderr.split('\n\n');
    expect(problem).toContain(says);
    expect(await filesIn(directory)).toEqual(before);
  });

  it('are a directory for the deployed database', async () => {
    const { code, stdout: printed, stderr } = await keysCreate(...options(organization), '--remote');

    expect(code).toBe(2);
    expect(printed).toBe('');
    expect(stderr).toContain('--persist-to: is for the local database');
  });

  it('make no directory', async () => {
    const path = join(parent, 'never');

    const { code } = await keysCreate(...options({ '--organization': 'first', '--persist-to': path }));

    expect(code).toBe(2);
    expect(existsSync(path)).toBe(false);
  });
});
