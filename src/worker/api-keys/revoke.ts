import { and, asc, eq, gt, inArray, lte, not, or, sql } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
import * as z from 'zod/mini';
import { dropKeys, isAlive } from '../callers/caller.ts';
import { DomainError } from '../core/errors.ts';
import { isAbove } from '../core/permissions.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { api_keys, audit_events } from '../d1/schema.ts';
import type { ApiCall, EventParameters } from '../decision/call.ts';
import { fromCallersKey, rankOf } from '../decision/caller.ts';
import { eventRecorder, hasDecided, isOfBatch } from '../decision/event.ts';
import { isOtherEventOfDecision, mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters, Outcome } from '../decision/mutation.ts';
import { isUnanswered } from '../decision/remembered-answers.ts';
import { apiKeyState, findApiKey, isApiKey, isKeyOf, presentApiKey } from './api-key.ts';
import type { ApiKey, ApiKeyState } from './api-key.ts';

export const revocation = z.strictObject({
  descendants: z.exactOptional(z.enum(['true', 'false'])),
});

interface RevokeParameters extends MutationParameters {
  key_id: string;
}

const callersRank = (db: Builder, parameters: Placeholders<RevokeParameters>) =>
  fromCallersKey(rankOf(api_keys.role), 'api_keys:revoke', db, parameters);

/** Predicate: the caller may revoke, and the key's role is not higher than the caller's. */
const mayRevoke = (db: Builder, parameters: Placeholders<RevokeParameters>) =>
  and(lte(rankOf(api_keys.role), callersRank(db, parameters)), isUnanswered(db, parameters));

const recordRevocation = eventRecorder<RevokeParameters>({
  table: api_keys,
  target_id: api_keys.key_id,
  action: 'api_key.revoked',
  where: (db, parameters) => and(isApiKey(parameters), eq(api_keys.status, 'active'), mayRevoke(db, parameters)),
});

/** Runs after the events of a call are recorded, and revokes the keys that they are about. */
export const revokeRecorded = query((db, parameters: Placeholders<EventParameters>) => {
  const recorded = db.select({ target_id: audit_events.target_id }).from(audit_events).where(isOfBatch(parameters));
  return db
    .update(api_keys)
    .set({ status: 'revoked' })
    .where(and(isKeyOf(parameters), inArray(api_keys.key_id, recorded)));
});

const decide = mutation('api_keys:revoke', {
  statements: [recordRevocation, revokeRecorded],
  found: { key: findApiKey },
});

/** The ids of the keys that a key created, and of those that they created, and so on. Dead keys are included. */
function descendantIds(db: Builder, { organization_id, key_id }: Placeholders<RevokeParameters>) {
  const made = alias(api_keys, 'made');
  const selected = { key_id: made.key_id };
  const isOfOrganization = eq(made.organization_id, organization_id);
  const byThis = db
    .select(selected)
    .from(made)
    .where(and(isOfOrganization, eq(made.created_by, key_id)));
  const byThem = db
    .select(selected)
    .from(sql`descendants`)
    .crossJoin(made)
    .where(and(isOfOrganization, eq(made.created_by, sql`descendants.key_id`)));
  return sql`(WITH RECURSIVE descendants (key_id) AS ${byThis.union(byThem)} SELECT key_id FROM descendants)`;
}

const isLivingDescendant = (db: Builder, parameters: Placeholders<RevokeParameters>) =>
  and(isKeyOf(parameters), inArray(api_keys.key_id, descendantIds(db, parameters)), isAlive(db, parameters));

/**
 * The key must be active or have descendants that are alive. Neither it nor one of those may have a higher role than
 * the caller.
 */
const recordRootRevocation = eventRecorder<RevokeParameters>({
  table: api_keys,
  target_id: api_keys.key_id,
  action: 'api_key.revoked',
  where: (db, parameters) => {
    const isLiving = isLivingDescendant(db, parameters);
    const isAboveCaller = gt(rankOf(api_keys.role), callersRank(db, parameters));
    return and(
      isApiKey(parameters),
      or(eq(api_keys.status, 'active'), existsIn(db, api_keys, isLiving)),
      mayRevoke(db, parameters),
      not(existsIn(db, api_keys, and(isLiving, isAboveCaller))),
    );
  },
});

/** A late try finds none: after the first try's commit no descendant is alive, so none can create another key. */
const recordDescendants = eventRecorder<RevokeParameters>({
  table: api_keys,
  target_id: api_keys.key_id,
  action: 'api_key.revoked',
  where: (db, parameters) => and(isLivingDescendant(db, parameters), hasDecided(db, parameters)),
  many: true,
});

const findRoles = query((db, parameters: Placeholders<RevokeParameters>) =>
  db.selectDistinct({ role: api_keys.role }).from(api_keys).where(isLivingDescendant(db, parameters)),
);

/** Read from the events, whose states are from just before, so that a repeated request gets the same answer. */
const readRevoked = query((db, parameters: Placeholders<RevokeParameters>) =>
  db
    .select({ state: audit_events.state, key_hash: api_keys.key_hash })
    .from(audit_events)
    .innerJoin(api_keys, and(isKeyOf(parameters), eq(api_keys.key_id, audit_events.target_id)))
    .where(isOtherEventOfDecision(db, parameters))
    .orderBy(asc(api_keys.created_at), asc(api_keys.key_id)),
);

const decideWithDescendants = mutation('api_keys:revoke', {
  statements: [recordRootRevocation, recordDescendants, revokeRecorded],
  found: { key: findApiKey, roles: findRoles, revoked: readRevoked },
});

/**
 * Revokes an API key (docs/contract.md, API keys). From the commit on it can change nothing. It can read until the
 * caches have forgotten it, at most 60 s. Revoking a key again has no effect and is not an error.
 *
 * With `descendants`, either the key and all its descendants are revoked, or nothing is.
 *
 * @returns the revoked key, and its descendants that were alive
 * @throws DomainError `api_key_not_found`, `permission_denied`, and the errors of every mutation (decision/mutation.ts)
 */
export async function revokeApiKey(
  call: ApiCall,
  key_id: string,
  { descendants }: z.output<typeof revocation>,
): Promise<ApiKey & { revoked_descendants?: ApiKey[] }> {
  const parameters = { ...mutationParameters(call), key_id };
  if (descendants !== 'true') {
    const key = revokedKey(await decide(call, parameters));
    dropKeys(call, [key.key_hash]);
    return presentApiKey(key);
  }
  const answer = await decideWithDescendants(call, parameters);
  const { roles, revoked } = answer.found;
  const key = revokedKey(answer, roles);
  dropKeys(
    call,
    [key, ...revoked].map(({ key_hash }) => key_hash),
  );
  const states = revoked.map(({ state }) => apiKeyState.parse(JSON.parse(state)));
  return {
    ...presentApiKey(key),
    revoked_descendants: states.map((state) => presentApiKey({ ...state, status: 'revoked' })),
  };
}

type FoundKey = ApiKeyState & { key_hash: string };

/** The key that was to be revoked. Throws if it was refused, because of its role or the role of a descendant. */
function revokedKey(answer: Outcome<{ key: FoundKey[] }>, descendants: Pick<ApiKeyState, 'role'>[] = []): FoundKey {
  const [key] = answer.found.key;
  if (!key) throw new DomainError('api_key_not_found', {});
  if (answer.outcome === 'undecided' && [key, ...descendants].some(({ role }) => isAbove(role, answer.caller.role))) {
    throw new DomainError('permission_denied', { required_permission: 'api_keys:revoke', exceeds: 'role' });
  }
  return key;
}
