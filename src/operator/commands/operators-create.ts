/** `npm run operators:create`: creates an operator key. The raw key is printed once. */
import * as z from 'zod';
import { operatorPermissions } from '../../worker/core/permissions.ts';
import type { OperatorPermission } from '../../worker/core/permissions.ts';
import { visibleName } from '../../worker/core/text.ts';
import { futureTime, SECONDS_A_DAY, unixNow } from '../../worker/core/time.ts';
import { place, readOptions, withBindings } from '../command-line/options.ts';
import type { OperatorKey } from '../operator-keys/operator-key.ts';

const MAX_DAYS = 90;
const longestFrom = (now: number) => now + MAX_DAYS * SECONDS_A_DAY;

const usage = `Usage: npm run --silent operators:create -- --name NAME [--permissions NAME,NAME…] [--expires-at ISO]
         [--remote | [--persist-to DIR] [--create]] [--json]
Example: npm run operators:create -- --name "Signup service" --permissions organizations:create,organizations:read --remote

  --permissions  what the key may do, separated by commas; everything by default:
                 ${operatorPermissions.join('\n                 ')}
  --expires-at   a time like 2030-01-15T10:30:00Z, at most ${MAX_DAYS} days ahead, which is the default
  --remote       works on the deployed database instead of the local one
  --persist-to   the directory of the local database, as for npm run dev
  --create       makes the local database if there is none
  --json         prints only {"raw_key": …, "key": …} (npm prints lines of its own without --silent)
`;

const isPermission = (name: string): name is OperatorPermission =>
  operatorPermissions.some((permission) => permission === name);

const permissionNames = z.string().transform((text, context) => {
  const names = [...new Set(text.split(',').map((name) => name.trim()))];
  const permissions = names.filter(isPermission);
  if (permissions.length === names.length) return permissions;
  context.addIssue({
    code: 'custom',
    message: `must be some of ${operatorPermissions.join(', ')}, separated by commas`,
  });
  return z.NEVER;
});

const schema = z.strictObject({
  name: visibleName(100),
  permissions: z.optional(permissionNames),
  'expires-at': z.optional(
    futureTime().check(z.refine((time) => time <= longestFrom(unixNow()), `must be at most ${MAX_DAYS} days ahead`)),
  ),
  create: z.boolean().default(false),
  json: z.boolean().default(false),
  ...place,
});

const { name, permissions = operatorPermissions, json, ...options } = readOptions(usage, schema);
const { createOperatorKey } = await import('../operator-keys/create.ts');
process.exitCode = await withBindings(options, async ({ DB }, database) => {
  const expires_at = options['expires-at'] ?? longestFrom(unixNow());
  const { raw_key, key } = await createOperatorKey(DB, { name, permissions, expires_at });
  console.log(json ? JSON.stringify({ raw_key, key }) : describe(raw_key, key, database));
  return 0;
});

function describe(raw_key: string, key: OperatorKey, database: string): string {
  return `Operator key ${key.operator_key_id}, until ${key.expires_at}, in this database: ${database}
Permissions: ${key.permissions.join(', ')}
Raw key, shown only once:\n\n  ${raw_key}\n\nIt works where OPERATOR_API is on (docs/operations.md).`;
}
