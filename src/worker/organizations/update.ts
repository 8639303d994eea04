import { and, ne, or, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { foldName } from '../core/folded-name.ts';
import { tiers } from '../core/vocabulary.ts';
import type { Tier } from '../core/vocabulary.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { organizations } from '../d1/schema.ts';
import type { OperatorCall } from '../decision/call.ts';
import { changesOf, eventRecorder, hasDecided } from '../decision/event.ts';
import { mayOperate, operatorMutation } from '../decision/operator.ts';
import { isAsSeen, parametersAsSeen } from './as-seen.ts';
import type { AsSeenParameters } from './as-seen.ts';
import { metadataSchema, organizationName } from './create.ts';
import { assertNotOffboarded, organizationState, presentOrganizationToOperator } from './organization.ts';
import type { OperatedOrganization } from './organization.ts';
import { findCounted } from './read.ts';

export const organizationChanges = z.lazy(() =>
  z
    .strictObject({
      name: z.exactOptional(organizationName()),
      tier: z.exactOptional(z.enum(tiers)),
      metadata: z.exactOptional(metadataSchema()),
    })
    .check(z.refine((changes) => Object.keys(changes).length > 0, 'must have at least one of name, tier, metadata')),
);

/** Null: it stays as it is. */
interface UpdateParameters extends AsSeenParameters {
  name: string | null;
  name_folded: string | null;
  tier: Tier | null;
  /** JSON object. */
  metadata: string | null;
}

const newColumns = ({ name, tier, metadata }: Placeholders<UpdateParameters>) => ({
  name: sql<string>`coalesce(${name}, ${organizations.name})`,
  tier: sql<Tier>`coalesce(${tier}, ${organizations.tier})`,
  metadata: sql<string>`coalesce(${metadata}, ${organizations.metadata})`,
});

/** What changes nothing leaves no event, which would count against the organization's quota. */
const changesSomething = (parameters: Placeholders<UpdateParameters>) =>
  or(...Object.entries(newColumns(parameters)).map(([name, value]) => sql`${sql.identifier(name)} IS NOT ${value}`));

const recordUpdate = eventRecorder<UpdateParameters>({
  table: organizations,
  target_id: organizations.organization_id,
  action: 'organization.updated',
  where: (db, parameters) =>
    and(
      isAsSeen(parameters),
      ne(organizations.status, 'offboarded'),
      changesSomething(parameters),
      mayOperate('organizations:create', db, parameters),
    ),
  changes: newColumns,
});

const update = query((db, parameters: Placeholders<UpdateParameters>) =>
  db
    .update(organizations)
    .set({
      ...newColumns(parameters),
      name_folded: sql`coalesce(${parameters.name_folded}, ${organizations.name_folded})`,
      change_count: sql`${organizations.change_count} + 1`,
    })
    .where(and(isAsSeen(parameters), hasDecided(db, parameters))),
);

const found = { organization: findCounted };

const decide = operatorMutation<UpdateParameters, typeof found>('organizations:create', {
  statements: [recordUpdate, update],
  found,
});

/**
 * Changes an organization's name, tier or metadata (docs/contract.md, Operators). Metadata is replaced as a whole.
 *
 * @throws DomainError `organization_not_found`, `organization_offboarded`, and the errors of every operator's mutation
 *   (decision/operator.ts)
 */
export async function updateOrganization(
  call: OperatorCall,
  organization_id: string,
  { name, tier, metadata }: z.output<typeof organizationChanges>,
): Promise<OperatedOrganization> {
  const answer = await decide(call, {
    ...(await parametersAsSeen(call, organization_id)),
    name: name ?? null,
    name_folded: name === undefined ? null : foldName(name),
    tier: tier ?? null,
    metadata: metadata === undefined ? null : JSON.stringify(metadata),
  });
  if (answer.outcome === 'undecided') {
    const now = assertNotOffboarded(answer.found.organization);
    const isSo = [
      [name, now.name],
      [tier, now.tier],
      [metadata && JSON.stringify(metadata), now.metadata],
    ].every(([wanted, has]) => wanted === undefined || wanted === has);
    if (isSo) return presentOrganizationToOperator(now);
    throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  }
  const { event } = answer;
  const before = organizationState.parse(JSON.parse(event.state));
  return presentOrganizationToOperator(organizationState.parse({ ...before, ...changesOf(event) }));
}
