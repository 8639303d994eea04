/**
 * `npm run keks:rotate`: guides an operator through a rotation of the key-encryption keys, and does its steps on the
 * file with the ring.
 */
import { join, resolve } from 'node:path';
import pMap from 'p-map';
import * as z from 'zod';
import { MAX_CONNECTIONS } from '../../worker/core/connections.ts';
import { text } from '../../worker/core/text.ts';
import { parseKekRing } from '../../worker/credentials/kek-ring.ts';
import {
  commandLine,
  confirmation,
  filePath,
  isConfirmed,
  nothingDone,
  place,
  readOptions,
  shellWord,
  withBindings,
} from '../command-line/options.ts';
import { readDevServerUrl, stateDirectory } from '../command-line/platform.ts';
import { projectDirectory } from '../command-line/project.ts';
import { readRingFile } from '../command-line/ring-file.ts';
import { addKek, newestKek, newKekId, promoteNewest, retireKek } from '../keks/ring.ts';
import type { Ring } from '../keks/ring.ts';

const steps = ['add', 'promote', 'retire'] as const;

const usage = `Usage: npm run keks:rotate -- [--step ${steps.join('|')}] [--kek ID] [--yes]
         [--remote --secrets-file FILE | --persist-to DIR]
Example: npm run keks:rotate -- --step add --remote --secrets-file secrets.json

  Without --step it shows how far the rotation is, and what comes next.

  --step add      adds a random key to the ring, which wraps nothing yet
  --step promote  makes the newest key current: it wraps new data keys, and the cron re-wraps all others with it
  --step retire   ends the key --kek for good, and removes it from the ring. This is refused while the key is current, wraps a data
                  key in D1, or is being used to store credentials; and in the first hour of the current key's use
  --remote        works on the deployed D1 instead of the local one
  --secrets-file  the file that the ring is deployed from, like secrets.json; by default .dev.vars. --remote needs it, because a
                  Worker's secret cannot be read back
  --persist-to    the directory of the local D1, as for npm run dev
  --yes           does not ask for confirmation
`;

const schema = z
  .strictObject({
    step: z.enum(steps).optional(),
    kek: z.optional(text(1, 100)),
    'secrets-file': filePath.optional(),
    ...place,
    ...confirmation,
  })
  .refine(({ step, kek }) => (step === 'retire') === (kek !== undefined), {
    path: ['kek'],
    message: 'is for --step retire, which needs it',
  })
  .refine(({ remote, ...options }) => !remote || options['secrets-file'] !== undefined, {
    path: ['secrets-file'],
    message: 'is needed with --remote',
  });

interface Counted {
  count: number;
  exact: boolean;
}

/** What D1 knows about the keys. */
interface Found {
  /** How many data keys each KEK wraps. */
  uses: ReadonlyMap<string, Counted>;
  /** How many credentials are being stored under the KEK that is to be retired. */
  intended: Counted;
  /**
   * How long to wait until the current KEK has been in use for an hour; undefined if it has not wrapped anything yet.
   */
  secondsToRetirement: number | undefined;
}

const { step, kek = '', yes, 'secrets-file': secretsFile, ...options } = readOptions(usage, schema);
const path = secretsFile === undefined ? join(projectDirectory, '.dev.vars') : resolve(secretsFile);
const file = await readRingFile(path);
const changed = change(file.ring);
const devServerUrl = await readDevServerUrl(stateDirectory(options['persist-to']));
const { countDataKeys, readKeks } = await import('../../worker/credentials/data-keys.ts');
const retirement = await import('../keks/retire.ts');

let found: Found;
process.exitCode = await withBindings(options, async ({ DB }) => {
  found = await find(DB);
  const refusal = refuse(file.ring);
  if (!step) {
    console.log(`${describe(file.ring)}\n${whatIsNext(file.ring)}`);
    return 0;
  }
  if (refusal) {
    console.error(refusal);
    return 1;
  }
  if (!(await isConfirmed(`${preview(changed)}\n\n${describe(changed)}`, yes))) return 1;
  if (step === 'retire' && !(await retireInDatabase(DB))) return nothingDone(`${kek} has come into use meanwhile`);
  await file.write(changed);
  console.log(`\nDone.\n\n${whatIsNext(changed)}`);
  return 0;
});

async function find(database: D1Database): Promise<Found> {
  return {
    uses: await findUses(database),
    intended: await retirement.countIntendedUnder(database, kek),
    secondsToRetirement: await retirement.secondsToRetirement(database, file.ring.current),
  };
}

/**
 * Must be done before the KEK is removed from the file: from then on nothing is wrapped with it. If the command is
 * interrupted after this, it can be repeated.
 */
async function retireInDatabase(database: D1Database): Promise<boolean> {
  const { checkValues } = await parseKekRing(JSON.stringify(file.ring));
  return retirement.markKekRetired(database, { kek_id: kek, check_value: checkValues.get(kek) ?? '' });
}

