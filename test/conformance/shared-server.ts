/** Starts one server of `npm run dev` for all files of the project: each works in organizations of its own. */
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { removeDirectory, startDev, temporaryDirectory } from '../processes.ts';
import type { Banner } from '../processes.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    server: Pick<Banner, 'url' | 'organization_id' | 'raw_key' | 'in_use'> & {
      /** Where its state is. */
      directory: string;
      /** The file that has what it prints. */
      log: string;
    };
  }
}

export default async function setup({ provide }: TestProject) {
  const directory = await temporaryDirectory();
  // The tests start Node some sixty times, on the same modules.
  process.env['NODE_COMPILE_CACHE'] = join(directory, 'compiled');
  const { url, organization_id, raw_key, in_use, log, stop } = await startDev(directory);
  provide('server', { url, organization_id, raw_key, in_use, directory, log });
  return async () => {
    await stop();
    await removeDirectory(directory);
  };
}
