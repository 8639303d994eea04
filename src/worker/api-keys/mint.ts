/** API keys that an operator makes. No key of the organization has made them, and none need have the same rights. */
import { and, ne, not } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { optional } from '../core/fields.ts';
import { newId } from '../core/ids.ts';
import type { Quota, Role } from '../core/vocabulary.ts';
import { rowColumns } from '../d1/columns.ts';
import type { RowParameters } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { api_keys, organizations } from '../d1/schema.ts';
import type { EventParameters, OperatorCall } from '../decision/call.ts';
import { hasDecided } from '../decision/event.ts';
import { mayOperate, operatorMutation, operatorParameters } from '../decision/operator.ts';
import type { OperatorParameters } from '../decision/operator.ts';
import { assertNotOffboarded, findStatus, isOrganization } from '../organizations/organization.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { apiKeyState, presentApiKey } from './api-key.ts';
import type { ApiKey } from './api-key.ts';
import { newKey, newKeyFields, recordCreation } from './create.ts';

/** The user of keys that an operator makes and names no user for. There is no caller whose user they could get. */
const OPERATOR_USER_ID = 'user_operator';

export const mintedKey = z.lazy(() =>
  z.strictObject({
    ...newKeyFields(),
    user_id: optional(
      z
        .string()
        .check(z.regex(/^user_[A-Za-z0-9_-]{1,64}$/, 'must be user_ followed by 1 to 64 of A–Z, a–z, 0–9, _ and -')),
    ),
  }),
);

interface MintedKey {
  organization_id: string;
  role: Role;
  name: string;
  /** Unix seconds; null for a key that does not expire. */
  expires_at: number | null;
  user_id?: string | undefined;
  created_at: number;
}

/** A new raw key, and the row of it. */
export async function mintKey({ user_id = OPERATOR_USER_ID, ...given }: MintedKey) {
  const { raw_key, stored } = await newKey();
  const row: RowParameters<typeof api_keys> = {
    key_id: newId('apikey'),
    ...given,
    ...stored,
    user_id,
    status: 'active',
    last_used_at: null,
    created_by: null,
    ended_at: null,
    revision: 1,
  };
  return { raw_key, row };
}

/**
 * Makes the statement that inserts such a key once, however often the batch is tried. If another key has the id, the batch
 * fails.
 *
 * @param where the organization must meet it
 */
export const keyInserter = <Parameters extends EventParameters & RowParameters<typeof api_keys>>(
  where: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined,
) =>
  query((db, parameters: Placeholders<Parameters>) =>
    db.insert(api_keys).select(
      db
        .select(rowColumns<typeof api_keys>(api_keys, parameters))
        .from(organizations)
        .where(and(isOrganization(parameters), where(db, parameters), not(hasDecided(db, parameters)))),
    ),
  );

const quotas: Quota[] = ['api_keys', 'audit_events'];

type MintParameters = OperatorParameters & RowParameters<typeof api_keys>;

const insertKey = keyInserter<MintParameters>((db, parameters) =>
  and(ne(organizations.status, 'offboarded'), mayOperate('keys:mint', db, parameters), hasRoomFor(quotas)),
);

const found = { organization: findStatus, full: fullQuota(quotas) };

const decide = operatorMutation<MintParameters, typeof found>('keys:mint', {
  statements: [insertKey, recordCreation],
  found,
});

/**
 * Makes an API key of an organization (docs/contract.md, Operators). While the organization is suspended, the key does not
 * work.
 *
 * @returns the key as clients see it, and the raw key, which a repeat under the same Idempotency-Key does not have
 * @throws DomainError `organization_not_found`, `organization_offboarded`, `quota_exceeded`, and the errors of every
 *   operator's mutation (decision/operator.ts)
 */
export async function mintApiKey(
  call: OperatorCall,
  organization_id: string,
  { expires_at, ...given }: z.output<typeof mintedKey>,
): Promise<{ raw_key?: string; key: ApiKey }> {
  const event = operatorParameters(call, organization_id);
  const { raw_key, row } = await mintKey({
    ...given,
    organization_id,
    expires_at: expires_at ?? null,
    created_at: event.event_time,
  });
  const answer = await decide(call, { ...event, ...row });
  if (answer.outcome === 'undecided') {
    assertNotOffboarded(answer.found.organization);
    assertRoom(answer.found.full);
    throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  }
  const key = presentApiKey(apiKeyState.parse(JSON.parse(answer.event.state)));
  return answer.outcome === 'replayed' ? { key } : { raw_key, key };
}
