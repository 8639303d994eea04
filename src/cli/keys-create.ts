/** `npm run keys:create`: makes an API key, and its organization if need be. The raw key is printed once. */
import * as z from 'zod';
import { createOperatorKey } from '../api-keys/operator-key.ts';
import { organizationIdPattern } from '../ids.ts';
import { roles, tiers } from '../schema.ts';
import { toUnix, unixNow } from '../time.ts';
import { printableText } from '../validation.ts';
import { place, readOptions, withBindings } from './options.ts';

const usage = `Usage: npm run --silent keys:create -- --organization org_… --role ${roles.join('|')} --name NAME
         [--tier ${tiers.join('|')}] [--expires-at ISO] [--remote | --persist-to DIR] [--json]

  --tier        sets the organization's tier; a new organization is starter without it
  --expires-at  a future time in UTC, like 2030-01-15T10:30:00Z
  --remote      the deployed database instead of the local one
  --persist-to  where the local database is, as for npm run dev
  --json        prints {"raw_key": …, "key": …} and nothing else (npm prints lines of its own but for --silent)
`;

const schema = z.strictObject({
  organization: z.string().regex(organizationIdPattern, 'must be org_ and 1 to 40 of A-Z a-z 0-9 _ -'),
  role: z.enum(roles),
  name: printableText(1, 100),
  tier: z.enum(tiers).optional(),
  'expires-at': z.iso
    .datetime('must be a time in UTC, like 2030-01-15T10:30:00Z')
    .transform(toUnix)
    .refine((time) => time > unixNow(), 'must be in the future')
    .optional(),
  json: z.boolean().default(false),
  ...place,
});

const { organization, role, name, tier, json, ...options } = readOptions(usage, schema);
const created = await withBindings(options, ({ DB }) =>
  createOperatorKey(DB, {
    organization_id: organization,
    role,
    name,
    tier,
    expires_at: options['expires-at'] ?? null,
  }),
);
console.log(json ? JSON.stringify(created) : describe(created));

function describe({ raw_key, key }: Awaited<ReturnType<typeof createOperatorKey>>): string {
  return `API key ${key.key_id} (${key.role}) of ${key.client_id}. It is shown this once:\n\n  ${raw_key}\n`;
}
