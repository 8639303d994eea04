/** `npm run operators:revoke`: revokes an operator key. */
import * as z from 'zod';
import {
  isConfirmed,
  nothingDone,
  confirmation,
  place,
  readOptions,
  usageOf,
  withBindings,
} from '../command-line/options.ts';

const id = z.string().regex(/^opkey_[a-f0-9]{12}$/, 'must be opkey_ followed by 12 lower-case hex digits');

const {
  yes,
  'operator-key': operator_key_id,
  ...options
} = readOptions(
  usageOf('operators:revoke', '--operator-key opkey_…', '--operator-key opkey_a1b2c3d4e5f6'),
  z.strictObject({ 'operator-key': id, ...confirmation, ...place }),
);
const { listOperatorKeys } = await import('../operator-keys/list.ts');
const { revokeOperatorKey } = await import('../operator-keys/revoke.ts');
process.exitCode = await withBindings(options, async ({ DB }) => {
  const found = (await listOperatorKeys(DB)).find((key) => key.operator_key_id === operator_key_id);
  if (!found) return nothingDone(`There is no operator key ${operator_key_id}`);
  const preview = `${operator_key_id} ("${found.name}") is ${found.status}.
This revokes it for good: at once for writes, within 60 s for reads. operators:create makes a new key.`;
  if (!(await isConfirmed(preview, yes))) return 1;
  await revokeOperatorKey(DB, operator_key_id);
  console.log(`${operator_key_id} is revoked.`);
  return 0;
});
