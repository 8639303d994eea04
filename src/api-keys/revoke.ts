import { and, eq, lte } from 'drizzle-orm';
import { eventExists, eventParameters, eventRecorder } from '../audit/record.ts';
import type { EventParameters } from '../audit/record.ts';
import { callerRank, rankOf } from '../auth/authorize.ts';
import { dropKey } from '../auth/key-cache.ts';
import { isAbove } from '../auth/permissions.ts';
import type { Operation } from '../env.ts';
import { mutation } from '../mutation.ts';
import { DomainError } from '../problem.ts';
import { query } from '../query.ts';
import type { Placeholders } from '../query.ts';
import { api_keys } from '../schema.ts';
import { apiKeyColumns, isApiKey, presentApiKey } from './api-key.ts';
import type { ApiKey } from './api-key.ts';

interface RevokeParameters extends EventParameters {
  key_id: string;
}

/** A key of a role no higher than the caller's, and not yet revoked. */
const recordRevocation = eventRecorder<RevokeParameters>(
  api_keys,
  api_keys.key_id,
  'api_key.revoked',
  (db, parameters) =>
    and(
      isApiKey(parameters),
      eq(api_keys.status, 'active'),
      lte(rankOf(api_keys.role), callerRank('api_keys:revoke', db, parameters)),
    ),
);

const markRevoked = query((db, parameters: Placeholders<RevokeParameters>) =>
  db
    .update(api_keys)
    .set({ status: 'revoked' })
    .where(and(isApiKey(parameters), eventExists(db, parameters))),
);

/** With the hash, by which the caches know it. */
export const readKey = query((db, parameters: Placeholders<{ organization_id: string; key_id: string }>) =>
  db
    .select({ ...apiKeyColumns(), key_hash: api_keys.key_hash })
    .from(api_keys)
    .where(isApiKey(parameters)),
);

const decide = mutation('api_keys:revoke', {
  explain: { key: readKey },
  act: { recordRevocation, markRevoked },
});

/**
 * Revokes an API key (contract.md, API keys): it changes nothing from the commit on, and reads nothing once the caches have
 * forgotten it, 60 s later at most. A revoked key stays so: to revoke it again changes nothing and is no error.
 *
 * @returns the key, revoked
 * @throws DomainError `api_key_not_found`, `permission_denied`, and what any mutation does (mutation.ts)
 */
export async function revokeApiKey(operation: Operation, key_id: string): Promise<ApiKey> {
  const decision = await decide(operation, { ...eventParameters(operation), key_id });
  const [key] = decision.found.key;
  if (!key) throw new DomainError('api_key_not_found', {});
  if (!decision.event && isAbove(key.role, decision.caller.role)) {
    throw new DomainError('permission_denied', { required_permission: 'api_keys:revoke', exceeds: 'role' });
  }
  dropKey(operation, key.key_hash);
  return presentApiKey(key);
}
