/** `npm run recovery:export`: run before a restore of D1, it saves the audit events that the restore would remove. */
import { link, open, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import * as z from 'zod';
import { rfc3339 } from '../../worker/core/time.ts';
import { CommandError } from '../command-line/command-error.ts';
import { requireNoFile } from '../command-line/files.ts';
import { commandLine, filePath, nothingDone, place, readOptions, withBindings } from '../command-line/options.ts';

const usage = `Usage: npm run recovery:export -- --since ISO --file FILE [--remote | --persist-to DIR]
Example: npm run recovery:export -- --since 2030-01-15T10:30:00Z --file events.jsonl --remote

  --since       the restore point, like 2030-01-15T10:30:00Z, at most 30 days ago; the export begins a day before it
  --file        the file to create, with one JSON row on each line
  --remote      works on the deployed database instead of the local one
  --persist-to  the directory of the local database, as for npm run dev
`;

const schema = z.strictObject({
  since: rfc3339(),
  file: filePath.transform((given) => resolve(given)),
  ...place,
});

const { since, file, ...options } = readOptions(usage, schema);
await requireNoFile(file);
const { whyNotCovered, exportAll } = await import('../recovery/export.ts');
process.exitCode = await withBindings(options, async ({ DB }) => {
  const reason = await whyNotCovered(DB, since);
  if (reason !== undefined) return nothingDone(`--since: ${reason}`);
  const replay = commandLine('recovery:replay', { file, ...options, 'secrets-file': options.remote && 'FILE' });
  console.log(`${await save(DB)} audit events are in ${file}. After the restore: ${replay}`);
  return 0;
});

/**
 * The file gets its name only when it is complete, because a replay could not tell that half of it is missing. An
 * existing file is not overwritten.
 */
async function save(database: D1Database): Promise<number> {
  const part = `${file}.${process.pid}.part`;
  const output = await open(part, 'wx', 0o600);
  try {
    let events = 0;
    for await (const page of exportAll(database, since)) {
      await output.write(page.map((row) => `${JSON.stringify(row)}\n`).join(''));
      const { length } = page.filter((row) => 'event_id' in row);
      events += length;
      if (length > 0) console.log(`${events} audit events`);
    }
    await output.sync();
    await link(part, file).catch((error: unknown) => {
      const exists = error instanceof Error && 'code' in error && error.code === 'EEXIST';
      throw exists ? new CommandError(`${file} exists already. Nothing was done.`) : error;
    });
    return events;
  } finally {
    await output.close();
    await rm(part, { force: true });
  }
}
