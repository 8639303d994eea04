import { permissionsIn } from '../../worker/callers/operator.ts';
import { toIso } from '../../worker/core/time.ts';
import type { operator_keys } from '../../worker/d1/schema.ts';

/** An operator key as commands show it. */
export function presentOperatorKey(row: Omit<typeof operator_keys.$inferSelect, 'key_hash'>) {
  return {
    operator_key_id: row.operator_key_id,
    name: row.name,
    prefix: row.prefix,
    permissions: permissionsIn(row.permissions),
    status: row.status,
    created_at: toIso(row.created_at),
    expires_at: toIso(row.expires_at),
    last_used_at: row.last_used_at === null ? null : toIso(row.last_used_at),
  };
}

export type OperatorKey = ReturnType<typeof presentOperatorKey>;
