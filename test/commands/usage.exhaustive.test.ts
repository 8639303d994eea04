/** What each of the operator's commands says to options and files that it cannot use. */
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import packageJson from '../../package.json' with { type: 'json' };
import { removeDirectory, runScript, temporaryDirectory } from '../processes.ts';

const commands = Object.entries(packageJson.scripts)
  .filter(([, line]) => line.includes(' src/operator/commands/'))
  .map(([script]) => script);

/** Options that a command cannot do without. */
const required: Record<string, string[]> = {
  'keys:create': ['organization', 'role', 'name'],
  'keys:revoke-all': ['organization'],
  'organizations:suspend': ['organization'],
  'organizations:resume': ['organization'],
  'organizations:offboard': ['organization'],
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

  it('says how it is used', async () => {
    expect(await runScript(script, '--help')).toEqual({
      code: 0,
      stdout: expect.stringMatching(/^Usage: npm run /),
      stderr: '',
    });
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

  it.each<{ what: string; script: string; content?: string; options?: string[]; says: RegExp }>([
    {
      what: 'an export to a file that there is',
      script: 'recovery:export',
      content: 'x',
      options: since,
      says: /^\S+ exists already\. Nothing was done\.$/,
    },
    { what: 'a replay of none', script: 'recovery:replay', says: /^ENOENT: no such file or directory, open '\S+'$/ },
    {
      what: 'a replay of no export',
      script: 'recovery:replay',
      content: '{"event_id":1}\n',
      says: /^\S+, line 1, is not what recovery:export writes$/,
    },
    {
      what: 'a replay of no JSON',
      script: 'recovery:replay',
      content: 'S3cr3t',
      says: /^\S+, line 1, is not what recovery:export writes$/,
    },
    { what: 'no ring', script: 'keks:rotate', says: /^ENOENT: no such file or directory, open '\S+'$/ },
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
    const directory = await temporaryDirectory();
    try {
      const file = join(directory, 'file');
      if (content !== undefined) await writeFile(file, content);
      const option = script === 'keks:rotate' ? '--secrets-file' : '--file';

      const { code, stderr } = await runScript(script, option, file, '--persist-to', directory, ...options);

      expect(code).toBe(1);
      expect(stderr.trimEnd()).toMatch(says);
      expect(stderr).not.toContain('S3cr3t');
    } finally {
      await removeDirectory(directory);
    }
  });

  it('is told in one line: a database’s directory that is a file', async () => {
    await writeFile(join(parent, 'file'), '');

    const { code, stdout, stderr } = await runScript('storage', '--persist-to', join(parent, 'file'));

    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^ENOTDIR: not a directory, mkdir '\S+'\n$/);
  });
});
