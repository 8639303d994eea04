/**
 * What all operator commands share: options, the bindings that they work on, and the confirmation.
 *
 * A command imports what reads or writes the database only after its options are read: loading Drizzle takes most of a
 * second, which is too long to tell of a wrong option.
 */
import { mkdir } from 'node:fs/promises';
import { createInterface } from 'node:readline/promises';
import * as z from 'zod';
import { BULK_BATCH_MILLISECONDS, withDeadlines } from '../../worker/core/deadlines.ts';
import type { Fault } from '../../worker/core/errors.ts';
import { organizationIdPattern } from '../../worker/core/ids.ts';
import { isSentence, parse } from '../../worker/core/parse.ts';
import { CommandError, inOneLine, tellErrors } from './command-error.ts';
import { hasDatabase, openLocal, openRemote, stateDirectory } from './platform.ts';
import type { OperatorBindings } from './platform.ts';

/** The name of a file or directory. */
export const filePath = z.string().min(1, 'must not be empty');

/** Options of every command: which database and credentials to work on. */
export const place = {
  /** Work on the deployed ones instead of the local ones. */
  remote: z.boolean().default(false),
  /** The directory of the local ones, as for `npm run dev`. */
  'persist-to': filePath.optional(),
};

/** `--organization`: the organization to act on. */
export const organization = z
  .string()
  .regex(organizationIdPattern, 'must be org_ followed by 1 to 40 of A-Z a-z 0-9 _ -');

/** `--yes`, for commands that ask before they act. */
export const confirmation = { yes: z.boolean().default(false) };

/** The usage of a command that asks before it acts. */
export const usageOf = (script: string, subject: string, example: string) =>
  `Usage: npm run --silent ${script} -- ${subject} [--yes] [--remote | --persist-to DIR]
Example: npm run ${script} -- ${example} --remote

  --yes         does not ask for confirmation
  --remote      works on the deployed database instead of the local one
  --persist-to  the directory of the local database, as for npm run dev
`;

/**
 * Reads the command line. The schema has a member for each option; those that accept `true` are flags. If an option is
 * wrong, it prints a line for each fault and the usage to standard error, and exits with 2.
 */
export function readOptions<Schema extends z.ZodObject>(usage: string, schema: Schema): z.output<Schema> {
  tellErrors();
  const words = process.argv.slice(2);
  if (words.includes('--help')) {
    console.log(usage);
    process.exit(0);
  }
  const { values, faults } = readWords(words, schema.shape);
  const parsed = parse(schema, Object.fromEntries(values), 'option');
  if (faults.length === 0 && !parsed.faults) return parsed.data;
  const others = parsed.faults?.filter(({ path }) => path === '' || !faults.some((known) => known.path === path));
  console.error(`${[...faults, ...(others ?? [])].map(lineOf).join('\n')}\n\n${usage}`);
  process.exit(2);
}

/** @returns by option its value, or all of them if it was given more than once; and what is wrong with the words */
function readWords(words: readonly string[], options: z.core.$ZodShape) {
  const values = new Map<string, unknown>();
  const faults: Fault[] = [];
  const rest = [...words];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    const [, name, inline] = /^--([^=]+)(?:=([^]*))?$/.exec(word) ?? [];
    if (name === undefined) {
      faults.push({ path: '', message: `has ${inOneLine(word)}, which is no option. npm needs -- before options` });
      continue;
    }
    const option = options[name];
    const isFlag = option && z.safeParse(option, true).success;
    const value = isFlag || inline !== undefined || rest[0]?.startsWith('--') ? inline : rest.shift();
    if (isFlag && value !== undefined) faults.push({ path: name, message: 'takes no value' });
    if (option && !isFlag && value === undefined) faults.push({ path: name, message: 'needs a value' });
    values.set(name, values.has(name) ? [values.get(name), value] : (value ?? true));
  }
  for (const name of ['persist-to', 'create']) {
    if (!values.has('remote') || !values.has(name) || !options[name]) continue;
    faults.push({ path: name, message: 'is for the local database, not for --remote' });
  }
  return { values, faults };
}

function lineOf({ path, message }: Fault): string {
  // Names of members are in backticks.
  if (isSentence(message)) return message.replaceAll(/`([^`]*)`/g, '--$1');
  return path === '' ? `The command line ${message}` : `--${path}: ${message}`;
}

interface Place {
  remote: boolean;
  'persist-to'?: string | undefined;
  /** Whether a local database is made where there is none. */
  create?: boolean | undefined;
}

/**
 * Opens the bindings that the options name, says on standard error which database that is, runs `work`, and closes them.
 * The local database is migrated first.
 *
 * @param work `database` is what was said of the database
 * @throws CommandError if there is no such database
 */
export async function withBindings<Result>(
  options: Place,
  work: (env: OperatorBindings, database: string) => Promise<Result>,
): Promise<Result> {
  const { env, dispose, database } = options.remote ? await openRemote() : await openNamedLocal(options);
  try {
    if (options.remote) say(database);
    return await work(
      withDeadlines(env, () => {}, BULK_BATCH_MILLISECONDS),
      database,
    );
  } finally {
    await dispose();
  }
}

async function openNamedLocal({ 'persist-to': persistTo, create = false }: Place) {
  const directory = stateDirectory(persistTo);
  if (create) await mkdir(directory, { recursive: true });
  else if (!hasDatabase(directory)) {
    const dev = commandLine('dev', { 'persist-to': persistTo });
    throw new CommandError(
      `There is no database in ${directory}. To make one, add --create to keys:create, or run first: ${dev}`,
    );
  }
  const database = `local, in ${directory}`;
  // Before it is opened, because that migrates it.
  say(database);
  return { ...(await openLocal(directory)), database };
}

/** Not on standard output, which may be JSON. */
function say(database: string): void {
  console.error(`Database: ${inOneLine(database)}`);
}

/**
 * Shows what would be done, and asks for confirmation, unless `--yes` gave it. Without `--yes` and without a terminal
 * it only shows.
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

/** Says why a command did nothing. @returns the exit code */
export function nothingDone(reason: string): number {
  console.error(`${reason}. Nothing was done.`);
  return 1;
}

/** A command that can be typed next. Flags are `true`; what is undefined or false is left out. */
export function commandLine(script: string, options: Readonly<Record<string, string | boolean | undefined>>): string {
  const words = Object.entries(options).flatMap(([name, value]) => {
    if (value === undefined || value === false) return [];
    return value === true ? [`--${name}`] : [`--${name}`, shellWord(value)];
  });
  return ['npm run', script, ...(words.length > 0 ? ['--', ...words] : [])].join(' ');
}

/** The text as one word of a shell's command line. */
export function shellWord(text: string): string {
  return /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** A number and its noun: `1 key`, `2 keys`. */
export function counted(count: number, thing: string): string {
  return `${count} ${thing}${count === 1 ? '' : 's'}`;
}
