import { and, eq, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { toIso } from '../core/time.ts';
import { keyStatuses, roles } from '../core/vocabulary.ts';
import { columnsOf } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { api_keys } from '../d1/schema.ts';

const fields = () => ({
  key_id: z.string(),
  organization_id: z.string(),
  user_id: z.string(),
  name: z.string(),
  role: z.enum(roles),
  prefix: z.string(),
  status: z.enum(keyStatuses),
  created_at: z.int(),
  last_used_at: z.nullable(z.int()),
  expires_at: z.nullable(z.int()),
});

/** An API key as it is in the `state` of its audit events. */
export const apiKeyState = z.lazy(() => z.object(fields()));

export type ApiKeyState = z.output<typeof apiKeyState>;

/** The columns that {@link presentApiKey} needs. */
export const apiKeyColumns = () => columnsOf(api_keys, fields());

/** Selects one API key of one organization. */
export const isApiKey = ({ organization_id, key_id }: Placeholders<{ organization_id: string; key_id: string }>) =>
  and(eq(api_keys.key_id, key_id), eq(api_keys.organization_id, organization_id));

/** Includes the hash, which is the key's name in the caches. */
export const findApiKey = query((db, parameters: Placeholders<{ organization_id: string; key_id: string }>) =>
  db
    .select({ ...apiKeyColumns(), key_hash: api_keys.key_hash })
    .from(api_keys)
    .where(isApiKey(parameters)),
);

/**
 * Selects the keys of an organization, for a query that has a list of key ids. The plus keeps SQLite from using the
 * index of the organization, which would read all its keys.
 */
export const isKeyOf = ({ organization_id }: Placeholders<{ organization_id: string }>) =>
  sql`+${api_keys.organization_id} = ${organization_id}`;

/** An API key as clients see it (docs/contract.md, API keys). */
export function presentApiKey(state: ApiKeyState) {
  return {
    key_id: state.key_id,
    name: state.name,
    role: state.role,
    prefix: state.prefix,
    client_id: state.organization_id,
    user_id: state.user_id,
    status: state.status,
    created_at: toIso(state.created_at),
    last_used_at: state.last_used_at === null ? null : toIso(state.last_used_at),
    expires_at: state.expires_at === null ? null : toIso(state.expires_at),
  };
}

/** A repeated answer says why it has no raw key, and perhaps what to do. */
export const shownOnce = (message: string, raw_key: string | undefined, advice = '') =>
  raw_key === undefined ? `${message}; the raw key was shown only in the first response${advice}` : message;

/** For operators. */
export const MINT_ANOTHER = ': mint another';

export type ApiKey = ReturnType<typeof presentApiKey>;
