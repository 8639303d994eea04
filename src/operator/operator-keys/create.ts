import { newKey } from '../../worker/api-keys/create.ts';
import { newId } from '../../worker/core/ids.ts';
import type { OperatorPermission } from '../../worker/core/permissions.ts';
import { unixNow } from '../../worker/core/time.ts';
import { batch } from '../../worker/d1/batch.ts';
import { rowValues } from '../../worker/d1/columns.ts';
import type { RowParameters } from '../../worker/d1/columns.ts';
import { query } from '../../worker/d1/query.ts';
import type { Placeholders } from '../../worker/d1/query.ts';
import { operator_keys } from '../../worker/d1/schema.ts';
import { presentOperatorKey } from './operator-key.ts';
import type { OperatorKey } from './operator-key.ts';

/** Inserts the key once, however often the batch is tried. */
const insertKey = query((db, parameters: Placeholders<RowParameters<typeof operator_keys>>) =>
  db.insert(operator_keys).values(rowValues(operator_keys, parameters)).onConflictDoNothing(),
);

/**
 * Creates an operator key.
 *
 * @param expires_at in unix seconds
 * @returns the raw key, which is shown only once, and the key
 * @throws DomainError `temporarily_unavailable`
 */
export async function createOperatorKey(
  database: D1Database,
  { name, permissions, expires_at }: { name: string; permissions: readonly OperatorPermission[]; expires_at: number },
): Promise<{ raw_key: string; key: OperatorKey }> {
  const { raw_key, stored } = await newKey('bk_operator_');
  const row = {
    operator_key_id: newId('opkey'),
    name,
    ...stored,
    permissions: JSON.stringify(permissions),
    status: 'active' as const,
    created_at: unixNow(),
    expires_at,
    last_used_at: null,
  };
  await batch(database, [insertKey.bind(row)]);
  return { raw_key, key: presentOperatorKey(row) };
}
