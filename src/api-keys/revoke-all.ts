import { eq } from 'drizzle-orm';
import { operatorEventParameters } from '../audit/record.ts';
import { inBatches } from '../in-batches.ts';
import type { OnProgress } from '../in-batches.ts';
import { api_keys } from '../schema.ts';

export const revokeKeysInBatches = inBatches({
  table: api_keys,
  id: api_keys.key_id,
  action: 'api_key.revoked',
  condition: () => eq(api_keys.status, 'active'),
  act: (db, isRecorded) => db.update(api_keys).set({ status: 'revoked' }).where(isRecorded),
});

/**
 * Revokes every key of an organization, those too that a living one makes meanwhile: they change nothing from the commit of
 * their batch on, and read nothing once the caches have forgotten them, 60 s later at most.
 *
 * @returns how many keys it revoked
 * @throws DomainError `temporarily_unavailable`
 */
export function revokeAllKeys(database: D1Database, organization_id: string, onProgress?: OnProgress): Promise<number> {
  return revokeKeysInBatches(database, operatorEventParameters(organization_id), onProgress);
}
