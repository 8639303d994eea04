/** `npm run storage`: how much of the database each organization uses, by table, the biggest first. */
import * as z from 'zod';
import { counted, place, readOptions, withBindings } from '../command-line/options.ts';
import type { OrganizationStorage } from '../organizations/storage.ts';

const usage = `Usage: npm run --silent storage -- [--remote | --persist-to DIR]
Example: npm run storage -- --remote

  --remote      works on the deployed database instead of the local one
  --persist-to  the directory of the local database, as for npm run dev
`;

const options = readOptions(usage, z.strictObject(place));
const { readStorage } = await import('../organizations/storage.ts');
const stored = await withBindings(options, ({ DB }) => readStorage(DB));
for (const line of stored.flatMap(describe)) console.log(line);
console.log(
  `${counted(stored.length, 'organization')}, estimated from the numbers of rows. D1 reuses the space of deleted rows.`,
);

function describe({ organization_id, bytes, tables }: OrganizationStorage): string[] {
  return [
    `${organization_id.padEnd(44)} ${megabytes(bytes)}`,
    ...tables.map((of) => `  ${of.table.padEnd(20)} ${String(of.rows).padStart(10)} rows ${megabytes(of.bytes)}`),
  ];
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(2).padStart(12)} MB`;
}