async function findUses(database: D1Database): Promise<Found['uses']> {
  const kek_ids = new Set([...Object.keys(file.ring.keys), ...(await readKeks(database, kek)).inUse]);
  const count = async (id: string) => [id, await countDataKeys(database, [id])] as const;
  return new Map(await pMap(kek_ids, count, { concurrency: MAX_CONNECTIONS }));
}

function usesOf(id: string) {
  return found.uses.get(id) ?? { count: 0, exact: true };
}

function inWords({ count, exact }: Counted): string {
  return `${exact ? '' : 'at least '}${count} data ${count === 1 ? 'key' : 'keys'}`;
}

/** The ring after the step. */
function change(ring: Ring): Ring {
  if (step === 'add') return addKek(ring, newKekId());
  if (step === 'promote') return promoteNewest(ring);
  return step === 'retire' ? retireKek(ring, kek) : ring;
}

/** Why the step cannot be done now. */
function refuse(ring: Ring): string | undefined {
  const { intended, secondsToRetirement } = found;
  const newest = newestKek(ring);
  if (step === 'add' && newest !== ring.current)
    return `${newest} has been added and is not current. Promote it first.`;
  if (step === 'add' && newestKek(changed) === ring.current)
    return `The id of ${ring.current} has a time that is not in the past. Is the clock of this machine right?`;
  if (step === 'promote' && newest === ring.current) return `${newest} is the newest key, and already current.`;
  if (step !== 'retire') return undefined;
  if (!Object.hasOwn(ring.keys, kek)) return `The ring has no key ${kek}.`;
  if (kek === ring.current) return `${kek} is current: it wraps new credentials.`;
  if (usesOf(kek).count > 0)
    return `${kek} still wraps ${inWords(usesOf(kek))} in D1, which nobody could read without it.`;
  if (intended.count > 0)
    return `${inWords(intended)} under ${kek} may still be stored by calls that are under way. Those end within an hour; after a restore of D1, wait 31 days.`;
  if (secondsToRetirement === undefined)
    return `${ring.current} has wrapped nothing yet. Has the ring with it as the current key been deployed?`;
  if (secondsToRetirement > 0)
    return `${ring.current} must have been current for an hour, so that no isolate runs with the previous ring. Please wait ${Math.ceil(secondsToRetirement / 60)} more minutes.`;
  return undefined;
}

function preview(ring: Ring): string {
  if (step === 'add') return `Adds the key ${newestKek(ring)} to ${path}. It wraps nothing until it is promoted.`;
  if (step === 'promote') {
    return `Makes ${ring.current} current in ${path}.
The ring with this key must have been deployed everywhere before: an isolate without the key cannot read what it wraps.`;
  }
  return `Retires ${kek} in D1 for good, and removes it from ${path}.
From then on, isolates that still have ${kek} as their current key cannot store credentials.
For 30 days, Time Travel can bring rows back that ${kek} wraps. Without the key their credentials are lost. If such a restore must
be able to read them, wait that long, or keep a copy of the key elsewhere.`;
}

function describe(ring: Ring): string {
  const ids = [...new Set([...Object.keys(ring.keys), ...found.uses.keys()])];
  const width = Math.max(...ids.map(({ length }) => length));
  const lines = ids.map((id) => {
    const standing = id === ring.current ? 'current' : Object.hasOwn(ring.keys, id) ? '' : 'not in ring';
    return `  ${id.padEnd(width)}  ${standing.padEnd(11)}  ${inWords(usesOf(id))}`;
  });
  return `The ring of ${path}, and what its keys wrap in the ${options.remote ? 'deployed' : 'local'} D1:\n\n${lines.join('\n')}\n`;
}

function whatIsNext(ring: Ring): string {
  const command = (next: { step?: (typeof steps)[number]; kek?: string }) =>
    commandLine('keks:rotate', { ...next, ...options, 'secrets-file': secretsFile });
  const deploy = options.remote
    ? `Deploy this ring, if it is not deployed yet: npx wrangler secret bulk ${shellWord(path)}`
    : 'Restart npm run dev, if it does not have this ring yet.';
  const newest = newestKek(ring);
  if (newest !== ring.current) {
    const wait = options.remote
      ? ['Wait some minutes, until no isolate runs with the previous ring (npx wrangler deployments status).']
      : [];
    return numbered(deploy, ...wait, command({ step: 'promote' }));
  }
  const old = [...new Set([...Object.keys(ring.keys), ...found.uses.keys()])].filter((id) => id !== ring.current);
  if (old.some((id) => usesOf(id).count > 0)) {
    const run = `A local server has no cron: curl ${devServerUrl}/cdn-cgi/local/scheduled`;
    const wait = 'Wait while the cron re-wraps 100 data keys a minute (data_keys_rewrapped in the log).';
    return numbered(deploy, options.remote ? wait : `${wait}\n     ${run}`, command({}));
  }
  const unused = Object.keys(ring.keys).find((id) => id !== ring.current);
  return numbered(
    deploy,
    unused === undefined
      ? `For another rotation: ${command({ step: 'add' })}`
      : command({ step: 'retire', kek: unused }),
  );
}

function numbered(...lines: string[]): string {
  return ['Next:', ...lines.map((line, index) => `  ${index + 1}. ${line}`)].join('\n');
}
