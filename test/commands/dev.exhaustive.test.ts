/** `npm run dev` from its start to its end. The tests follow one another: each goes on where the last one left off. */
import { readFile, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { LAST_NET, stateBehind } from '../conformance/server.ts';
import { freePort, removeDirectory, runScript, startDev, temporaryDirectory } from '../processes.ts';
import { shell } from './shell.ts';

const ORIGIN = 'https://console.example';

let directory: string;
let port: number;
let dev: Awaited<ReturnType<typeof startDev>>;

beforeAll(async () => {
  directory = await temporaryDirectory();
  port = await freePort();
  dev = await startDev(directory, port, { parameters: ['--var', `CORS_ORIGINS:${ORIGIN}`] });
});

afterAll(async () => {
  try {
    await dev.stop();
  } finally {
    await removeDirectory(directory);
  }
});

it('passes its arguments on to wrangler: a port and a variable', async () => {
  const { headers } = await fetch(`http://localhost:${port}/api/integrations`, { headers: { Origin: ORIGIN } });

  expect(headers.get('Access-Control-Allow-Origin')).toBe(ORIGIN);
});

it('admits a key that keys:create makes while it runs', async () => {
  const key = ['--organization', 'org_demo', '--role', 'user', '--name', 'Late', '--persist-to', directory, '--json'];
  const { stdout } = await runScript('keys:create', ...key);
  const { raw_key } = z.object({ raw_key: z.string() }).parse(JSON.parse(stdout));

  const headers = { 'X-API-Key': raw_key, 'X-Organization-Id': 'org_demo' };
  const { status } = await fetch(`${dev.banner.url}/api/integrations`, { headers });

  expect(status).toBe(200);
});

it('keeps its key and demo data over a restart, in colour, and makes again only what was deleted', async () => {
  const before = dev.banner;
  expect(await shell(before.deleted_curl)).toMatchObject({ status: 200 });
  await dev.stop();
  await expect(fetch(before.url)).rejects.toThrow('fetch failed');
  dev = await startDev(directory, port, { environment: { FORCE_COLOR: '1' } });

  const { url, spare, deleted_curl: _, ...kept } = before;
  expect(dev.banner).toMatchObject(kept);
  expect(dev.banner.spare).not.toBe(spare);
  const { rows } = stateBehind(url, ['org_demo']);
  expect(await rows('organizations')).toHaveLength(1);
  expect(await rows('api_keys')).toHaveLength(2);
  expect(await rows('integrations')).toHaveLength(2);
  expect(await rows('phone_numbers')).toHaveLength(2);
  expect(await shell(dev.banner.refused_curl)).toMatchObject({ status: 409, body: { reference_count: 2 } });
  expect(await shell(dev.banner.deleted_curl)).toMatchObject({ status: 200 });
});

it('shows the Worker’s log as it is with --json-logs, after the demo’s lines', async () => {
  await dev.stop();
  await writeFile(dev.log, '');
  dev = await startDev(directory, port, { parameters: ['--json-logs'] });
  await fetch(`${dev.banner.url}/api/integrations/intg_00000000dead`, { method: 'DELETE' });

  const request =
    '"method":"DELETE","route":"/api/integrations/:integration_id","status":401,"outcome":"missing_api_key"}';
  await vi.waitFor(async () => expect(await readFile(dev.log, 'utf8')).toContain(request), LAST_NET);
  const [demo = '', ...requests] = (await readFile(dev.log, 'utf8')).split(/npm run example\n/);
  expect(demo).not.toContain('"event"');
  for (const line of requests.join('').split('\n').filter(Boolean)) expect(JSON.parse(line)).toHaveProperty('event');
});

it('leaves no server behind when npm alone is killed', async () => {
  dev.kill();

  await vi.waitFor(() => expect(fetch(dev.banner.url)).rejects.toThrow('fetch failed'), LAST_NET);
});
