/** What `npm run dev` prints and has made once it serves. The tests follow one another. */
import { readFile } from 'node:fs/promises';
import { expect, inject, it, vi } from 'vitest';
import { joinServer, LAST_NET } from '../conformance/server.ts';
import { runScript } from '../processes.ts';
import { shell } from './shell.ts';

const { port, log } = inject('server');
const server = joinServer('org_demo');
const { demo } = server;

const deletePath = (integration_id: string) => `${demo.url}/api/integrations/${integration_id}`;

it('prints the organization, its key, both integrations and a curl line for each, at the port asked for', () => {
  expect(demo).toMatchObject({
    url: `http://localhost:${port}`,
    organization_id: 'org_demo',
    raw_key: expect.stringMatching(/^bk_live_[0-9A-Za-z]{56}$/),
    in_use: expect.stringMatching(/^intg_[0-9a-f]{12}$/),
    numbers: '+14155550100 and +14155550101',
    spare: expect.stringMatching(/^intg_[0-9a-f]{12}$/),
  });
  expect(demo.refused_curl).toContain(`-X DELETE ${deletePath(demo.in_use)} `);
  expect(demo.deleted_curl).toContain(`-X DELETE ${deletePath(demo.spare)} `);
});

it('simulates the providers, which accept the demo credentials, and says so', async () => {
  expect(demo.providers).toContain('simulated: a secret with "refused" in it is refused');
  const in_use = (await server.rows('integrations')).find((row) => row['integration_id'] === demo.in_use);
  expect(in_use).toMatchObject({ verification_status: 'verified' });
});

it('says first which Node it runs on, and prints nothing of its own between that and the demo', async () => {
  const [head = ''] = (await readFile(log, 'utf8')).split('\nOrganization ');

  expect(head.split('\n').filter((line) => line !== '' && !line.startsWith('> '))).toEqual([
    expect.stringMatching(/^Patchbay \d+\.\d+\.\d+ starts on Node \d+\.\d+\.\d+$/),
    `Ready on http://localhost:${port}`,
  ]);
});

it('keeps the demo credentials as ciphertext, as the API keeps any', async () => {
  const entries = Object.entries(await server.ciphertexts());

  expect(entries).toHaveLength(2);
  for (const integration_id of [demo.in_use, demo.spare]) {
    const [, bytes] = entries.find(([key]) => key.startsWith(`v1/org_demo/${integration_id}/`)) ?? [];
    expect(bytes).toMatch(/[^\x20-\x7e]/);
    expect(bytes).not.toMatch(/api_key|auth_token|account_sid/);
  }
});

it('prints curl lines that work: refused with both numbers, deleted, then not found', async () => {
  expect(await shell(demo.refused_curl)).toEqual({
    status: 409,
    body: expect.objectContaining({
      detail:
        "Integration is still referenced by phone numbers: ['+14155550100', '+14155550101']. Remove or reassign them first.",
    }),
  });
  expect(await shell(demo.deleted_curl)).toEqual({
    status: 200,
    body: expect.objectContaining({ message: 'Integration deleted successfully' }),
  });
  expect(await shell(demo.deleted_curl)).toEqual({
    status: 404,
    body: expect.objectContaining({ code: 'integration_not_found' }),
  });
  await server.purged();
  expect(Object.keys(await server.ciphertexts())).toEqual([expect.stringContaining(`/${demo.in_use}/`)]);
});

it('prints a short line for each request, and none of the Worker’s log as it is', async () => {
  const id = 'intg_00000000dead';
  await fetch(deletePath(id), { method: 'DELETE' });

  const line = new RegExp(`^DELETE /api/integrations/${id} 401 \\d+ ms$`, 'm');
  const printed = await vi.waitFor(async () => {
    const text = await readFile(log, 'utf8');
    expect(text).toMatch(line);
    expect(text).toContain("authentication_failed { reason: 'missing_api_key', network: ");
    return text;
  }, LAST_NET);
  expect(printed).not.toContain('"event"');
});

it('says that its port is in use, and does nothing', async () => {
  expect(await runScript('dev', '--port', String(port))).toEqual({
    code: 1,
    stdout: '',
    stderr: `Port ${port} is in use, perhaps by another npm run dev. End that, or choose another port with --port.\n`,
  });
});
