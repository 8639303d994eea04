import { and, eq, lte } from 'drizzle-orm';
import { assertNothingInDoubt, eventExists, eventParameters, eventRecorder, readEvent } from '../audit/record.ts';
import type { EventParameters } from '../audit/record.ts';
import { assertCallerMay, callerKey, callerRank, rankOf } from '../auth/authorize.ts';
import { dropRevokedKey } from '../auth/key-cache.ts';
import { isAbove } from '../auth/permissions.ts';
import type { Operation } from '../env.ts';
import { DomainError } from '../problem.ts';
import { query, runBatch } from '../query.ts';
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

const readKey = query((db, parameters: Placeholders<RevokeParameters>) =>
  db
    .select({ ...apiKeyColumns, key_hash: api_keys.key_hash })
    .from(api_keys)
    .where(isApiKey(parameters)),
);

/**
 * Revokes an API key (contract.md, API keys): it changes nothing from the commit on, and reads nothing once the caches have
 * forgotten it, 60 s later at most. A revoked key stays so: to revoke it again changes nothing and is no error.
 *
 * @returns the key, revoked
 * @throws DomainError `api_key_not_found`, `permission_denied`, `invalid_api_key`, `temporarily_unavailable`
 */
export async function revokeApiKey(operation: Operation, key_id: string): Promise<ApiKey> {
  const { env, afterAnswer } = operation;
  const parameters = { ...eventParameters(operation), key_id };
  const {
    results: [caller, , , [key], [event]],
    inDoubt,
  } = await runBatch(env.DB, [
    callerKey.bind(parameters),
    recordRevocation.bind(parameters),
    markRevoked.bind(parameters),
    readKey.bind(parameters),
    readEvent.bind(parameters),
  ]);
  if (!event) {
    assertNothingInDoubt(inDoubt);
    const own = assertCallerMay('api_keys:revoke', operation, caller);
    if (key && isAbove(key.role, own.role)) {
      throw new DomainError('permission_denied', { required_permission: 'api_keys:revoke', exceeds: 'role' });
    }
  }
  if (!key) throw new DomainError('api_key_not_found', {});
  dropRevokedKey(env, key.key_hash, afterAnswer);
  return presentApiKey(key);
}
