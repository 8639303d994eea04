/** `npm run keys:create`, as an operator types it. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { crc32 } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { spawnWrangler } from '../../src/operator/command-line/platform.ts';
import { removeDirectory, runScript, temporaryDirectory } from '../processes.ts';
import { withState } from './state.ts';

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
/** Where there was nothing before the first key, `first`, of org_first. */
let directory: string;
let stdout: string;
let stderr: string;
let first: z.output<typeof created>;
/** When the command began and when it had ended, in Unix milliseconds. */
let made: { after: number; before: number };

beforeAll(async () => {
  parent = await temporaryDirectory();
  directory = join(parent, 'state');
  const after = Date.now();
  ({ stdout, stderr } = await create({ '--organization': 'org_first' }, '--json'));
  made = { after, before: Date.now() };
  first = created.parse(JSON.parse(stdout));
});

afterAll(() => removeDirectory(parent));

/** Runs the command with good options but for those named. It makes the database if there is none. */
async function create(named: Record<string, string>, ...flags: string[]) {
  const options = { '--role': 'admin', '--name': 'Test', '--persist-to': directory, ...named };
  const outcome = await runScript('keys:create', ...Object.entries(options).flat(), '--create', ...flags);
  if (outcome.code !== 0) throw new Error(outcome.stderr);
  return outcome;
}

/** Every row of every table of D1. */
const everyRow = (of = directory): Promise<Record<string, unknown[]>> =>
  withState(of, async ({ DB }) => {
    const { results } = await DB.prepare(`SELECT name FROM sqlite_master WHERE type = 'table'`).all();
    const names = z.array(z.object({ name: z.string() })).parse(results);
    const tables = names.filter(({ name }) => !name.startsWith('_cf_'));
    const dumps = tables.map(async ({ name }) => {
      const dump = await DB.prepare(`SELECT * FROM "${name}"`).all();
      return [name, dump.results] as const;
    });
    return Object.fromEntries(await Promise.all(dumps));
  });

async function filesIn(path: string): Promise<Map<string, Buffer>> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
  return new Map(await Promise.all(files.map(async (file) => [file, await readFile(file)] as const)));
}

const sha256 = (value: string) => createHash('sha256').update(value).digest('hex');

describe('a new key', () => {
  it('is printed with --json as one JSON object and nothing else; the database is told on standard error', () => {
    expect(stdout).toBe(`${JSON.stringify(first)}\n`);
    expect(stderr).toBe(`Database: local, in ${directory}\n`);
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
    expect(Date.parse(first.key.created_at)).toBeGreaterThan(made.after - 1000);
    expect(Date.parse(first.key.created_at)).toBeLessThanOrEqual(made.before);
  });

  it('is bk_live_, 50 base62 characters and the base62 CRC-32 of all before', () => {
    expect(first.raw_key).toMatch(/^bk_live_[0-9A-Za-z]{56}$/);
    const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
    let checksum = 0;
    for (const digit of first.raw_key.slice(-6)) checksum = checksum * 62 + digits.indexOf(digit);
    expect(checksum).toBe(crc32(first.raw_key.slice(0, -6)));
  });

  it('is stored as its SHA-256 alone, with its organization, of the tier starter', async () => {
    const rows = await everyRow();
    expect(rows).toMatchObject({
      organizations: [{ organization_id: 'org_first', tier: 'starter' }],
      api_keys: [{ organization_id: 'org_first', key_hash: sha256(first.raw_key) }],
    });
    expect(JSON.stringify(rows)).not.toContain(first.raw_key);
    const files = [...(await filesIn(directory))];
    expect(files.filter(([, bytes]) => bytes.includes(first.raw_key))).toEqual([]);
    expect(files.some(([, bytes]) => bytes.includes(sha256(first.raw_key)))).toBe(true);
  });

  it('has the role, name and expiry that are asked for, and is printed once without --json, for people', async () => {
    const name = `O'Brien"); DROP TABLE api_keys; --`;
    const asked = { '--role': 'user', '--name': name, '--expires-at': '2100-01-15T10:30:00Z' };

    const printed = await create({ '--organization': 'org_first', ...asked });

    const rawKeys = printed.stdout.match(/bk_live_[0-9A-Za-z]{56}/g) ?? [];
    expect(rawKeys).toHaveLength(1);
    expect(printed.stdout).toContain(`of org_first, in this database: local, in ${directory}\n`);
    const { api_keys } = await everyRow();
    expect(api_keys).toContainEqual(
      expect.objectContaining({
        role: 'user',
        name,
        key_hash: sha256(rawKeys.join()),
        expires_at: Date.parse('2100-01-15T10:30:00Z') / 1000,
      }),
    );
  });
});

