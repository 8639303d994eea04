/** `npm run keys:create`: makes an API key, and its organization if need be. The raw key is printed once. */
import { parseArgs } from 'node:util';
import * as z from 'zod';
import { createOperatorKey } from '../api-keys/operator-key.ts';
import { organizationIdPattern } from '../ids.ts';
import { roles, tiers } from '../schema.ts';
import { toUnix, unixNow } from '../time.ts';
import { printableText } from '../validation.ts';
import { migrateLocal, openLocal, openRemote, stateDirectory } from './platform.ts';

const usage = `Usage: npm run --silent keys:create -- --organization org_… --role ${roles.join('|')} --name NAME
         [--tier ${tiers.join('|')}] [--expires-at ISO] [--remote | --persist-to DIR] [--json]

  --tier        sets the organization's tier; a new organization is starter without it
  --expires-at  a future time in UTC, like 2030-01-15T10:30:00Z
  --remote      the deployed database instead of the local one
  --persist-to  where the local database is, as for npm run dev
  --json        prints {"raw_key": …, "key": …} and nothing else (npm prints lines of its own but for --silent)
`;

const options = z
  .strictObject({
    organization: z.string().regex(organizationIdPattern, 'must be org_ and 1 to 40 of A-Z a-z 0-9 _ -'),
    role: z.enum(roles),
    name: printableText(1, 100),
    tier: z.enum(tiers).optional(),
    'expires-at': z.iso
      .datetime('must be a time in UTC, like 2030-01-15T10:30:00Z')
      .transform(toUnix)
      .refine((time) => time > unixNow(), 'must be in the future')
      .optional(),
    remote: z.boolean().default(false),
    'persist-to': z.string().optional(),
    json: z.boolean().default(false),
  })
  .refine((chosen) => !chosen.remote || chosen['persist-to'] === undefined, {
    path: ['persist-to'],
    error: 'is for the local database, not for --remote',
  });

async function main(): Promise<void> {
  const { organization, role, name, tier, remote, json, ...more } = readOptions();
  const directory = stateDirectory(more['persist-to']);
  if (!remote) await migrateLocal(directory);
  const { env, dispose } = remote ? await openRemote() : await openLocal(directory);
  try {
    const created = await createOperatorKey(env.DB, {
      organization_id: organization,
      role,
      name,
      tier,
      expires_at: more['expires-at'] ?? null,
    });
    console.log(json ? JSON.stringify(created) : describe(created));
  } finally {
    await dispose();
  }
}

function readOptions(): z.output<typeof options> {
  try {
    const { values } = parseArgs({
      options: {
        organization: { type: 'string' },
        role: { type: 'string' },
        name: { type: 'string' },
        tier: { type: 'string' },
        'expires-at': { type: 'string' },
        remote: { type: 'boolean' },
        'persist-to': { type: 'string' },
        json: { type: 'boolean' },
      },
    });
    return options.parse(values);
  } catch (error) {
    const problems =
      error instanceof z.ZodError
        ? error.issues.map(({ path, message }) => `--${path.join('.')}: ${message}`)
        : [error instanceof Error ? error.message : String(error)];
    console.error(`${problems.join('\n')}\n\n${usage}`);
    process.exit(2);
  }
}

function describe({ raw_key, key }: Awaited<ReturnType<typeof createOperatorKey>>): string {
  return `API key ${key.key_id} (${key.role}) of ${key.client_id}. It is shown this once:\n\n  ${raw_key}\n`;
}

await main();
