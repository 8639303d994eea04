import { and, eq, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { apiKeyState, presentApiKey } from '../api-keys/api-key.ts';
import type { ApiKey } from '../api-keys/api-key.ts';
import { newKeyFields, recordCreation as recordKey } from '../api-keys/create.ts';
import { keyInserter, mintKey } from '../api-keys/mint.ts';
import { DomainError } from '../core/errors.ts';
import { optional, withDefault } from '../core/fields.ts';
import { foldName } from '../core/folded-name.ts';
import { eventIdBeside, newId, organizationIdSchema } from '../core/ids.ts';
import { text, visibleName } from '../core/text.ts';
import { tiers } from '../core/vocabulary.ts';
import type { Tier } from '../core/vocabulary.ts';
import { defaultedColumns } from '../d1/columns.ts';
import type { RowParameters } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { CompiledQuery, Placeholders } from '../d1/query.ts';
import { audit_events, organizations } from '../d1/schema.ts';
import type { api_keys } from '../d1/schema.ts';
import type { EventParameters, OperatorCall } from '../decision/call.ts';
import { eventRecorder, hasDecided } from '../decision/event.ts';
import { isOfBatchOf } from '../decision/mutation.ts';
import type { Outcome } from '../decision/mutation.ts';
import { decisiveEvent, mayOperate, operatorMutation, operatorParameters } from '../decision/operator.ts';
import type { OperatorParameters } from '../decision/operator.ts';
import {
  isOrganization,
  MAX_ORGANIZATION_NAME_LENGTH,
  organizationState,
  presentOrganizationToOperator,
} from './organization.ts';
import type { OperatedOrganization } from './organization.ts';

const MAX_PAIRS = 16;
const MAX_KEY_LENGTH = 40;
const MAX_VALUE_LENGTH = 500;

/** Pairs that the operator keeps with an organization, such as the customer's number in its own system. */
export const metadataSchema = () =>
  z.pipe(
    z.transform((given: Record<string, string>, context) => {
      // A record leaves such a key out, without a word.
      if (Object.hasOwn(Object(given), '__proto__')) {
        context.issues.push({ code: 'custom', message: 'must not have the key __proto__', input: given });
      }
      return given;
    }),
    z
      .record(text(1, MAX_KEY_LENGTH), text(0, MAX_VALUE_LENGTH), {
        error: ({ code }) =>
          code === 'invalid_key'
            ? `must be a key of 1 to ${MAX_KEY_LENGTH} characters, without control characters`
            : undefined,
      })
      .check(z.refine((pairs) => Object.keys(pairs).length <= MAX_PAIRS, `must have at most ${MAX_PAIRS} pairs`)),
  );

export const organizationName = () => visibleName(MAX_ORGANIZATION_NAME_LENGTH);

const firstKeyFields = () => {
  const { name, role } = newKeyFields();
  return { name, role };
};

export const newOrganization = z.lazy(() =>
  z.strictObject({
    organization_id: optional(organizationIdSchema()),
    name: organizationName(),
    tier: withDefault(z.enum(tiers), 'starter'),
    metadata: withDefault(metadataSchema(), {}),
    first_key: optional(z.strictObject(firstKeyFields())),
  }),
);

interface CreateParameters extends OperatorParameters {
  name: string;
  name_folded: string;
  tier: Tier;
  /** JSON object. */
  metadata: string;
}

/** Does nothing if there is such an organization. */
const insertOrganization = query((db, parameters: Placeholders<CreateParameters>) =>
  db
    .insert(organizations)
    .select(
      db
        .select(
          defaultedColumns(organizations, {
            organization_id: sql`${parameters.organization_id}`,
            tier: sql`${parameters.tier}`,
            created_at: sql`${parameters.event_time}`,
            name: sql`${parameters.name}`,
            name_folded: sql`${parameters.name_folded}`,
            metadata: sql`${parameters.metadata}`,
            created_event_id: sql`${parameters.event_id}`,
          }),
        )
        .from(sql`(SELECT 1)`)
        .where(mayOperate('organizations:create', db, parameters)),
    )
    .onConflictDoNothing(),
);

const recordCreation = eventRecorder<CreateParameters>({
  table: organizations,
  target_id: organizations.organization_id,
  action: 'organization.created',
  where: (_, parameters) => and(isOrganization(parameters), eq(organizations.created_event_id, parameters.event_id)),
});

/** The events of keys that the batch which decided has made. */
const findFirstKey = query((db, parameters: Placeholders<CreateParameters>) =>
  db
    .select({ state: audit_events.state })
    .from(audit_events)
    .where(and(isOfBatchOf(db, decisiveEvent(db, parameters)), eq(audit_events.action, 'api_key.created'))),
);

const decide = operatorMutation<CreateParameters, Record<string, never>>('organizations:create', {
  statements: [insertOrganization, recordCreation],
  found: {},
});

type KeyRow = RowParameters<typeof api_keys>;

interface CreateWithKeyParameters extends CreateParameters {
  first_key: KeyRow;
  /** The event of the organization decides, so that of the key has another id. */
  key_event_id: string;
}

/** What a statement about the first key is bound to: its own row and its own event. */
type KeyParameters = EventParameters & KeyRow & { decided_by: string };

const aboutFirstKey = (
  statement: CompiledQuery<KeyParameters, unknown>,
): CompiledQuery<CreateWithKeyParameters, unknown> => ({
  bind: ({ first_key, key_event_id, ...parameters }) =>
    statement.bind({ ...parameters, ...first_key, event_id: key_event_id, decided_by: parameters.event_id }),
});

/** In the organization that this batch has created. */
const insertFirstKey = keyInserter<KeyParameters>((db, { organization_id, decided_by }) =>
  hasDecided(db, { organization_id, event_id: decided_by }),
);

const foundWithKey = { first_key: findFirstKey };

const decideWithKey = operatorMutation<CreateWithKeyParameters, typeof foundWithKey>('organizations:create', {
  statements: [insertOrganization, recordCreation, aboutFirstKey(insertFirstKey), aboutFirstKey(recordKey)],
  found: foundWithKey,
});

export type CreatedOrganization = OperatedOrganization & { first_key?: { raw_key?: string; key: ApiKey } };

/**
 * Creates an organization, and its first API key if one is wanted, in one batch (docs/contract.md, Operators).
 *
 * @returns the organization, and the key. The raw key is shown only in the first response: a repeat under the same
 *   Idempotency-Key does not have it
 * @throws DomainError `organization_exists`, and the errors of every operator's mutation (decision/operator.ts)
 */
export async function createOrganization(
  call: OperatorCall,
  { organization_id = newId('org'), name, tier, metadata, first_key }: z.output<typeof newOrganization>,
): Promise<CreatedOrganization> {
  const event = operatorParameters(call, organization_id);
  const parameters = { ...event, name, name_folded: foldName(name), tier, metadata: JSON.stringify(metadata) };
  if (!first_key) return createdOrganization(await decide(call, parameters), organization_id);

  const { raw_key, row } = await mintKey({
    ...first_key,
    organization_id,
    expires_at: null,
    created_at: event.event_time,
  });
  const key_event_id = eventIdBeside(event.event_id, row.key_id);
  const answer = await decideWithKey(call, { ...parameters, first_key: row, key_event_id });
  const created = createdOrganization(answer, organization_id);
  const [key] = answer.found.first_key.map(({ state }) => presentApiKey(apiKeyState.parse(JSON.parse(state))));
  if (!key) return created;
  return { ...created, first_key: answer.outcome === 'replayed' ? { key } : { raw_key, key } };
}

/** @throws DomainError `organization_exists` */
function createdOrganization(answer: Outcome<object, unknown>, organization_id: string): OperatedOrganization {
  if (answer.outcome === 'undecided') throw new DomainError('organization_exists', { organization_id });
  return presentOrganizationToOperator(organizationState.parse(JSON.parse(answer.event.state)));
}
