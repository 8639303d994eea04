import { and, asc, eq, exists, isNotNull, lte, not, or, sql } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
import * as z from 'zod/mini';
import { dropKeys, isAlive } from '../callers/caller.ts';
import { holderOf } from '../callers/key-cache.ts';
import { DomainError } from '../core/errors.ts';
import { integer } from '../core/fields.ts';
import { eventIdBeside, newId } from '../core/ids.ts';
import { isAbove } from '../core/permissions.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, CompiledQuery, Placeholders } from '../d1/query.ts';
import { api_keys, audit_events } from '../d1/schema.ts';
import { actingKeyId } from '../decision/actor.ts';
import type { ApiCall } from '../decision/call.ts';
import { fromCallersKey, expiryOf, rankOf, unlessNever } from '../decision/caller.ts';
import type { CallerKey } from '../decision/caller.ts';
import { eventRecorder, hasDecided, isOfBatch, isOfTarget } from '../decision/event.ts';
import { isOtherEventOfDecision, mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { isUnanswered } from '../decision/remembered-answers.ts';
import { fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import type { FullQuota } from '../organizations/quotas.ts';
import { apiKeyColumns, apiKeyState, isApiKey, presentApiKey } from './api-key.ts';
import type { ApiKey, ApiKeyState } from './api-key.ts';
import { newKey, recordCreation } from './create.ts';

const MAX_OVERLAP_SECONDS = 604_800;

export const rotation = z.lazy(() =>
  z.strictObject({
    overlap_seconds: integer(0, MAX_OVERLAP_SECONDS),
  }),
);

interface RotateParameters extends MutationParameters {
  key_id: string;
  /** When the old key ends, unless it expires before; unix seconds. */
  ends_at: number;
  successor_id: string;
  successor_event_id: string;
  key_hash: string;
  prefix: string;
}

/**
 * Predicate: the key was rotated before, and a successor has been used. So the answer to that rotation was not lost.
 */
function isSuccessorUsed(
  db: Builder,
  { organization_id, key_id }: Placeholders<Pick<RotateParameters, 'organization_id' | 'key_id'>>,
) {
  const rotated = alias(audit_events, 'rotated');
  const successor = alias(api_keys, 'successor');
  return exists(
    db
      .select({ one: sql`1` })
      .from(rotated)
      .crossJoin(audit_events)
      .crossJoin(successor)
      .where(
        and(
          isOfTarget(rotated, { organization_id, target_id: key_id }, ['api_key.rotated']),
          isOfBatch(rotated),
          eq(sql`+${audit_events.action}`, 'api_key.created'),
          eq(successor.key_id, audit_events.target_id),
          eq(successor.organization_id, organization_id),
          isNotNull(successor.last_used_at),
        ),
      ),
  );
}

/**
 * When the successor of a key expires, as a number that SQL can compare ({@link expiryOf}). Usually that is the key's
 * own expiry. But a rotation shortens the old key's expiry to the overlap. If the answer is lost, the client rotates
 * the old key again, and the new successor must get the original expiry: that of the key at its first rotation, from
 * the event. (The event is kept for longer than an overlap lasts, see audit/retention.ts.) If a successor has been
 * used, no answer was lost. Then the shortened expiry counts, so that nobody extends the life of an old key by rotating
 * it.
 */
function lifeOf(db: Builder, parameters: Placeholders<Pick<RotateParameters, 'organization_id' | 'key_id'>>) {
  const atFirstRotation = db
    .select({ expiry: expiryOf(sql`json_extract(${audit_events.state}, '$.expires_at')`) })
    .from(audit_events)
    .where(
      isOfTarget(audit_events, { organization_id: parameters.organization_id, target_id: parameters.key_id }, [
        'api_key.rotated',
      ]),
    )
    .orderBy(asc(audit_events.created_at), asc(audit_events.sequence))
    .limit(1);
  const own = expiryOf(api_keys.expires_at);
  return sql<number>`iif(${isSuccessorUsed(db, parameters)}, ${own}, coalesce(${atFirstRotation}, ${own}))`;
}

/**
 * The rules of a rotation. The key must be alive, and its role not higher than the caller's. The successor must not
 * expire later than the caller's key, unless that is the key to rotate. The key must belong to the caller's user,
 * because the successor acts as that user; an admin may rotate any. If the old key does not end at once, there must be
 * room for one more key.
 */
const recordRotation = eventRecorder<RotateParameters>({
  table: api_keys,
  target_id: api_keys.key_id,
  action: 'api_key.rotated',
  where: (db, parameters) => {
    const callersRank = fromCallersKey(rankOf(api_keys.role), 'api_keys:rotate', db, parameters);
    const callersExpiry = fromCallersKey(expiryOf(api_keys.expires_at), 'api_keys:rotate', db, parameters);
    const callersUser = fromCallersKey(sql<string>`${api_keys.user_id}`, 'api_keys:rotate', db, parameters);
    return and(
      isApiKey(parameters),
      isAlive(db, parameters),
      isUnanswered(db, parameters),
      lte(rankOf(api_keys.role), callersRank),
      or(eq(parameters.key_id, actingKeyId(parameters)), lte(lifeOf(db, parameters), callersExpiry)),
      or(eq(api_keys.user_id, callersUser), lte(rankOf(sql`'admin'`), callersRank)),
      hasRoomFor(['audit_events']),
      or(lte(parameters.ends_at, parameters.now), hasRoomFor(['api_keys'])),
    );
  },
});

const isSuccessorsEvent = ({ organization_id, successor_event_id }: Placeholders<RotateParameters>) =>
  and(eq(audit_events.organization_id, organization_id), eq(audit_events.event_id, successor_event_id));

const insertSuccessor = query((db, parameters: Placeholders<RotateParameters>) =>
  db.insert(api_keys).select(
    db
      .select({
        key_id: sql<string>`${parameters.successor_id}`.as('successor_id'),
        organization_id: api_keys.organization_id,
        user_id: api_keys.user_id,
        name: api_keys.name,
        role: api_keys.role,
        key_hash: sql<string>`${parameters.key_hash}`.as('successor_hash'),
        prefix: sql<string>`${parameters.prefix}`.as('successor_prefix'),
        status: api_keys.status,
        created_at: sql<number>`${parameters.event_time}`.as('rotated_at'),
        last_used_at: sql<null>`NULL`.as('never_used'),
        expires_at: unlessNever(lifeOf(db, parameters)).as('life'),
        created_by: actingKeyId(parameters).as('created_by'),
        ended_at: sql<null>`NULL`.as('ended_at'),
        revision: sql<number>`1`.as('revision'),
      })
      .from(api_keys)
      .where(
        and(
          isApiKey(parameters),
          hasDecided(db, parameters),
          not(existsIn(db, audit_events, isSuccessorsEvent(parameters))),
        ),
      ),
  ),
);

const recordSuccessor: CompiledQuery<RotateParameters, unknown> = {
  bind: (parameters) =>
    recordCreation.bind({
      ...parameters,
      key_id: parameters.successor_id,
      event_id: parameters.successor_event_id,
    }),
};

/** A restore of D1 may have lost the successor. Then a late try must not end the old key. */
const isSuccessorThere = (db: Builder, { organization_id, successor_id }: Placeholders<RotateParameters>) => {
  const successor = alias(api_keys, 'successor');
  return existsIn(
    db,
    successor,
    and(eq(successor.key_id, successor_id), eq(successor.organization_id, organization_id)),
  );
};

/** Without an overlap it ends now, which makes room for its successor. */
const endOldKey = query((db, parameters: Placeholders<RotateParameters>) =>
  db
    .update(api_keys)
    .set({
      expires_at: sql`min(${expiryOf(api_keys.expires_at)}, ${parameters.ends_at})`,
      ended_at: sql`coalesce(${api_keys.ended_at}, iif(${parameters.ends_at} <= ${parameters.now}, ${parameters.ends_at}, NULL))`,
    })
    .where(and(isApiKey(parameters), hasDecided(db, parameters), isSuccessorThere(db, parameters))),
);

/**
 * Read from the event, not from the row, which may have changed since, so that a repeated request gets the same answer.
 */
const readSuccessor = query((db, parameters: Placeholders<RotateParameters>) =>
  db
    .select({ state: audit_events.state })
    .from(audit_events)
    .where(and(isOtherEventOfDecision(db, parameters), eq(audit_events.action, 'api_key.created'))),
);

/** Includes the hash, which is the key's name in the caches, and the expiry of a successor. */
const readRotated = query((db, parameters: Placeholders<RotateParameters>) =>
  db
    .select({ ...apiKeyColumns(), key_hash: api_keys.key_hash, life: lifeOf(db, parameters).as('life') })
    .from(api_keys)
    .where(isApiKey(parameters)),
);

const decide = mutation('api_keys:rotate', {
  statements: [recordRotation, insertSuccessor, recordSuccessor, endOldKey],
  found: { key: readRotated, successor: readSuccessor, full: fullQuota(['audit_events', 'api_keys']) },
});

/**
 * Replaces an API key by a new one with the same name, user, role and expiry (docs/contract.md, API keys). The old key
 * works until the overlap ends, or until its own expiry if that is sooner.
 *
 * @returns both keys as clients see them, and the new raw key, which is shown only in the first response: a repeat
 *   under the same Idempotency-Key does not have it
 * @throws DomainError `api_key_not_found`, `api_key_inactive`, `permission_denied` for a key with a higher role, a
 *   later expiry or another user than the caller's, `quota_exceeded`, and the errors of every mutation
 *   (decision/mutation.ts)
 */
export async function rotateApiKey(
  call: ApiCall,
  key_id: string,
  { overlap_seconds }: z.output<typeof rotation>,
): Promise<{ raw_key?: string; key: ApiKey; previous_key: ApiKey }> {
  const { raw_key, stored } = await newKey();
  const event = mutationParameters(call);
  const successor_id = newId('apikey');
  const answer = await decide(call, {
    ...event,
    key_id,
    ends_at: event.event_time + overlap_seconds,
    successor_id,
    successor_event_id: eventIdBeside(event.event_id, successor_id),
    ...stored,
  });
  const [rotated] = answer.found.key;
  if (answer.outcome === 'undecided') {
    throw rotated ? refusal(rotated, call, answer, event.now) : new DomainError('api_key_not_found', {});
  }
  const [successor] = answer.found.successor;
  if (!successor) throw new Error('A rotation left no successor.');

  if (rotated) dropKeys(call, [rotated.key_hash]);
  const previous = apiKeyState.parse(JSON.parse(answer.event.state));
  const key = apiKeyState.parse(JSON.parse(successor.state));
  const ends_at = key.created_at + overlap_seconds;
  const keys = {
    key: presentApiKey(key),
    previous_key: presentApiKey({ ...previous, expires_at: Math.min(previous.expires_at ?? ends_at, ends_at) }),
  };
  return answer.outcome === 'replayed' ? keys : { raw_key, ...keys };
}

/** Why a key was not rotated, by what the batch found. */
function refusal(
  { key_id, user_id, role, status, expires_at, life }: ApiKeyState & { life: number },
  call: ApiCall,
  { caller, found }: { caller: CallerKey; found: { full: FullQuota[] } },
  now: number,
): DomainError {
  if (isAbove(role, caller.role)) return exceeding('role');
  if (user_id !== caller.user_id && caller.role !== 'admin') return exceeding('user');
  if (status !== 'active' || (expires_at !== null && expires_at <= now)) return new DomainError('api_key_inactive', {});
  const [full] = found.full;
  const outlives = key_id !== holderOf(call).key_id && caller.expires_at !== null && life > caller.expires_at;
  return full && !outlives ? new DomainError('quota_exceeded', full) : exceeding('expires_at');
}

const exceeding = (exceeds: 'role' | 'expires_at' | 'user') =>
  new DomainError('permission_denied', { required_permission: 'api_keys:rotate', exceeds });
