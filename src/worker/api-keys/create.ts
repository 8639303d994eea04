import { and, isNull, lte, not, or, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { displayedPrefix, hashKey, newRawKey } from '../callers/raw-key.ts';
import type { KeyStart } from '../callers/raw-key.ts';
import { DomainError } from '../core/errors.ts';
import { optional } from '../core/fields.ts';
import { newId } from '../core/ids.ts';
import { isAbove } from '../core/permissions.ts';
import { visibleName } from '../core/text.ts';
import { futureTime } from '../core/time.ts';
import { roles } from '../core/vocabulary.ts';
import type { Quota, Role } from '../core/vocabulary.ts';
import { rowColumns } from '../d1/columns.ts';
import type { RowParameters } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { api_keys, organizations } from '../d1/schema.ts';
import type { ApiCall, EventParameters } from '../decision/call.ts';
import { isCallerWith, rankOf } from '../decision/caller.ts';
import type { CallerKey } from '../decision/caller.ts';
import { eventRecorder, hasDecided } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { isUnanswered } from '../decision/remembered-answers.ts';
import { isOrganization } from '../organizations/organization.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { apiKeyState, isApiKey, presentApiKey } from './api-key.ts';
import type { ApiKey } from './api-key.ts';

/** The fields of a new key. */
export const newKeyFields = () => ({
  name: visibleName(100),
  role: z.enum(roles),
  expires_at: optional(futureTime()),
});

export const newApiKey = z.lazy(() => z.strictObject(newKeyFields()));

const quotas: Quota[] = ['api_keys', 'audit_events'];

/** These are those of the caller's key, or depend on it. */
type OfCaller = 'user_id' | 'expires_at' | 'created_by';

type CreateParameters = MutationParameters &
  Omit<RowParameters<typeof api_keys>, OfCaller> & {
    /** Unix seconds. Null: that of the caller's key. */
    expires_at: number | null;
  };

/**
 * The role must not be higher than that of the caller's key, and the expiry not later. The caller's expiry is the
 * default.
 */
const insertKey = query((db, parameters: Placeholders<CreateParameters>) => {
  const expires_at = sql<number | null>`coalesce(${parameters.expires_at}, ${api_keys.expires_at})`;
  return db.insert(api_keys).select(
    db
      .select(
        rowColumns<typeof api_keys, OfCaller>(api_keys, parameters, {
          user_id: sql`${api_keys.user_id}`,
          expires_at,
          created_by: sql`${api_keys.key_id}`,
        }),
      )
      .from(organizations)
      .crossJoin(api_keys)
      .where(
        and(
          isOrganization(parameters),
          isCallerWith('api_keys:create', parameters),
          isUnanswered(db, parameters),
          hasRoomFor(quotas),
          lte(rankOf(parameters.role), rankOf(api_keys.role)),
          or(isNull(api_keys.expires_at), lte(expires_at, api_keys.expires_at)),
          not(hasDecided(db, parameters)),
        ),
      ),
  );
});

/** Also used for keys that an operator creates, and for the new key of a rotation. */
export const recordCreation = eventRecorder<EventParameters & { key_id: string }>({
  table: api_keys,
  target_id: api_keys.key_id,
  action: 'api_key.created',
  where: (_, parameters) => isApiKey(parameters),
});

const found = { full: fullQuota(quotas) };

const decide = mutation<CreateParameters, typeof found>('api_keys:create', {
  statements: [insertKey, recordCreation],
  found,
});

/** A new raw key, and what is stored of it. */
export async function newKey(start?: KeyStart) {
  const raw_key = newRawKey(start);
  return { raw_key, stored: { key_hash: await hashKey(raw_key), prefix: displayedPrefix(raw_key, start) } };
}

/**
 * Creates an API key for the caller's user (docs/contract.md, API keys). The batch compares its role and expiry with
 * those of the caller's key in D1.
 *
 * @returns the key as clients see it, and the raw key, which is shown only in the first response: a repeat under the
 *   same Idempotency-Key does not have it
 * @throws DomainError `permission_denied`, `quota_exceeded`, and the errors of every mutation (decision/mutation.ts)
 */
export async function createApiKey(
  call: ApiCall,
  { name, role, expires_at }: z.output<typeof newApiKey>,
): Promise<{ raw_key?: string; key: ApiKey }> {
  const { raw_key, stored } = await newKey();
  const event = mutationParameters(call);
  const answer = await decide(call, {
    ...event,
    key_id: newId('apikey'),
    name,
    role,
    ...stored,
    status: 'active',
    created_at: event.event_time,
    last_used_at: null,
    expires_at: expires_at ?? null,
    ended_at: null,
    revision: 1,
  });
  if (answer.outcome === 'undecided') {
    const exceeds = exceeded(role, expires_at, answer.caller);
    if (exceeds) throw new DomainError('permission_denied', { required_permission: 'api_keys:create', exceeds });
    assertRoom(answer.found.full);
    throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  }
  const key = presentApiKey(apiKeyState.parse(JSON.parse(answer.event.state)));
  return answer.outcome === 'replayed' ? { key } : { raw_key, key };
}

/** Whether the caller asks for a higher role or a later expiry than its own. */
function exceeded(role: Role, expires_at: number | undefined, caller: CallerKey) {
  if (isAbove(role, caller.role)) return 'role';
  return expires_at !== undefined && caller.expires_at !== null && expires_at > caller.expires_at
    ? 'expires_at'
    : undefined;
}
