/** Starts one server of `npm run dev` for all files of the project: each works in organizations of its own. */
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { freePort, removeDirectory, startDev, temporaryDirectory } from '../processes.ts';
import type { Banner } from '../processes.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    server: {
      /** What it was asked for: a port, and where its state is. */
      port: number;
      directory: string;
      banner: Banner;
      /** The file that has what it prints. */
      log: string;
    };
  }
}

export default async function setup({ provide }: TestProject) {
  const directory = await temporaryDirectory();
  // The tests start Node some fifty times, on the same modules.
  process.env['NODE_COMPILE_CACHE'] = join(directory, 'compiled');
  const port = await freePort();
  const { banner, log, stop } = await startDev(directory, port);
  provide('server', { port, directory, banner, log });
  return async () => {
    await stop();
    await removeDirectory(directory);
  };
}
