import { and, asc, eq, gt, inArray, lte, not, or, sql } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
import * as z from 'zod';
import { eventExists, eventParameters, eventRecorder, eventsRecorder } from '../decision/event.ts';
import type { EventParameters } from '../decision/event.ts';
import { callerRank, rankOf } from '../decision/caller.ts';
import { dropKeys, isAlive } from '../callers/key-cache.ts';
import { isAbove } from '../core/permissions.ts';
import type { Operation } from '../env.ts';
import { isBesideDecision, mutation } from '../decision/mutation.ts';
import { DomainError } from '../core/errors.ts';
import { existsIn, query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { api_keys, audit_events } from '../d1/schema.ts';
import { apiKeyColumns, apiKeyState, isApiKey, isKeyOf, presentApiKey } from './api-key.ts';
import type { ApiKey, ApiKeyState } from './api-key.ts';
import { revokeRecorded } from '../../operator/api-keys/revoke-all.ts';

export const revocation = z.strictObject({
  descendants: z
    .enum(['true', 'false'])
    .exactOptional()
    .meta({
      description:
        'Whether the living keys that it made are revoked with it, and those that they made: all of them, or none where ' +
        'one is of a role above that of the calling key.',
    }),
});

interface RevokeParameters extends EventParameters {
  key_id: string;
}

const isWithinRank = (db: Builder, parameters: Placeholders<RevokeParameters>) =>
  lte(rankOf(api_keys.role), callerRank('api_keys:revoke', db, parameters));

/** A key of a role no higher than the caller's, and not yet revoked. */
const recordRevocation = eventRecorder<RevokeParameters>(
  api_keys,
  api_keys.key_id,
  'api_key.revoked',
  (db, parameters) => and(isApiKey(parameters), eq(api_keys.status, 'active'), isWithinRank(db, parameters)),
);

const markRevoked = query((db, parameters: Placeholders<RevokeParameters>) =>
  db
    .update(api_keys)
    .set({ status: 'revoked' })
    .where(and(isApiKey(parameters), eventExists(db, parameters))),
);

/** With the hash, by which the caches know it. */
const readKey = query((db, parameters: Placeholders<{ organization_id: string; key_id: string }>) =>
  db
    .select({ ...apiKeyColumns(), key_hash: api_keys.key_hash })
    .from(api_keys)
    .where(isApiKey(parameters)),
);

const decide = mutation('api_keys:revoke', {
  explain: { key: readKey },
  act: { recordRevocation, markRevoked },
});

/** The ids of the keys that a key made, and of those that they made, dead ones too, by the index of makers. */
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

/** A key that is not yet revoked, or has living descendants, none of which, nor itself, is of a role above the caller's. */
const recordRootRevocation = eventRecorder<RevokeParameters>(
  api_keys,
  api_keys.key_id,
  'api_key.revoked',
  (db, parameters) => {
    const isLiving = isLivingDescendant(db, parameters);
    const isAboveCaller = gt(rankOf(api_keys.role), callerRank('api_keys:revoke', db, parameters));
    return and(
      isApiKey(parameters),
      or(eq(api_keys.status, 'active'), existsIn(db, api_keys, isLiving)),
      isWithinRank(db, parameters),
      not(existsIn(db, api_keys, and(isLiving, isAboveCaller))),
    );
  },
);

/** A late try finds none: from the first one's commit on no descendant lives, so that none makes another. */
const recordDescendants = eventsRecorder<RevokeParameters>(
  api_keys,
  api_keys.key_id,
  'api_key.revoked',
  (db, parameters) => and(isLivingDescendant(db, parameters), eventExists(db, parameters)),
);

const findRoles = query((db, parameters: Placeholders<RevokeParameters>) =>
  db.selectDistinct({ role: api_keys.role }).from(api_keys).where(isLivingDescendant(db, parameters)),
);

/** Of a request that was answered before too: so by their events, whose states are those just before. */
const readRevoked = query((db, parameters: Placeholders<RevokeParameters>) =>
  db
    .select({ state: audit_events.state, key_hash: api_keys.key_hash })
    .from(audit_events)
    .innerJoin(api_keys, and(isKeyOf(parameters), eq(api_keys.key_id, audit_events.target_id)))
    .where(isBesideDecision(db, parameters))
    .orderBy(asc(api_keys.created_at), asc(api_keys.key_id)),
);

const explain = { key: readKey, roles: findRoles, revoked: readRevoked };

const decideWithDescendants = mutation<RevokeParameters, typeof explain>('api_keys:revoke', {
  explain,
  act: { recordRootRevocation, recordDescendants, revokeRecorded },
});

/**
 * Revokes an API key (contract.md, API keys): it changes nothing from the commit on, and reads nothing once the caches have
 * forgotten it, 60 s later at most. A revoked key stays so: to revoke it again changes nothing and is no error.
 *
 * With its descendants, all or none of them, it is one batch too.
 *
 * @returns the key, revoked, and those of its descendants that were living
 * @throws DomainError `api_key_not_found`, `permission_denied`, and what any mutation does (mutation.ts)
 */
export async function revokeApiKey(
  operation: Operation,
  key_id: string,
  { descendants }: z.output<typeof revocation>,
): Promise<ApiKey & { revoked_descendants?: ApiKey[] }> {
  const parameters = { ...eventParameters(operation), key_id };
  if (descendants !== 'true') {
    const key = judged(await decide(operation, parameters));
    dropKeys(operation, [key.key_hash]);
    return presentApiKey(key);
  }
  const decision = await decideWithDescendants(operation, parameters);
  const { roles, revoked } = decision.found;
  const key = judged(decision, roles);
  dropKeys(
    operation,
    [key, ...revoked].map(({ key_hash }) => key_hash),
  );
  const states = revoked.map(({ state }) => apiKeyState.parse(JSON.parse(state)));
  return {
    ...presentApiKey(key),
    revoked_descendants: states.map((state) => presentApiKey({ ...state, status: 'revoked' })),
  };
}

/** The key that was to be revoked, unless that was refused, for its role or for one of its descendants'. */
function judged(decision: Awaited<ReturnType<typeof decide>>, descendants: Pick<ApiKeyState, 'role'>[] = []) {
  const [key] = decision.found.key;
  if (!key) throw new DomainError('api_key_not_found', {});
  if (!decision.event && [key, ...descendants].some(({ role }) => isAbove(role, decision.caller.role))) {
    throw new DomainError('permission_denied', { required_permission: 'api_keys:revoke', exceeds: 'role' });
  }
  return key;
}
