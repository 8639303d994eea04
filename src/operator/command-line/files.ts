/** Looks at files that options name, before anything else is done. What is thrown is told in one line. */
import { existsSync } from 'node:fs';
import { access, constants, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { CommandError } from './command-error.ts';

/** @throws unless there is a file to read */
export async function requireFile(path: string): Promise<void> {
  if ((await stat(path)).isDirectory()) throw new CommandError(`${path} is a directory, not a file`);
  await access(path, constants.R_OK);
}

/** @throws unless the file can be made */
export async function requireNoFile(path: string): Promise<void> {
  if (existsSync(path)) throw new CommandError(`${path} exists already. Nothing was done.`);
  await access(dirname(path), constants.W_OK);
}
