import { and, eq, not, sql } from 'drizzle-orm';
import { displayedPrefix, hashKey, newRawKey } from '../auth/api-key.ts';
import { newEventId, newId } from '../ids.ts';
import { batch, existsIn, query, rowColumns, rowValues } from '../query.ts';
import type { Placeholders } from '../query.ts';
import { api_keys, audit_events, organizations } from '../schema.ts';
import type { Role, Tier } from '../schema.ts';
import { unixNow } from '../time.ts';
import { presentApiKey } from './api-key.ts';
import type { ApiKey } from './api-key.ts';

/** Whose keys an operator's are: there is no caller to inherit a user from. */
const OPERATOR_USER_ID = 'user_operator';
const DEFAULT_TIER: Tier = 'starter';

export interface NewOperatorKey {
  organization_id: string;
  role: Role;
  name: string;
  /** Sets the organization's tier; without it an organization keeps its tier, and a new one is `starter`. */
  tier?: Tier | undefined;
  /** Unix seconds. */
  expires_at: number | null;
}

type OrganizationRow = typeof organizations.$inferSelect;

const ensureOrganization = query((db, parameters: Placeholders<OrganizationRow>) =>
  db.insert(organizations).values(rowValues(organizations, parameters)).onConflictDoNothing(),
);

const ensureOrganizationOfTier = query((db, parameters: Placeholders<OrganizationRow>) =>
  db
    .insert(organizations)
    .values(rowValues(organizations, parameters))
    .onConflictDoUpdate({ target: organizations.organization_id, set: { tier: sql`excluded.tier` } }),
);

/** Once for each key, however often the batch is tried; an id that another key has is an error. */
const insertKey = query((db, parameters: Placeholders<typeof api_keys.$inferSelect>) =>
  db.insert(api_keys).select(
    db
      .select(rowColumns(api_keys, parameters))
      .from(organizations)
      .where(
        and(
          eq(organizations.organization_id, parameters.organization_id),
          not(existsIn(db, api_keys, eq(api_keys.key_hash, parameters.key_hash))),
        ),
      ),
  ),
);

const recordCreation = query((db, parameters: Placeholders<typeof audit_events.$inferSelect>) =>
  db.insert(audit_events).values(rowValues(audit_events, parameters)).onConflictDoNothing(),
);

/**
 * Makes an API key in an operator's name, and its organization if need be: how the first key of a deployment is made.
 *
 * @returns the raw key, which is seen this once, and the key as clients see it
 */
export async function createOperatorKey(
  database: D1Database,
  { organization_id, role, name, tier, expires_at }: NewOperatorKey,
): Promise<{ raw_key: string; key: ApiKey }> {
  const raw_key = newRawKey();
  const now = unixNow();
  const organization = { organization_id, tier: tier ?? DEFAULT_TIER, created_at: now, status: 'active' as const };
  const state = {
    key_id: newId('apikey'),
    organization_id,
    user_id: OPERATOR_USER_ID,
    name,
    role,
    prefix: displayedPrefix(raw_key),
    status: 'active' as const,
    created_at: now,
    last_used_at: null,
    expires_at,
  };
  await batch(database, [
    (tier ? ensureOrganizationOfTier : ensureOrganization).bind(organization),
    insertKey.bind({ ...state, key_hash: await hashKey(raw_key) }),
    recordCreation.bind({
      organization_id,
      event_id: newEventId(),
      action: 'api_key.created',
      target_id: state.key_id,
      actor_key_id: null,
      request_id: crypto.randomUUID(),
      state: JSON.stringify(state),
      created_at: now,
    }),
  ]);
  return { raw_key, key: presentApiKey(state) };
}
