import { and, eq, ne, not, or, sql } from 'drizzle-orm';
import { eventExists, eventRecorder, operatorEventParameters, readEvent } from '../../worker/decision/event.ts';
import type { RecordParameters } from '../../worker/decision/event.ts';
import { displayedPrefix, hashKey, newRawKey } from '../../worker/callers/raw-key.ts';
import { eventIdBeside, newId } from '../../worker/core/ids.ts';
import {
  ChangedMeanwhileError,
  isOrganization,
  OffboardedError,
  readStatus,
} from '../../worker/organizations/organization.ts';
import { batch, query, rowColumns } from '../../worker/d1/query.ts';
import type { Placeholders } from '../../worker/d1/query.ts';
import { api_keys, organizations } from '../../worker/d1/schema.ts';
import type { Role, Tier } from '../../worker/core/vocabulary.ts';
import { isApiKey, presentApiKey } from '../../worker/api-keys/api-key.ts';
import type { ApiKey } from '../../worker/api-keys/api-key.ts';

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

type NewOrganization = Pick<typeof organizations.$inferSelect, 'organization_id' | 'tier' | 'created_at'>;

const ensureOrganization = query((db, { organization_id, tier, created_at }: Placeholders<NewOrganization>) =>
  db.insert(organizations).values({ organization_id, tier, created_at }).onConflictDoNothing(),
);

interface OrganizationParameters extends NewOrganization, RecordParameters {
  /** Of the organization as it was seen before the first try, where its tier is to be set; else null. */
  change_count: number | null;
}

/** A tier that another command has set since stays: no late try sets it back. */
const isAsSeen = ({ change_count, tier }: Placeholders<OrganizationParameters>) =>
  or(sql`${change_count} IS NULL`, eq(organizations.change_count, change_count), eq(organizations.tier, tier));

/** Once, however often the batch is tried; an id that another key has is an error. */
const insertKey = query((db, parameters: Placeholders<typeof api_keys.$inferSelect & OrganizationParameters>) =>
  db.insert(api_keys).select(
    db
      .select(rowColumns(api_keys, parameters))
      .from(organizations)
      .where(
        and(
          isOrganization(parameters),
          ne(organizations.status, 'offboarded'),
          isAsSeen(parameters),
          not(eventExists(db, parameters)),
        ),
      ),
  ),
);

const recordCreation = eventRecorder<RecordParameters & { key_id: string }>(
  api_keys,
  api_keys.key_id,
  'api_key.created',
  (_, parameters) => isApiKey(parameters),
);

const recordTierChange = eventRecorder<OrganizationParameters>(
  organizations,
  organizations.organization_id,
  'organization.updated',
  (_, parameters) =>
    and(
      isOrganization(parameters),
      ne(organizations.status, 'offboarded'),
      eq(organizations.change_count, parameters.change_count),
      ne(organizations.tier, parameters.tier),
    ),
);

const setTier = query((db, parameters: Placeholders<OrganizationParameters>) =>
  db
    .update(organizations)
    .set({ tier: sql`${parameters.tier}`, change_count: sql`${organizations.change_count} + 1` })
    .where(
      and(
        isOrganization(parameters),
        eventExists(db, parameters),
        eq(organizations.change_count, parameters.change_count),
      ),
    ),
);

/**
 * Makes an API key in an operator's name, and its organization if need be: how the first key of a deployment is made.
 *
 * @returns the raw key, which is seen this once, the key as clients see it, and whether its organization is suspended and
 *   keeps it from working
 * @throws OffboardedError, and ChangedMeanwhileError where a tier was to be set, with nothing done
 */
export async function createOperatorKey(
  database: D1Database,
  { organization_id, role, name, tier, expires_at }: NewOperatorKey,
): Promise<{ raw_key: string; key: ApiKey; suspended: boolean }> {
  const raw_key = newRawKey();
  const operation = operatorEventParameters(organization_id);
  const { now, event_id } = operation;
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
    created_by: null,
  };
  const organization = {
    ...operation,
    tier: tier ?? DEFAULT_TIER,
    created_at: now,
    change_count: tier ? await changeCountOf(database, organization_id) : null,
  };
  const tierChange = { ...organization, event_id: eventIdBeside(event_id, newId('apikey')) };
  const [, , , , , [event], [found]] = await batch(database, [
    ensureOrganization.bind(organization),
    recordTierChange.bind(tierChange),
    insertKey.bind({ ...organization, ...state, key_hash: hashKey(raw_key), ended_at: null }),
    recordCreation.bind({ ...operation, key_id: state.key_id }),
    setTier.bind(organization),
    readEvent.bind(operation),
    readStatus.bind(operation),
  ]);
  if (!event) {
    throw found?.status === 'offboarded'
      ? new OffboardedError(organization_id)
      : new ChangedMeanwhileError(organization_id);
  }
  return { raw_key, key: presentApiKey(state), suspended: found?.status === 'suspended' };
}

/** One that is not there yet begins with 0. */
async function changeCountOf(database: D1Database, organization_id: string): Promise<number> {
  const [[found]] = await batch(database, [readStatus.bind({ organization_id })]);
  return found?.change_count ?? 0;
}
