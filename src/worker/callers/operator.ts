/** The keys of operators, and who calls with them. */
import { and, eq, gt, lt, or, isNull, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { operatorPermissions } from '../core/permissions.ts';
import type { OperatorPermission } from '../core/permissions.ts';
import { lastBeat } from '../d1/heartbeat.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { operator_keys } from '../d1/schema.ts';
import { keyCache } from './key-cache.ts';

const cachedOperator = z.object({
  operator_key_id: z.string(),
  name: z.string(),
  /** JSON array, as it is stored. */
  permissions: z.string(),
  key_hash: z.string(),
  /** Unix seconds. */
  expires_at: z.int(),
  deadline: z.int(),
});

/** The holder of an operator key, which was alive when D1 was last asked about it. */
export type Operator = z.output<typeof cachedOperator>;

/** Predicate: the operator key is active and has not expired. */
export const isLivingOperator = ({ now }: Placeholders<{ now: number }>) =>
  and(eq(operator_keys.status, 'active'), gt(operator_keys.expires_at, now));

const findKey = query((db, { key_hash, now }: Placeholders<{ key_hash: string; now: number }>) =>
  db
    .select({
      operator_key_id: operator_keys.operator_key_id,
      name: operator_keys.name,
      permissions: operator_keys.permissions,
      key_hash: operator_keys.key_hash,
      expires_at: operator_keys.expires_at,
      is_alive: sql<number>`${isLivingOperator({ now })}`.as('is_alive'),
      beat_at: lastBeat.as('beat_at'),
    })
    .from(operator_keys)
    .where(eq(operator_keys.key_hash, key_hash)),
);

const markUsed = query((db, { operator_key_id, now }: Placeholders<{ operator_key_id: string; now: number }>) =>
  db
    .update(operator_keys)
    .set({ last_used_at: sql`${now}` })
    .where(
      and(
        eq(operator_keys.operator_key_id, operator_key_id),
        or(isNull(operator_keys.last_used_at), lt(operator_keys.last_used_at, now)),
      ),
    ),
);

/** For the look-up of an operator key: a row if it is alive. */
export const findLivingOperator = query((db, { key_hash, now }: Placeholders<{ key_hash: string; now: number }>) =>
  db
    .select({ one: sql`1` })
    .from(operator_keys)
    .where(and(eq(operator_keys.key_hash, key_hash), isLivingOperator({ now }))),
);

const cache = keyCache<Operator>({ schema: cachedOperator, find: findKey, markUsed });

/** As `keyCache` says. */
export const presentOperatorKey = cache.present;

/** Removes a key from the isolate's cache, because D1 has said something else about it. */
export const forgetOperator = cache.forget;

const names = z.array(z.string());

/**
 * The permissions that this version knows.
 *
 * @param stored JSON array, as it is stored
 */
export function permissionsIn(stored: string): OperatorPermission[] {
  const granted = names.parse(JSON.parse(stored));
  return operatorPermissions.filter((permission) => granted.includes(permission));
}
