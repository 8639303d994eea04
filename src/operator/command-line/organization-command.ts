/** Commands on one organization: they show what it has, say what would happen, ask for confirmation, and act. */
import * as z from 'zod';
import type { OrganizationStatus } from '../../worker/core/vocabulary.ts';
import type { CountedOrganization } from '../../worker/organizations/read.ts';
import {
  confirmation,
  counted,
  isConfirmed,
  nothingDone,
  organization,
  place,
  readOptions,
  usageOf,
  withBindings,
} from './options.ts';

interface Command {
  /** The status that the organization must have, if it matters. */
  from?: OrganizationStatus;
  /** What would happen, for the preview. */
  effect: string;
  /** @returns a sentence that says what was done; undefined if the organization has changed since the preview */
  act: (database: D1Database, organization_id: string) => Promise<string | undefined>;
}

/**
 * Runs the command with the options of the command line. Exits with 0 if it acted, 1 if nothing was done, 2 for bad
 * options.
 */
export async function runOrganizationCommand(script: string, { from, effect, act }: Command): Promise<void> {
  const schema = z.strictObject({ organization, ...confirmation, ...place });
  const usage = usageOf(script, '--organization org_…', '--organization org_acme');
  const { yes, organization: organization_id, ...options } = readOptions(usage, schema);
  const { readOrganization } = await import('../organizations/read.ts');
  process.exitCode = await withBindings(options, async ({ DB }) => {
    const found = await readOrganization(DB, organization_id);
    if (!found) return nothingDone(`There is no organization ${organization_id}`);
    if (from && found.status !== from) return nothingDone(`${organization_id} is ${found.status}, not ${from}`);
    if (!(await isConfirmed(`${describe(found)}\n${effect}`, yes))) return 1;
    const done = await act(DB, organization_id);
    if (done === undefined) return nothingDone(`${organization_id} was changed meanwhile`);
    console.log(done);
    return 0;
  });
}

function describe({ organization_id, status, tier, counts }: CountedOrganization): string {
  const holdings = [
    counted(counts.api_keys, 'active key'),
    counted(counts.integrations, 'integration'),
    counted(counts.phone_numbers, 'phone number'),
  ];
  return `${organization_id} (${status}, ${tier}) has ${holdings.join(', ')}.`;
}
