/** What the operator's commands share: their options, the bindings they work on, a confirmation. */
import { createInterface } from 'node:readline/promises';
import { parseArgs } from 'node:util';
import * as z from 'zod';
import { BULK_BATCH_MILLISECONDS, withDeadlines } from '../../worker/core/deadlines.ts';
import { organizationIdPattern } from '../../worker/core/ids.ts';
import { openLocal, openRemote, stateDirectory } from './platform.ts';
import type { OperatorBindings } from './platform.ts';

/** Options of every command: which database and credentials it works on. */
export const place = {
  /** The deployed ones instead of the local ones. */
  remote: z.boolean().default(false),
  /** Where the local ones are, as for `npm run dev`. */
  'persist-to': z.string().optional(),
};

/** `--organization`: whom a command is about. */
export const organization = z.string().regex(organizationIdPattern, 'must be org_ and 1 to 40 of A-Z a-z 0-9 _ -');

/** `--yes`: of a command that asks before it acts. */
export const confirmation = { yes: z.boolean().default(false) };

/** The usage of a command that asks before it acts. */
export const usageOf = (script: string, subject: string) =>
  `Usage: npm run --silent ${script} -- ${subject} [--yes] [--remote | --persist-to DIR]

  --yes         does it without asking
  --remote      the deployed database instead of the local one
  --persist-to  where the local database is, as for npm run dev
`;

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
  const { env, dispose } = remote ? await openRemote() : await openLocal(stateDirectory(options['persist-to']));
  try {
    return await work(withDeadlines(env, () => {}, BULK_BATCH_MILLISECONDS));
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

/** Says why a command did nothing. Its exit code is this. */
export function nothingDone(reason: string): number {
  console.error(`${reason}. Nothing was done.`);
  return 1;
}

/** A number of things, in words. */
export function counted(count: number, thing: string): string {
  return `${count} ${thing}${count === 1 ? '' : 's'}`;
}
