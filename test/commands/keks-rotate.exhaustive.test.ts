/** What `npm run keks:rotate` refuses for what the ring is, whatever D1 says. */
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { removeDirectory, runScript, temporaryDirectory } from '../processes.ts';
import { withState } from './state.ts';

const added = 'k20261124T105850Z';

let directory: string;

beforeAll(async () => {
  directory = await temporaryDirectory();
  await withState(directory, () => Promise.resolve());
});

afterAll(() => removeDirectory(directory));

it.each<{ what: string; ids: string[]; options: string[]; says: string }>([
  {
    what: 'adds no third key before the second is current',
    ids: ['k1', added],
    options: ['--step', 'add'],
    says: `${added} has been added and is not current`,
  },
  {
    what: 'promotes no key that is current',
    ids: ['k1'],
    options: ['--step', 'promote'],
    says: 'k1 is the newest key, and already current',
  },
  {
    what: 'does not retire the current key',
    ids: ['k1', added],
    options: ['--step', 'retire', '--kek', 'k1'],
    says: 'k1 is current',
  },
  {
    what: 'does not retire a key before the current one has wrapped anything',
    ids: ['k1', 'k2'],
    options: ['--step', 'retire', '--kek', 'k2'],
    says: 'k1 has wrapped nothing yet',
  },
  {
    what: 'does not retire a key that the ring has not got',
    ids: ['k1'],
    options: ['--step', 'retire', '--kek', 'k2'],
    says: 'The ring has no key k2',
  },
])('$what, and leaves the file as it was', async ({ ids, options, says }) => {
  const file = join(directory, 'secrets.json');
  const keys = Object.fromEntries(ids.map((id) => [id, randomBytes(32).toString('base64')]));
  const before = JSON.stringify({ CREDENTIALS_KEKS: JSON.stringify({ current: 'k1', keys }) });
  await writeFile(file, before);

  const place = ['--persist-to', directory, '--secrets-file', file];
  const { code, stdout, stderr } = await runScript('keks:rotate', ...options, '--yes', ...place);

  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toContain(says);
  expect(await readFile(file, 'utf8')).toBe(before);
});

it('ends with 2, and without a word of Done, where the file could not be written', async () => {
  const path = join(directory, '.dev.vars');
  const secret = randomBytes(32).toString('base64');
  await writeFile(path, `export CREDENTIALS_KEKS='${JSON.stringify({ current: 'k1', keys: { k1: secret } })}'\n`);

  const place = ['--persist-to', directory, '--secrets-file', path];
  const { code, stdout, stderr } = await runScript('keks:rotate', '--step', 'add', '--yes', ...place);

  expect(code).toBe(2);
  expect(stderr).toContain('was not changed');
  expect(stdout).not.toContain('Done.');
  expect(stdout + stderr).not.toContain(secret);
});
