/** The operator's commands on organizations and numbers, as an operator types them, all on one state directory. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { createKeyByCommand } from '../../src/operator/api-keys/create.ts';
import { removeDirectory, runScript, temporaryDirectory } from '../processes.ts';
import { withState } from './state.ts';

const ORGANIZATION = 'org_first';
const PHONE_NUMBER = '+14155550100';
const NUMBERS = 120;

let parent: string;
/** Holds org_first: two keys, an integration, and many numbers of it. And org_other, with a key. */
let directory: string;

beforeAll(async () => {
  parent = await temporaryDirectory();
  directory = join(parent, 'state');
  await withState(directory, async ({ DB }) => {
    const key = { role: 'admin', name: 'Test', expires_at: null } as const;
    for (const organization_id of [ORGANIZATION, ORGANIZATION, 'org_other']) {
      await createKeyByCommand(DB, { ...key, organization_id });
    }
    await DB.batch([
      DB.prepare(
        `INSERT INTO integrations (organization_id, integration_id, name, provider, category, status, credentials_version,
           data_key, kek_id, created_at, updated_at)
         VALUES ('${ORGANIZATION}', 'intg_000000000001', 'Test', 'twilio', 'telephony', 'active',
           'version', 'data key', 'k1', 0, 0)`,
      ),
      DB.prepare(
        `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ${NUMBERS - 1})
         INSERT INTO phone_numbers (phone_number_id, organization_id, integration_id, phone_number, provider, status,
           assigned_agent_id, supports_inbound, supports_outbound, created_at, updated_at)
         SELECT 'phon_' || printf('%012x', i), '${ORGANIZATION}', 'intg_000000000001', '+' || (14155550100 + i), 'twilio',
           'assigned', 'agent_000000000001', 0, 0, 0, 0 FROM n`,
      ),
    ]);
  });
});

afterAll(() => removeDirectory(parent));

const state = z.object({
  status: z.string(),
  active_keys: z.number(),
  integrations: z.number(),
  phone_numbers: z.number(),
  purges: z.number(),
  events: z.number(),
});

const look = (organization_id = ORGANIZATION) =>
  withState(directory, async ({ DB }) => {
    const of = 'WHERE organization_id = organizations.organization_id';
    const found = await DB.prepare(
      `SELECT status, (SELECT count(*) FROM api_keys ${of} AND status = 'active') AS active_keys,
         (SELECT count(*) FROM integrations ${of}) AS integrations, (SELECT count(*) FROM phone_numbers ${of}) AS phone_numbers,
         (SELECT count(*) FROM credential_purges ${of}) AS purges, (SELECT count(*) FROM audit_events ${of}) AS events
       FROM organizations WHERE organization_id = ?`,
    )
      .bind(organization_id)
      .first();
    return state.parse(found);
  });

/** What every command says first on standard error. */
const database = () => `Database: local, in ${directory}\n`;

const place = () => ['--persist-to', directory];
const first = () => ['--organization', ORGANIZATION, ...place()];
const number = () => ['--phone-number', PHONE_NUMBER, ...place()];

const newKey = (...parameters: string[]) =>
  runScript('keys:create', ...parameters, '--role', 'user', '--name', 'Late', ...place());

/** Each command prints its preview first, with `--yes` too. */
async function act(script: string, parameters: string[]) {
  const before = await look();
  const { code, stdout, stderr } = await runScript(script, ...parameters, '--yes');
  expect({ code, stderr }).toEqual({ code: 0, stderr: database() });
  return { stdout, before, after: await look() };
}