describe('its organization', () => {
  it('is made of the tier that is asked for, in an empty directory too, and keeps it when none is', async () => {
    const empty = join(parent, 'empty');
    await mkdir(empty);
    const place = { '--organization': 'org_tiers', '--persist-to': empty };
    const expiry = { '--expires-at': '2100-01-15T10:30:00Z' };

    const { stdout: printed } = await create({ ...place, ...expiry, '--tier': 'enterprise' }, '--json');
    expect(created.parse(JSON.parse(printed)).key.expires_at).toBe('2100-01-15T10:30:00Z');
    await create(place, '--json');

    const { organizations } = await everyRow(empty);
    expect(organizations).toMatchObject([{ organization_id: 'org_tiers', tier: 'enterprise' }]);
  });
});

describe('a database that the command has made', () => {
  it('is made with --create alone', async () => {
    const empty = join(parent, 'without');
    await mkdir(empty);
    const options = ['--organization', 'org_first', '--role', 'admin', '--name', 'Test', '--persist-to', empty];

    const { code, stdout: printed, stderr: told } = await runScript('keys:create', ...options);

    expect({ code, stdout: printed }).toEqual({ code: 2, stdout: '' });
    expect(told).toMatch(
      /^There is no database in \S+\. To make one, add --create to keys:create or operators:create, or run first: .+\n$/,
    );
    expect(await readdir(empty)).toEqual([]);
  });

  it('lacks no migration in the eyes of wrangler', async () => {
    const apply = ['d1', 'migrations', 'apply', 'DB', '--local', '--persist-to', directory];

    const { stdout: told } = spawnWrangler(apply, 'ignore');

    expect(await text(told)).toContain('No migrations to apply!');
  });
});

describe('wrong options', () => {
  it.each<{ what: string; options: string[]; says: string[] }>([
    {
      what: 'none at all',
      options: [],
      says: ['--organization: is required', '--role: is required', '--name: is required'],
    },
    {
      what: 'values of no known form',
      options: '--organization first --role root --name= --tier gold --expires-at tomorrow'.split(' '),
      says: [
        '--organization: must be org_',
        '--role: must be one of admin, agent_manager, user',
        '--name: must be 1 to 100 characters',
        '--tier: must be one of starter, pro, enterprise',
        '--expires-at: must be an RFC 3339 time',
      ],
    },
    {
      what: 'a name of 101 characters and an expiry in the past',
      options: `--organization org_a --role user --name ${'n'.repeat(101)} --expires-at 2024-01-15T10:30:00Z`.split(
        ' ',
      ),
      says: ['--name: ', '--expires-at: must be in the future'],
    },
    {
      what: 'an option that there is not',
      options: '--organisation org_a --role user --name Test --scope all'.split(' '),
      says: ['--organisation is not a known option; did you mean --organization?', '--scope is not a known option'],
    },
    {
      what: 'a directory for the deployed database, and that it be made',
      options: '--organization org_a --role user --name Test --remote --create'.split(' '),
      says: [
        '--persist-to: is for the local database, not for --remote',
        '--create: is for the local database, not for --remote',
      ],
    },
  ])(
    'are each named with the usage; the command exits with 2 and makes no directory: $what',
    async ({ options, says }) => {
      const never = join(parent, 'never');

      const {
        code,
        stdout: printed,
        stderr: told,
      } = await runScript('keys:create', ...options, '--json', '--persist-to', never);

      expect({ code, stdout: printed }).toEqual({ code: 2, stdout: '' });
      const [problems = '', usage] = told.split('\n\n');
      expect(problems.split('\n')).toEqual(says.map((beginning) => expect.stringContaining(beginning)));
      expect(usage).toContain('Usage: npm run --silent keys:create --');
      expect(existsSync(never)).toBe(false);
    },
  );
});
