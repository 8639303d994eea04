/** What each of the operator's commands says to options and files that it cannot use. */
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { removeDirectory, runScript, temporaryDirectory } from '../processes.ts';
import { commands } from './every-command.ts';
import { withState } from './state.ts';

/** Options that a command cannot do without. */
const required: Record<string, string[]> = {
  'keys:create': ['organization', 'role', 'name'],
  'keys:revoke-all': ['organization'],
  'organizations:suspend': ['organization'],
  'organizations:resume': ['organization'],
  'organizations:offboard': ['organization'],
  'operators:create': ['name'],
  'operators:revoke': ['operator-key'],
  'phone-numbers:release': ['phone-number'],
  'recovery:export': ['since', 'file'],
  'recovery:replay': ['file'],
};

const zodsWords = /invalid|expected|received|unrecognized|too (?:small|big)|zod|undefined|null|NaN/i;
const stack = /^ +at /m;

let parent: string;
let never: string;

beforeAll(async () => {
  parent = await temporaryDirectory();
  never = join(parent, 'never');
});

afterAll(() => removeDirectory(parent));

/** Runs a command that must refuse what it was given. @returns a line for each fault */
async function faultsOf(script: string, ...parameters: string[]): Promise<string[]> {
  const { code, stdout, stderr } = await runScript(script, ...parameters);

  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).not.toMatch(/[^\P{Cc}\n]/u);
  expect(stderr).not.toMatch(stack);
  const [faults = '', usage] = stderr.split('\n\n');
  expect(faults).not.toMatch(zodsWords);
  expect(usage).toMatch(new RegExp(`^Usage: npm run (?:--silent )?${script} -- `));
  expect(existsSync(never)).toBe(false);
  return faults.split('\n').toSorted();
}

describe.each(commands)('%s', (script) => {
  const isRequired = (required[script] ?? []).map((name) => `--${name}: is required`);

  it('names what is missing, what is given twice, and what it does not know, with the nearest name that it knows', async () => {
    expect(
      await faultsOf(script, '--unknown', '--persist-two', 'x', '--persist-to', never, '--persist-to', never),
    ).toEqual(
      [
        ...isRequired,
        '--persist-to: must be given once',
        '--persist-two is not a known option; did you mean --persist-to?',
        '--unknown is not a known option',
      ].toSorted(),
    );
  });

  it('names what has no value or one too many, and shows nothing that a terminal would obey', async () => {
    const hostile = ['\u001B]0;title\u0007', 'a\nb\u202E', '--\u001B[31mred'];

    expect(await faultsOf(script, ...hostile, '--remote=yes', '--persist-to')).toEqual(
      [
        ...isRequired,
        'The command line has \\u{1b}]0;title\\u{7}, which is no option. npm needs -- before options',
        'The command line has a\\u{a}b\\u{202e}, which is no option. npm needs -- before options',
        'an option whose name is not shown is not a known option',
        '--persist-to: is for the local database, not for --remote',
        '--persist-to: needs a value',
        '--remote: takes no value',
      ].toSorted(),
    );
  });
});

it.each<[script: string, parameters: string[], fault: string]>([
  [
    'organizations:suspend',
    ['--organization', ''],
    '--organization: must be org_ followed by 1 to 40 of A-Z a-z 0-9 _ -',
  ],
  [
    'organizations:resume',
    ['--organization', 'org_\u001B[31m'],
    '--organization: must be org_ followed by 1 to 40 of A-Z a-z 0-9 _ -',
  ],
  [
    'keys:revoke-all',
    ['--organization', 'first'],
    '--organization: must be org_ followed by 1 to 40 of A-Z a-z 0-9 _ -',
  ],
  ['organizations:offboard', ['--organization', 'org_a', '--yes=1'], '--yes: takes no value'],
  [
    'phone-numbers:release',
    ['--phone-number', '0123'],
    '--phone-number: must be in E.164 format: + and 7 to 15 digits, the first of them not 0',
  ],
  ['phone-numbers:release', ['--phone-number'], '--phone-number: needs a value'],
  ['storage', ['--persist-to='], '--persist-to: must not be empty'],
  ['keks:rotate', ['--step', 'undo'], '--step: must be one of add, promote, retire'],
  ['keks:rotate', ['--step', ''], '--step: must be one of add, promote, retire'],
  ['keks:rotate', ['--step', 'retire'], '--kek: is for --step retire, which needs it'],
  [
    'keks:rotate',
    ['--step', 'retire', '--kek', '\u001B[31m'],
    '--kek: must be 1 to 100 characters long, without control characters',
  ],
  ['keks:rotate', ['--remote'], '--secrets-file: is needed with --remote'],
  [
    'recovery:export',
    ['--file', 'x', '--since', 'yesterday'],
    '--since: must be an RFC 3339 time, like 2030-01-15T10:30:00Z or 2030-01-15T12:30:00+02:00',
  ],
  ['recovery:export', ['--file=', '--since', '2030-01-15T10:30:00Z'], '--file: must not be empty'],
  ['recovery:replay', ['--file', 'x', '--secrets-file='], '--secrets-file: must not be empty'],
  ['recovery:replay', ['--file', 'x', '--remote'], '--secrets-file: is needed with --remote'],
])('%s %j says in one line what is wrong', async (script, parameters, fault) => {
  expect(await faultsOf(script, ...parameters)).toEqual([fault]);
});