describe('an operator', () => {
  it('suspends an organization, makes a key that is dead for now, and resumes it', async () => {
    const preview = await runScript('organizations:suspend', ...first());
    expect(preview).toMatchObject({ code: 1, stderr: database() });
    expect(preview.stdout).toContain('Nothing was done. Add --yes to do it.');

    const suspended = await act('organizations:suspend', first());
    expect(suspended.before).toMatchObject({ status: 'active' });
    expect(suspended.stdout).toContain(
      `${ORGANIZATION} (active, starter) has 2 active keys, 1 integration, ${NUMBERS} phone numbers.`,
    );
    expect(suspended.stdout).toContain(`${ORGANIZATION} is suspended.`);
    expect(suspended.after).toEqual({
      ...suspended.before,
      status: 'suspended',
      events: suspended.before.events + 1,
    });

    const again = await runScript('organizations:suspend', ...first(), '--yes');
    expect(again).toMatchObject({ code: 1, stdout: '' });
    expect(again.stderr).toContain(`${ORGANIZATION} is suspended, not active. Nothing was done.`);

    const key = await newKey('--organization', ORGANIZATION, '--json');
    expect(key.code).toBe(0);
    expect(Object.keys(Object(JSON.parse(key.stdout)))).toEqual(['raw_key', 'key']);
    expect(key.stderr).toContain(`${ORGANIZATION} is suspended`);

    const resumed = await runScript('organizations:resume', ...first(), '--yes');
    expect(resumed).toMatchObject({ code: 0, stderr: database() });
    expect(await look()).toMatchObject({ status: 'active', active_keys: 3 });
  });

  it('releases a phone number that an organization holds, once', async () => {
    const { stdout, before, after } = await act('phone-numbers:release', number());
    expect(stdout).toContain(
      `${PHONE_NUMBER} is a number of ${ORGANIZATION} (twilio, intg_000000000001), assigned to agent_000000000001.`,
    );
    expect(after).toEqual({ ...before, phone_numbers: NUMBERS - 1, events: before.events + 1 });

    const again = await runScript('phone-numbers:release', ...number(), '--yes');
    expect(again).toMatchObject({ code: 1, stdout: '' });
    expect(again.stderr).toContain(`No organization has ${PHONE_NUMBER}. Nothing was done.`);
  });

  it('reads what each organization takes of the database, the biggest first', async () => {
    const { code, stdout, stderr } = await runScript('storage', ...place());

    expect({ code, stderr }).toEqual({ code: 0, stderr: database() });
    expect(stdout).toMatch(
      new RegExp(
        `^${ORGANIZATION} +[\\d.]+ MB\\n[^]*  phone_numbers +${NUMBERS - 1} rows[^]*\\norg_other +[\\d.]+ MB\\n`,
      ),
    );
    expect(stdout).toContain('2 organizations, estimated from the numbers of rows.');
  });

  it('revokes all keys of an organization', async () => {
    const { stdout, before, after } = await act('keys:revoke-all', first());

    expect(stdout).toContain('3 keys of org_first revoked.\n');
    expect(after).toEqual({ ...before, active_keys: 0, events: before.events + 3 });
  });

  it('offboards an organization, sees how far it is, and can give it nothing any more', async () => {
    const bystander = await look('org_other');

    const { stdout, before, after } = await act('organizations:offboard', first());

    expect(stdout).toContain(
      `phone numbers: 100/${NUMBERS - 1}\nphone numbers: ${NUMBERS - 1}/${NUMBERS - 1}\nintegrations: 1/1\n` +
        `${ORGANIZATION} is offboarded: ${NUMBERS - 1} phone numbers and 1 integration deleted, 0 keys revoked.`,
    );
    expect(after).toEqual({
      status: 'offboarded',
      active_keys: 0,
      integrations: 0,
      phone_numbers: 0,
      purges: 1,
      events: before.events + 1 + NUMBERS,
    });
    expect(await look('org_other')).toEqual(bystander);

    const key = await newKey('--organization', ORGANIZATION);
    expect(key).toMatchObject({ code: 1, stdout: '' });
    expect(key.stderr).toBe(`${database()}${ORGANIZATION} is offboarded, for good. Nothing was done.\n`);
    expect(await look()).toEqual(after);
  });
});

describe('a command on an unknown organization', () => {
  it('exits with 1', async () => {
    const { code, stdout, stderr } = await runScript(
      'organizations:suspend',
      '--organization',
      'org_nobody',
      '--yes',
      ...place(),
    );

    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toBe(`${database()}There is no organization org_nobody. Nothing was done.\n`);
  });
});

describe('wrong options', () => {
  it('are named on standard error with the usage; the command exits with 2 and makes no directory', async () => {
    const never = join(parent, 'never');

    const { code, stdout, stderr } = await runScript(
      'organizations:suspend',
      '--organization',
      'first',
      '--persist-to',
      never,
    );

    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain('--organization: must be org_');
    expect(stderr).toContain('Usage: npm run --silent organizations:suspend -- --organization org_');
    expect(existsSync(never)).toBe(false);
  });
});
