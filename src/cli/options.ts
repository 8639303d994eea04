/** What the operator's commands share: their options, the bindings they work on, a confirmation. */
import { createInterface } from 'node:readline/promises';
import { parseArgs } from 'node:util';
import * as z from 'zod';
import { migrateLocal, openLocal, openRemote, stateDirectory } from './platform.ts';
import type { OperatorBindings } from './platform.ts';

/** Options of every command: which database and credentials it works on. */
export const place = {
  /** The deployed ones instead of the local ones. */
  remote: z.boolean().default(false),
  /** Where the local ones are, as for `npm run dev`. */
  'persist-to': z.string().optional(),
};

/** `--yes`: of a command that asks before it acts. */
export const confirmation = { yes: z.boolean().default(false) };

const isFlag = (type: z.core.$ZodType) => z.safeParse(type, true).success;

/**
 * Reads the command line: an option for each member of the schema, those that take `true` being flags. What is wrong with
 * it goes to standard error, and the command ends with 2.
 */
export function readOptions<Schema extends z.ZodObject>(usage: string, schema: Schema): z.output<Schema> {
  const options = Object.fromEntries(
    Object.entries(schema.shape).map(([name, type]) => [name, { type: isFlag(type) ? 'boolean' : 'string' } as const]),
  );
  try {
    const { values } = parseArgs({ options });
    if (values['remote'] && values['persist-to'] !== undefined) {
      throw new Error('--persist-to: is for the local database, not for --remote');
    }
    return schema.parse(values);
  } catch (error) {
    const problems =
      error instanceof z.ZodError
        ? error.issues.map(({ path, message }) => `--${path.join('.')}: ${message}`)
        : [error instanceof Error ? error.message : String(error)];
    console.error(`${problems.join('\n')}\n\n${usage}`);
    process.exit(2);
  }
}

/** Opens what the options name, the local database migrated, and closes it afterwards. */
export async function withBindings<Result>(
  { remote, ...options }: { remote: boolean; 'persist-to'?: string | undefined },
  work: (env: OperatorBindings) => Promise<Result>,
): Promise<Result> {
  const directory = stateDirectory(options['persist-to']);
  if (!remote) await migrateLocal(directory);
  const { env, dispose } = remote ? await openRemote() : await openLocal(directory);
  try {
    return await work(env);
  } finally {
    await dispose();
  }
}

/**
 * Shows what would be done, and asks. `--yes` answers beforehand; without it, and without a terminal to ask at, nothing is
 * confirmed: a preview.
 */
export async function isConfirmed(preview: string, yes: boolean): Promise<boolean> {
  console.log(preview);
  if (yes) return true;
  if (!process.stdin.isTTY) {
    console.log('\nNothing was done. Add --yes to do it.');
    return false;
  }
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^y(es)?$/i.test((await terminal.question('\nDo it? [y/N] ')).trim());
  } finally {
    terminal.close();
  }
}
