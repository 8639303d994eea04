/** `npm run dev`, as a developer types it. The tests follow one another: each goes on where the last one left off. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import * as z from 'zod';
import { openLocal } from '../../src/cli/platform.ts';
import type { Bindings } from '../../src/env.ts';
import { ciphertexts, removeDirectory, rows, run, startDev, temporaryDirectory } from '../conformance/server.ts';

const NUMBERS = ['+14155550100', '+14155550101'];

let directory: string;
let port: number;
let dev: Awaited<ReturnType<typeof startDev>> | undefined;

beforeAll(async () => {
  directory = await temporaryDirectory();
  port = await freePort();
});

afterAll(async () => {
  await dev?.stop();
  await removeDirectory(directory);
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = z.object({ port: z.int() }).parse(server.address());
  server.close();
  return address.port;
}

/** Runs a printed line in a shell, as it was printed. */
async function shell(line: string): Promise<{ status: number; body: unknown }> {
  const { stdout } = await run('sh', ['-c', `${line} --silent --show-error --write-out '\\n%{http_code}'`]);
  const [body = '', status] = stdout.split('\n');
  return { status: Number(status), body: JSON.parse(body) };
}

async function stored() {
  const { env, dispose } = await openLocal(directory);
  try {
    return {
      organizations: await rows(env, 'organizations'),
      api_keys: await rows(env, 'api_keys'),
      integrations: await rows(env, 'integrations'),
      phone_numbers: await rows(env, 'phone_numbers'),
      ciphertexts: await ciphertexts(env),
    };
  } finally {
    await dispose();
  }
}
