import { eq } from 'drizzle-orm';
import { batch } from '../../worker/d1/batch.ts';
import { query } from '../../worker/d1/query.ts';
import type { Placeholders } from '../../worker/d1/query.ts';
import { operator_keys } from '../../worker/d1/schema.ts';

const revokeKey = query((db, { operator_key_id }: Placeholders<{ operator_key_id: string }>) =>
  db.update(operator_keys).set({ status: 'revoked' }).where(eq(operator_keys.operator_key_id, operator_key_id)),
);

/**
 * Revokes an operator key. From the commit on it can change nothing. It can read until the caches have forgotten it, at most
 * 60 s. To revoke it again has no effect.
 *
 * @throws DomainError `temporarily_unavailable`
 */
export async function revokeOperatorKey(database: D1Database, operator_key_id: string): Promise<void> {
  await batch(database, [revokeKey.bind({ operator_key_id })]);
}
