import { and, eq, ne, or, sql } from 'drizzle-orm';
import { presentApiKey } from '../../worker/api-keys/api-key.ts';
import type { ApiKey } from '../../worker/api-keys/api-key.ts';
import { recordCreation } from '../../worker/api-keys/create.ts';
import { keyInserter, mintKey } from '../../worker/api-keys/mint.ts';
import { eventIdBeside, newId } from '../../worker/core/ids.ts';
import type { Role, Tier } from '../../worker/core/vocabulary.ts';
import { batch } from '../../worker/d1/batch.ts';
import type { RowParameters } from '../../worker/d1/columns.ts';
import { query } from '../../worker/d1/query.ts';
import type { CompiledQuery, Placeholders } from '../../worker/d1/query.ts';
import { organizations } from '../../worker/d1/schema.ts';
import type { api_keys } from '../../worker/d1/schema.ts';
import { eventParameters } from '../../worker/decision/call.ts';
import type { EventParameters } from '../../worker/decision/call.ts';
import { assertNothingInDoubt, carryOut, eventRecorder, hasDecided } from '../../worker/decision/event.ts';
import { isAsSeen } from '../../worker/organizations/as-seen.ts';
import { findStatus } from '../../worker/organizations/organization.ts';
import { commandCall } from '../call.ts';
import { ChangedMeanwhileError, OffboardedError } from '../organizations/status.ts';

const DEFAULT_TIER: Tier = 'starter';

export interface NewKeyByCommand {
  organization_id: string;
  role: Role;
  name: string;
  /** Sets the organization's tier. Without it, an organization keeps its tier, and a new one is `starter`. */
  tier?: Tier | undefined;
  /** Unix seconds. */
  expires_at: number | null;
}

interface CreateParameters extends EventParameters, RowParameters<typeof api_keys> {
  organization_id: string;
  /** For the organization, if it is new or its tier is to be set. */
  tier: Tier;
  /** The organization's count before the first try, if its tier is to be set; else null. */
  change_count: number | null;
  tier_event_id: string;
}

const ensureOrganization = query((db, { organization_id, tier, created_at }: Placeholders<CreateParameters>) =>
  db.insert(organizations).values({ organization_id, tier, created_at }).onConflictDoNothing(),
);

/** Predicate: no other command has changed the organization since then, so a late try does not undo its change. */
const isAsSeenOrNotToBeSet = (parameters: Placeholders<CreateParameters>) =>
  or(sql`${parameters.change_count} IS NULL`, isAsSeen(parameters), eq(organizations.tier, parameters.tier));

const recordTierChange = eventRecorder<CreateParameters>({
  table: organizations,
  target_id: organizations.organization_id,
  action: 'organization.updated',
  where: (_, parameters) =>
    and(isAsSeen(parameters), ne(organizations.status, 'offboarded'), ne(organizations.tier, parameters.tier)),
  changes: ({ tier }) => ({ tier: sql`${tier}` }),
});

/** The event of the key decides, so this event has another id. */
const recordTierChangeBeside: CompiledQuery<CreateParameters, unknown> = {
  bind: (parameters) => recordTierChange.bind({ ...parameters, event_id: parameters.tier_event_id }),
};

const insertKey = keyInserter<CreateParameters>((_, parameters) =>
  and(ne(organizations.status, 'offboarded'), isAsSeenOrNotToBeSet(parameters)),
);

const setTier = query((db, parameters: Placeholders<CreateParameters>) =>
  db
    .update(organizations)
    .set({ tier: sql`${parameters.tier}`, change_count: sql`${organizations.change_count} + 1` })
    .where(and(isAsSeen(parameters), hasDecided(db, parameters))),
);

/**
 * Creates an API key for an operator, and its organization if there is none. This is how the first key of a deployment
 * is created.
 *
 * @returns the raw key, which is shown only once, the key as clients see it, and whether the organization is suspended,
 *   so that the key does not work yet
 * @throws OffboardedError; ChangedMeanwhileError if a tier was to be set; DomainError `temporarily_unavailable`. After
 *   the first two nothing was done
 */
export async function createKeyByCommand(
  database: D1Database,
  { organization_id, role, name, tier, expires_at }: NewKeyByCommand,
): Promise<{ raw_key: string; key: ApiKey; suspended: boolean }> {
  const [[seen]] = await batch(database, [findStatus.bind({ organization_id })]);
  const event = eventParameters(commandCall(organization_id));
  const { raw_key, row: key } = await mintKey({
    organization_id,
    role,
    name,
    expires_at,
    created_at: event.event_time,
  });
  const { event: created, inDoubt } = await carryOut(
    database,
    [ensureOrganization, recordTierChangeBeside, insertKey, recordCreation, setTier],
    {
      ...event,
      ...key,
      tier: tier ?? DEFAULT_TIER,
      // A new organization's count is 0.
      change_count: tier === undefined ? null : (seen?.change_count ?? 0),
      tier_event_id: eventIdBeside(event.event_id, newId('apikey')),
    },
  );
  if (!created) {
    assertNothingInDoubt(inDoubt);
    const [[found]] = await batch(database, [findStatus.bind({ organization_id })]);
    throw found?.status === 'offboarded'
      ? new OffboardedError(organization_id)
      : new ChangedMeanwhileError(organization_id);
  }
  return { raw_key, key: presentApiKey(key), suspended: seen?.status === 'suspended' };
}
