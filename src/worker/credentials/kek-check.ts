/**
 * Checks that a key-encryption key (KEK) is the right one. Operators choose the ids of KEKs. If one deployment used
 * another key under the same id, no other deployment could decrypt what it wraps. So D1 keeps a check value of each
 * KEK's bytes, from the first time that it wraps a data key.
 */
import { and, eq, isNotNull, isNull, ne, not, or, sql } from 'drizzle-orm';
import type { Placeholder } from 'drizzle-orm';
import { logAlert } from '../core/log.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { key_encryption_keys } from '../d1/schema.ts';
import type { KekRing } from './kek-ring.ts';

interface KekParameters {
  kek_id: string;
  check_value: string;
  /** Unix seconds. */
  now: number;
}

/** The KEK that wraps new data keys, and its check value. */
export const currentKek = ({ current, checkValues }: KekRing) => ({
  kek_id: current,
  check_value: checkValues.get(current) ?? '',
});

/**
 * Records a KEK. In a batch it must come before the statements that ask {@link isKnownKek}. It also stores where the
 * next run of the re-wrap begins (rewrap.ts).
 */
export const recordKek = query(
  (db, { kek_id, check_value, now, rewrap_place }: Placeholders<KekParameters & { rewrap_place: string | null }>) =>
    db
      .insert(key_encryption_keys)
      .values({ kek_id, check_value, created_at: now, rewrap_place })
      .onConflictDoUpdate({
        target: key_encryption_keys.kek_id,
        set: { rewrap_place: sql`excluded.rewrap_place` },
        setWhere: sql`${key_encryption_keys.rewrap_place} IS NOT excluded.rewrap_place`,
      }),
);

type Check = Record<'kek_id' | 'check_value', Placeholder>;

/** Predicate: the KEK is recorded under this id with this check value, and is not retired. */
export const isKnownKek = (db: Builder, { kek_id, check_value }: Check) =>
  existsIn(
    db,
    key_encryption_keys,
    and(
      eq(key_encryption_keys.kek_id, kek_id),
      eq(key_encryption_keys.check_value, check_value),
      isNull(key_encryption_keys.retired_at),
    ),
  );

/** Predicate: no other KEK is recorded under this id, and this one is not retired. It may be a new one. */
export const isNoOtherKek = (db: Builder, { kek_id, check_value }: Check) =>
  not(
    existsIn(
      db,
      key_encryption_keys,
      and(
        eq(key_encryption_keys.kek_id, kek_id),
        or(ne(key_encryption_keys.check_value, check_value), isNotNull(key_encryption_keys.retired_at)),
      ),
    ),
  );

export const findKek = query((db, { kek_id }: Placeholders<{ kek_id: string }>) =>
  db
    .select({
      check_value: key_encryption_keys.check_value,
      created_at: key_encryption_keys.created_at,
      retired_at: key_encryption_keys.retired_at,
      rewrap_place: key_encryption_keys.rewrap_place,
    })
    .from(key_encryption_keys)
    .where(eq(key_encryption_keys.kek_id, kek_id)),
);

/**
 * {@link isNoOtherKek}, by the row that was read. If the KEK cannot be used, it logs the alert `kek_mismatch` or
 * `kek_retired`.
 */
export function isUsableKek(
  kek: { kek_id: string; check_value: string },
  known: { check_value: string | null; retired_at: number | null } | undefined,
): boolean {
  const isSame = (known?.check_value ?? kek.check_value) === kek.check_value;
  const isRetired = typeof known?.retired_at === 'number';
  if (isSame && !isRetired) return true;
  logAlert(isSame ? 'kek_retired' : 'kek_mismatch', { kek_id: kek.kek_id });
  return false;
}
