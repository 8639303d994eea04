/**
 * Key-encryption keys (KEKs) are named by an operator. What else a KEK is known by is a check value of its bytes, written when
 * it first wraps a data key: another key under the same name would wrap what nobody else can open.
 */
import { and, eq, ne, not } from 'drizzle-orm';
import type { Placeholder } from 'drizzle-orm';
import { logAlert } from '../log.ts';
import { existsIn, query } from '../query.ts';
import type { Builder, Placeholders } from '../query.ts';
import { key_encryption_keys } from '../schema.ts';
import type { KekRing } from './envelope.ts';

interface KekParameters {
  kek_id: string;
  check_value: string;
  /** Unix seconds. */
  now: number;
}

/** What the ring wraps new data keys under, and how it is known. */
export const currentKek = ({ current, checkValues }: KekRing) => ({
  kek_id: current,
  check_value: checkValues.get(current) ?? '',
});

/** Stands before what depends on {@link isKnownKek}, in its batch. */
export const recordKek = query((db, { kek_id, check_value, now }: Placeholders<KekParameters>) =>
  db.insert(key_encryption_keys).values({ kek_id, check_value, created_at: now }).onConflictDoNothing(),
);

type Check = Record<'kek_id' | 'check_value', Placeholder>;

/** Predicate: the KEK of this name is the one that is known by it. */
export const isKnownKek = (db: Builder, { kek_id, check_value }: Check) =>
  existsIn(
    db,
    key_encryption_keys,
    and(eq(key_encryption_keys.kek_id, kek_id), eq(key_encryption_keys.check_value, check_value)),
  );

/** Predicate: no other KEK is known by this name. */
export const isNoOtherKek = (db: Builder, { kek_id, check_value }: Check) =>
  not(
    existsIn(
      db,
      key_encryption_keys,
      and(eq(key_encryption_keys.kek_id, kek_id), ne(key_encryption_keys.check_value, check_value)),
    ),
  );

export const findKek = query((db, { kek_id }: Placeholders<{ kek_id: string }>) =>
  db
    .select({ check_value: key_encryption_keys.check_value })
    .from(key_encryption_keys)
    .where(eq(key_encryption_keys.kek_id, kek_id)),
);

/** Whether no other KEK is known by its name. Alerts by `kek_mismatch` where one is. */
export function isSameKek(
  kek: { kek_id: string; check_value: string },
  known: { check_value: string | null } | undefined,
): boolean {
  if ((known?.check_value ?? kek.check_value) === kek.check_value) return true;
  logAlert('kek_mismatch', { kek_id: kek.kek_id });
  return false;
}
