/** `npm run dev`, as a developer types it. The tests follow one another: each goes on where the last one left off. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { LAST_NET, stateBehind } from '../conformance/server.ts';
import { removeDirectory, run, startDev, temporaryDirectory } from '../processes.ts';

let directory: string;
let port: number;
let dev: Awaited<ReturnType<typeof start>>;

beforeAll(async () => {
  directory = await temporaryDirectory();
  port = await freePort();
  dev = await start();
});

async function start(environment = {}) {
  const started = await startDev(directory, port, environment);
  return { ...started, ...stateBehind(started.url, [started.organization_id]) };
}

afterAll(async () => {
  try {
    await dev.stop();
  } finally {
    await removeDirectory(directory);
  }
});

/** Below the ports that a system gives to whoever asks for any: none of those takes it before the server does. */
async function freePort(): Promise<number> {
  const candidate = randomInt(10_000, 32_000);
  const server = createServer().listen(candidate, '127.0.0.1');
  const isFree = await once(server, 'listening').then(
    () => true,
    () => false,
  );
  server.close();
  return isFree ? candidate : freePort();
}

/** Runs a printed line in a shell, as it was printed. */
async function shell(line: string): Promise<{ status: number; body: unknown }> {
  const { stdout } = await run('sh', ['-c', `${line} --silent --show-error --write-out '\\n%{http_code}'`]);
  const [body = '', status] = stdout.split('\n');
  return { status: Number(status), body: JSON.parse(body) };
}

const deletePath = (integration_id: string) => `${dev.url}/api/integrations/${integration_id}`;

it('prints the organization, its key, both integrations and a curl line for each, at the port asked for', () => {
  expect(dev).toMatchObject({
    url: `http://localhost:${port}`,
    organization_id: 'org_demo',
    raw_key: expect.stringMatching(/^bk_live_[0-9A-Za-z]{56}$/),
    in_use: expect.stringMatching(/^intg_[0-9a-f]{12}$/),
    numbers: '+14155550100 and +14155550101',
    spare: expect.stringMatching(/^intg_[0-9a-f]{12}$/),
  });
  expect(dev.refused_curl).toContain(`-X DELETE ${deletePath(dev.in_use)} `);
  expect(dev.deleted_curl).toContain(`-X DELETE ${deletePath(dev.spare)} `);
});

it('keeps the demo credentials as ciphertext, as the API keeps any', async () => {
  const entries = Object.entries(await dev.ciphertexts());

  expect(entries).toHaveLength(2);
  for (const integration_id of [dev.in_use, dev.spare]) {
    const [, bytes] = entries.find(([key]) => key.startsWith(`v1/org_demo/${integration_id}/`)) ?? [];
    expect(bytes).toMatch(/[^\x20-\x7e]/);
    expect(bytes).not.toMatch(/[{}]"|api_key|auth_token|account_sid/);
  }
});

it('prints curl lines that work: refused with both numbers, deleted, then not found', async () => {
  expect(await shell(dev.refused_curl)).toEqual({
    status: 409,
    body: expect.objectContaining({
      detail:
        "Integration is still referenced by phone numbers: ['+14155550100', '+14155550101']. Remove or reassign them first.",
    }),
  });
  expect(await shell(dev.deleted_curl)).toEqual({
    status: 200,
    body: expect.objectContaining({ message: 'Integration deleted successfully' }),
  });
  expect(await shell(dev.deleted_curl)).toEqual({
    status: 404,
    body: expect.objectContaining({ code: 'integration_not_found' }),
  });
  await dev.purged();
  expect(Object.keys(await dev.ciphertexts())).toEqual([expect.stringContaining(`/${dev.in_use}/`)]);
});

it('goes on after a restart, in colour, with the same key and demo data, and makes only what was deleted anew', async () => {
  const before = dev;
  await dev.stop();
  await expect(fetch(deletePath(before.in_use))).rejects.toThrow('fetch failed');
  dev = await start({ FORCE_COLOR: '1' });

  const { organization_id, raw_key, in_use, numbers, refused_curl } = before;
  expect(dev).toMatchObject({ organization_id, raw_key, in_use, numbers, refused_curl });
  expect(dev.spare).not.toBe(before.spare);
  expect(await dev.rows('organizations')).toHaveLength(1);
  expect(await dev.rows('api_keys')).toHaveLength(1);
  expect(await dev.rows('integrations')).toHaveLength(2);
  expect(await dev.rows('phone_numbers')).toHaveLength(2);
  expect(await shell(dev.refused_curl)).toMatchObject({ status: 409, body: { reference_count: 2 } });
  expect(await shell(dev.deleted_curl)).toMatchObject({ status: 200 });
});

it('leaves no server behind when npm alone is killed', async () => {
  dev.kill();

  await vi.waitFor(() => expect(fetch(dev.url)).rejects.toThrow('fetch failed'), LAST_NET);
});
