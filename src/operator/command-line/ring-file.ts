/**
 * The files that hold the ring of key-encryption keys: JSON of a deployment's secrets, or lines like those of `.dev.vars`.
 * `wrangler secret bulk` reads both.
 */
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { isDeepStrictEqual, parseEnv } from 'node:util';
import * as z from 'zod';
import { readRing } from '../keks/ring.ts';
import type { Ring } from '../keks/ring.ts';

const secrets = z.looseObject({ CREDENTIALS_KEKS: z.string() });

interface RingFile {
  ring: Ring;
  /** @throws Error, without a word of a secret, where the file's form does not allow it: it is then as it was */
  write(ring: Ring): Promise<void>;
}

/**
 * Reads the ring of a file: of its JSON where it is named so, else of its line.
 *
 * @throws Error, without a word of a secret
 */
export async function readRingFile(path: string): Promise<RingFile> {
  const isJson = extname(path) === '.json';
  const parse = (text: string) => secrets.safeParse(isJson ? parseJson(text) : parseEnv(text)).data;
  const text = await readFile(path, 'utf8');
  const data = parse(text);
  if (!data) throw new Error(`${path} has no CREDENTIALS_KEKS, or is of another form`);
  return {
    ring: await readRing(data.CREDENTIALS_KEKS),
    async write(ring) {
      const CREDENTIALS_KEKS = JSON.stringify(ring);
      const next = isJson
        ? `${JSON.stringify({ ...data, CREDENTIALS_KEKS }, undefined, 2)}\n`
        : text.replace(/^CREDENTIALS_KEKS=.*$/m, () => `CREDENTIALS_KEKS='${CREDENTIALS_KEKS}'`);
      // A line may be of a form that is read and not found again, or have another after it that counts.
      if (!isDeepStrictEqual(parse(next), { ...data, CREDENTIALS_KEKS })) {
        throw new Error(
          `${path} was not changed: it needs CREDENTIALS_KEKS once, in one line that begins with CREDENTIALS_KEKS=`,
        );
      }
      await replaceFile(path, next);
    },
  };
}

/** At once or not at all, and on the disk: a ring that is lost takes all credentials with it. */
async function replaceFile(path: string, text: string): Promise<void> {
  const next = `${path}.${process.pid}.next`;
  try {
    await writeFile(next, text, { mode: 0o600, flag: 'wx', flush: true });
    await rename(next, path);
  } finally {
    await rm(next, { force: true });
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own message quotes the text.
    return undefined;
  }
}
