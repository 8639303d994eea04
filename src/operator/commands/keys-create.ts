/** `npm run keys:create`: creates an API key, and its organization if there is none. The raw key is printed once. */
import * as z from 'zod';
import type { ApiKey } from '../../worker/api-keys/api-key.ts';
import { visibleName } from '../../worker/core/text.ts';
import { futureTime } from '../../worker/core/time.ts';
import { roles, tiers } from '../../worker/core/vocabulary.ts';
import { nothingDone, organization, place, readOptions, withBindings } from '../command-line/options.ts';

const usage = `Usage: npm run --silent keys:create -- --organization org_… --role ${roles.join('|')} --name NAME
         [--tier ${tiers.join('|')}] [--expires-at ISO] [--remote | [--persist-to DIR] [--create]] [--json]
Example: npm run keys:create -- --organization org_acme --role admin --name "First key" --remote

  --tier        sets the organization's tier. Without it, a new organization is starter
  --expires-at  a future time, like 2030-01-15T10:30:00Z
  --remote      works on the deployed database instead of the local one
  --persist-to  the directory of the local database, as for npm run dev
  --create      makes the local database if there is none
  --json        prints only {"raw_key": …, "key": …} (npm prints lines of its own without --silent)
`;

const schema = z.strictObject({
  organization,
  role: z.enum(roles),
  name: visibleName(100),
  tier: z.enum(tiers).optional(),
  'expires-at': z.optional(futureTime()),
  create: z.boolean().default(false),
  json: z.boolean().default(false),
  ...place,
});

const { role, name, tier, json, ...options } = readOptions(usage, schema);
const { createKeyByCommand } = await import('../api-keys/create.ts');
const { ChangedMeanwhileError, OffboardedError } = await import('../organizations/status.ts');
process.exitCode = await withBindings(options, async ({ DB }, database) => {
  try {
    const { raw_key, key, suspended } = await createKeyByCommand(DB, {
      organization_id: options.organization,
      role,
      name,
      tier,
      expires_at: options['expires-at'] ?? null,
    });
    if (suspended) console.error(`${options.organization} is suspended: its keys do not work until it is resumed.`);
    console.log(json ? JSON.stringify({ raw_key, key }) : describe(raw_key, key, database));
    return 0;
  } catch (error) {
    if (error instanceof OffboardedError || error instanceof ChangedMeanwhileError) return nothingDone(error.message);
    throw error;
  }
});

function describe(raw_key: string, key: ApiKey, database: string): string {
  return `API key ${key.key_id} (${key.role}) of ${key.client_id}, in this database: ${database}
It is shown only once:\n\n  ${raw_key}\n`;
}
