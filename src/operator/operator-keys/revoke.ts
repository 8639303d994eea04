import { asc, eq } from 'drizzle-orm';
import { batch } from '../../worker/d1/batch.ts';
import { query } from '../../worker/d1/query.ts';
import type { Placeholders } from '../../worker/d1/query.ts';
import { operator_keys } from '../../worker/d1/schema.ts';
import { presentOperatorKey } from './operator-key.ts';
import type { OperatorKey } from './operator-key.ts';

type KeyParameters = Placeholders<{ operator_key_id: string }>;

const isKey = ({ operator_key_id }: KeyParameters) => eq(operator_keys.operator_key_id, operator_key_id);

const listKeys = query((db) =>
  db.select().from(operator_keys).orderBy(asc(operator_keys.created_at), asc(operator_keys.operator_key_id)),
);

const findKey = query((db, parameters: KeyParameters) => db.select().from(operator_keys).where(isKey(parameters)));

const revokeKey = query((db, parameters: KeyParameters) =>
  db.update(operator_keys).set({ status: 'revoked' }).where(isKey(parameters)),
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
 * @returns the key; undefined if there is none
 * @throws DomainError `temporarily_unavailable`
 */
export async function revokeOperatorsKey(
  database: D1Database,
  operator_key_id: string,
): Promise<OperatorKey | undefined> {
  const [, [found]] = await batch(database, [revokeKey.bind({ operator_key_id }), findKey.bind({ operator_key_id })]);
  return found && presentOperatorKey(found);
}