describe('a file that cannot be used', () => {
  const since = ['--since', new Date().toISOString()];
  /** Where there is a database, too. */
  let directory: string;

  beforeAll(async () => {
    directory = join(parent, 'state');
    await withState(directory, () => Promise.resolve());
  });

  /** What the command says after the database, if it was opened. */
  async function saidOf(script: string, ...parameters: string[]): Promise<string> {
    const { code, stdout, stderr } = await runScript(script, ...parameters, '--persist-to', directory);

    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).not.toContain('S3cr3t');
    return stderr.trimEnd();
  }

  it.each<{ what: string; script: string; content?: string; options?: string[]; says: RegExp }>([
    {
      what: 'an export to a file that there is',
      script: 'recovery:export',
      content: 'x',
      options: since,
      says: /^\S+ exists already\. Nothing was done\.$/,
    },
    { what: 'a replay of none', script: 'recovery:replay', says: /^\S+ does not exist$/ },
    {
      what: 'a replay of no export',
      script: 'recovery:replay',
      content: '{"event_id":1}\n',
      says: /^Database: .+\n\S+, line 1, is not what recovery:export writes$/,
    },
    {
      what: 'a replay of no JSON',
      script: 'recovery:replay',
      content: 'S3cr3t',
      says: /^Database: .+\n\S+, line 1, is not what recovery:export writes$/,
    },
    { what: 'no ring', script: 'keks:rotate', says: /^\S+ does not exist$/ },
    {
      what: 'a file without a ring',
      script: 'keks:rotate',
      content: 'OTHER=S3cr3t',
      says: /^\S+ has no CREDENTIALS_KEKS, or its form is wrong$/,
    },
    {
      what: 'a ring of a wrong form',
      script: 'keks:rotate',
      content: 'CREDENTIALS_KEKS=S3cr3t',
      says: /^\S+: CREDENTIALS_KEKS is not \{"current": .+\}$/,
    },
  ])('is told in one line, without a stack or its content: $what', async ({ script, content, options = [], says }) => {
    const files = await temporaryDirectory();
    try {
      const file = join(files, 'file');
      if (content !== undefined) await writeFile(file, content);
      const option = script === 'keks:rotate' ? '--secrets-file' : '--file';

      expect(await saidOf(script, option, file, ...options)).toMatch(says);
    } finally {
      await removeDirectory(files);
    }
  });

  it.each<{ what: string; script: string; options: (path: string) => string[]; says: RegExp }>([
    {
      what: 'an export to a directory that does not exist',
      script: 'recovery:export',
      options: (path) => ['--file', join(path, 'none/file'), ...since],
      says: /^\S+\/none does not exist$/,
    },
    {
      what: 'a replay of a directory',
      script: 'recovery:replay',
      options: (path) => ['--file', path],
      says: /^\S+ is a directory, not a file$/,
    },
    {
      what: 'a directory in place of a ring',
      script: 'keks:rotate',
      options: (path) => ['--secrets-file', path],
      says: /^\S+ is a directory, not a file$/,
    },
  ])('is told in one line: $what', async ({ script, options, says }) => {
    expect(await saidOf(script, ...options(parent))).toMatch(says);
  });

  it('is told in one line: a database’s directory that is a file, or in one', async () => {
    const file = join(parent, 'file');
    await writeFile(file, '');
    const key = ['--organization', 'org_a', '--role', 'user', '--name', 'Test', '--create'];

    expect(await runScript('storage', '--persist-to', file)).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringMatching(/^There is no database in \S+\. .+\n$/),
    });
    expect(await runScript('keys:create', ...key, '--persist-to', join(file, 'state'))).toEqual({
      code: 2,
      stdout: '',
      stderr: `${join(file, 'state')} is in something that is not a directory\n`,
    });
  });
});
