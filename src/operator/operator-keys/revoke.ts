import { asc, eq } from 'drizzle-orm';
import { batch } from '../../worker/d1/batch.ts';
import { query } from '../../worker/d1/query.ts';
import type { Placeholders } from '../../worker/d1/query.ts';
import { operator_keys } from '../../worker/d1/schema.ts';
import { presentOperatorKey } from './operator-key.ts';
import type { OperatorKey } from './operator-key.ts';

const listKeys = query((db) =>
  db.select().from(operator_keys).orderBy(asc(operator_keys.created_at), asc(operator_keys.operator_key_id)),
);

const revokeKey = query((db, { operator_key_id }: Placeholders<{ operator_key_id: string }>) =>
  db.update(operator_keys).set({ status: 'revoked' }).where(eq(operator_keys.operator_key_id, operator_key_id)),
);

/** All operator keys, the oldest first. */
export async function listOperatorsKeys(database: D1Database): Promise<OperatorKey[]> {
  const [found] = await batch(database, [listKeys.bind({})]);
  return found.map(presentOperatorKey);
}

/**
 * Revokes an operator key. From the commit on it can change nothing. It can read until the caches have forgotten it, at most
 * 60 s. To revoke it again has no effect.
 *
 * @throws DomainError `temporarily_unavailable`
 */
export async function revokeOperatorsKey(database: D1Database, operator_key_id: string): Promise<void> {
  await batch(database, [revokeKey.bind({ operator_key_id })]);
}
