import { asc } from 'drizzle-orm';
import { batch } from '../../worker/d1/batch.ts';
import { query } from '../../worker/d1/query.ts';
import { operator_keys } from '../../worker/d1/schema.ts';
import { presentOperatorKey } from './operator-key.ts';
import type { OperatorKey } from './operator-key.ts';

const listKeys = query((db) =>
  db.select().from(operator_keys).orderBy(asc(operator_keys.created_at), asc(operator_keys.operator_key_id)),
);

/** All operator keys, the oldest first. */
export async function listOperatorKeys(database: D1Database): Promise<OperatorKey[]> {
  const [found] = await batch(database, [listKeys.bind({})]);
  return found.map(presentOperatorKey);
}
