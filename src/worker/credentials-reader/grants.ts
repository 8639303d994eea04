/**
 * What each consumer may read: the variable `CREDENTIALS_READERS` (docs/operations.md, Configuration). A consumer only
 * names itself, in its own configuration; what it may read stands in ours.
 */
import * as z from 'zod/mini';
import { organizationIdPattern } from '../core/ids.ts';
import { parseJson } from '../core/json.ts';
import { logError } from '../core/log.ts';
import { parse, sentenceOf } from '../core/parse.ts';
import { readableProviders } from '../core/vocabulary.ts';
import type { Bindings } from '../env.ts';

/** The names that consumers may have. */
export const consumerPattern = /^[a-z0-9][a-z0-9_-]{0,62}$/;

const grants = z.lazy(() =>
  z.record(
    z.string().check(z.regex(consumerPattern)),
    z.strictObject({
      providers: z.array(z.enum(readableProviders)),
      /** Whether it may read for numbers that no account is known to hold; SIP numbers are among them. */
      unconfirmed: z._default(z.boolean(), false),
      organizations: z.union(
        [z.literal('*'), z.array(z.string().check(z.regex(organizationIdPattern, 'must be an id like org_abc123')))],
        { error: 'must be "*", or an array of ids like org_abc123' },
      ),
    }),
    {
      error: ({ code }) =>
        code === 'invalid_key' ? `must be a name of the form ${consumerPattern.source}` : undefined,
    },
  ),
);

export type Grant = z.output<typeof grants>[string];

let known: { setting: string; grants: ReadonlyMap<string, Grant> } | undefined;

/**
 * If the setting is malformed, the alert `credentials_readers_invalid` is logged. Else it is parsed once per isolate.
 *
 * @returns undefined if the consumer is not named
 * @throws Error if the setting is malformed
 */
export function grantOf({ CREDENTIALS_READERS: setting }: Bindings, consumer: string): Grant | undefined {
  try {
    if (known?.setting !== setting) known = { setting, grants: parseGrants(setting) };
    return known?.grants.get(consumer);
  } catch (error) {
    logError('credentials_readers_invalid', error);
    throw error;
  }
}

function parseGrants(setting: string): ReadonlyMap<string, Grant> {
  if (setting === '') return new Map();
  const json = parseJson(setting);
  if (json === undefined) throw new Error('CREDENTIALS_READERS is not JSON');
  const parsed = parse(grants, json, 'field');
  if (parsed.faults) throw new Error(`CREDENTIALS_READERS is not valid: ${sentenceOf(parsed.faults, 'it')}`);
  return new Map(Object.entries(parsed.data));
}

export const mayReadOf = ({ organizations }: Grant, organization_id: string) =>
  organizations === '*' || organizations.includes(organization_id);
