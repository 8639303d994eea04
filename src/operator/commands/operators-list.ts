/** `npm run operators:list`: shows the operator keys, the oldest first. */
import * as z from 'zod';
import { place, readOptions, withBindings } from '../command-line/options.ts';

const usage = `Usage: npm run --silent operators:list -- [--remote | --persist-to DIR]
Example: npm run operators:list -- --remote

  --remote      works on the deployed database instead of the local one
  --persist-to  the directory of the local database, as for npm run dev
`;

const options = readOptions(usage, z.strictObject(place));
const { listOperatorKeys } = await import('../operator-keys/list.ts');
const keys = await withBindings(options, ({ DB }) => listOperatorKeys(DB));
for (const { operator_key_id, name, prefix, status, expires_at, last_used_at, permissions } of keys) {
  console.log(`${operator_key_id}  ${prefix}  ${status}, until ${expires_at}, last used ${last_used_at ?? 'never'}`);
  console.log(`  "${name}" may: ${permissions.join(', ')}`);
}
if (keys.length === 0) console.log('There is no operator key.');
