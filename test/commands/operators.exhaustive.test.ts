/** What asks before it acts, without a terminal to ask at and without `--yes`. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createKeyByCommand } from '../../src/operator/api-keys/create.ts';
import { removeDirectory, runScript, temporaryDirectory } from '../processes.ts';
import { withState } from './state.ts';

const ORGANIZATION = 'org_a';
const PHONE_NUMBER = '+14155550100';

let directory: string;

beforeAll(async () => {
  directory = await temporaryDirectory();
  await withState(directory, async ({ DB }) => {
    const key = { organization_id: ORGANIZATION, role: 'admin', name: 'Test', expires_at: null } as const;
    await createKeyByCommand(DB, key);
    await DB.prepare(
      `INSERT INTO phone_numbers (phone_number_id, organization_id, phone_number, provider, status, supports_inbound,
         supports_outbound, created_at, updated_at)
       VALUES ('phon_000000000001', ?, ?, 'sip', 'free', 0, 0, 0, 0)`,
    )
      .bind(ORGANIZATION, PHONE_NUMBER)
      .run();
  });
});

afterAll(() => removeDirectory(directory));

const everything = () =>
  withState(directory, async ({ DB }) => {
    const tables = ['organizations', 'api_keys', 'phone_numbers', 'audit_events'];
    const dumps = await DB.batch(tables.map((table) => DB.prepare(`SELECT * FROM ${table}`)));
    return dumps.map(({ results }) => results);
  });

it.each([
  ['organizations:suspend', '--organization', ORGANIZATION],
  ['organizations:offboard', '--organization', ORGANIZATION],
  ['keys:revoke-all', '--organization', ORGANIZATION],
  ['phone-numbers:release', '--phone-number', PHONE_NUMBER],
])('%s says what it would do, does nothing, and exits with 1', async (script, option, subject) => {
  const before = await everything();

  const { code, stdout, stderr } = await runScript(script, option, subject, '--persist-to', directory);

  expect({ code, stderr }).toEqual({ code: 1, stderr: `Database: local, in ${directory}\n` });
  expect(stdout).toContain(subject);
  expect(stdout).toContain('Nothing was done. Add --yes to do it.');
  expect(await everything()).toEqual(before);
});

it('organizations:resume does nothing for an organization that is active', async () => {
  const { code, stdout, stderr } = await runScript(
    'organizations:resume',
    '--organization',
    ORGANIZATION,
    '--yes',
    '--persist-to',
    directory,
  );

  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toContain(`${ORGANIZATION} is active, not suspended. Nothing was done.`);
});
