/**
 * Files with the ring of key-encryption keys: a deployment's secrets as JSON, or lines like those of `.dev.vars`.
 * `wrangler secret bulk` reads both.
 */
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { isDeepStrictEqual, parseEnv } from 'node:util';
import * as z from 'zod';
import { parseJson } from '../../worker/core/json.ts';
import { readRing } from '../keks/ring.ts';
import type { Ring } from '../keks/ring.ts';
import { CommandError } from './command-error.ts';
import { requireFile } from './files.ts';

const secrets = z.looseObject({ CREDENTIALS_KEKS: z.string() });

interface RingFile {
  ring: Ring;
  /** @throws CommandError if the file's form does not allow it; then the file is unchanged. The message quotes no secret */
  write(ring: Ring): Promise<void>;
}

/**
 * Reads the ring from a file: as JSON if its name ends in `.json`, else from its line.
 *
 * @throws CommandError if the form is wrong. The message quotes no secret
 */
export async function readRingFile(path: string): Promise<RingFile> {
  const isJson = extname(path) === '.json';
  const parse = (text: string) => secrets.safeParse(isJson ? parseJson(text) : parseEnv(text)).data;
  await requireFile(path);
  const text = await readFile(path, 'utf8');
  const data = parse(text);
  if (!data) throw new CommandError(`${path} has no CREDENTIALS_KEKS, or its form is wrong`);
  return {
    ring: await readRing(data.CREDENTIALS_KEKS).catch((error: unknown) => {
      throw error instanceof Error ? new CommandError(`${path}: ${error.message}`) : error;
    }),
    async write(ring) {
      const CREDENTIALS_KEKS = JSON.stringify(ring);
      const next = isJson
        ? `${JSON.stringify({ ...data, CREDENTIALS_KEKS }, undefined, 2)}\n`
        : text.replace(/^CREDENTIALS_KEKS=.*$/m, () => `CREDENTIALS_KEKS='${CREDENTIALS_KEKS}'`);
      // The text replaced may not be what `parseEnv` reads: it accepts other forms of a line, and the last of several
      // lines wins.
      if (!isDeepStrictEqual(parse(next), { ...data, CREDENTIALS_KEKS })) {
        throw new CommandError(
          `${path} was not changed: it needs CREDENTIALS_KEKS once, in one line that begins with CREDENTIALS_KEKS=`,
        );
      }
      await replaceFile(path, next);
    },
  };
}

/** Replaces the file atomically, and flushes it to disk: without the ring, all credentials are lost. */
async function replaceFile(path: string, text: string): Promise<void> {
  const next = `${path}.${process.pid}.next`;
  try {
    await writeFile(next, text, { mode: 0o600, flag: 'wx', flush: true });
    await rename(next, path);
  } finally {
    await rm(next, { force: true });
  }
}
