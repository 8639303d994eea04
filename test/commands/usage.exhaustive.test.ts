/** What each of the operator's commands says to options that it does not know. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import packageJson from '../../package.json' with { type: 'json' };
import { removeDirectory, runScript, temporaryDirectory } from '../processes.ts';

const commands = Object.entries(packageJson.scripts)
  .filter(([, line]) => line.includes(' src/operator/commands/'))
  .map(([script]) => script);

let parent: string;

beforeAll(async () => {
  parent = await temporaryDirectory();
});

afterAll(() => removeDirectory(parent));

it.each(commands)(
  '%s names the option that it does not know, shows its usage, exits with 2 and makes no directory',
  async (script) => {
    const never = join(parent, 'never');

    const { code, stdout, stderr } = await runScript(script, '--unknown', '--persist-to', never);

    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain(`Unknown option '--unknown'`);
    expect(stderr).toMatch(new RegExp(`\n\nUsage: npm run (?:--silent )?${script} -- `));
    expect(existsSync(never)).toBe(false);
  },
);

it('recovery:replay needs the ring’s file for the deployed database, because a secret cannot be read back', async () => {
  const { code, stdout, stderr } = await runScript(
    'recovery:replay',
    '--file',
    join(parent, 'events.jsonl'),
    '--remote',
  );

  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).toContain('--secrets-file: is needed with --remote');
});
