/** Starts one server of `npm run dev` for all files of the project: each works in organizations of its own. */
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import * as z from 'zod';
import { freePort, removeDirectory, run, startDev, temporaryDirectory } from '../processes.ts';
import type { Banner } from '../processes.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    server: {
      /** What it was asked for: a port, and where its state is. */
      port: number;
      directory: string;
      banner: Banner;
      /** The admin key of an organization that has nothing else, made by the operator's command. */
      first: { organization_id: string; raw_key: string; key_id: string };
      /** The file that has what it prints. */
      log: string;
    };
  }
}

export default async function setup({ provide }: TestProject) {
  const directory = await temporaryDirectory();
  // The tests start Node some fifty times, on the same modules.
  process.env['NODE_COMPILE_CACHE'] = join(directory, 'compiled');
  // Before the server starts: two processes on the same files make SQLite busy.
  const first = await makeFirstKey(directory);
  const port = await freePort();
  const { banner, log, stop } = await startDev(directory, port);
  provide('server', { port, directory, banner, first, log });
  return async () => {
    await stop();
    await removeDirectory(directory);
  };
}

const createdKey = z.object({ raw_key: z.string(), key: z.object({ key_id: z.string() }) });

async function makeFirstKey(directory: string) {
  const organization_id = 'org_journey';
  const options = ['--organization', organization_id, '--role', 'admin', '--name', 'First', '--tier', 'enterprise'];
  const command = ['run', '--silent', 'keys:create', '--', ...options, '--persist-to', directory, '--create', '--json'];
  const { code, stdout, stderr } = await run('npm', command);
  if (code !== 0) throw new Error(stderr);
  const { raw_key, key } = createdKey.parse(JSON.parse(stdout));
  return { organization_id, raw_key, key_id: key.key_id };
}
