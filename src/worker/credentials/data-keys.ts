/**
 * Finds data keys in the rows of D1, by the key-encryption key (KEK) that wraps them. The indexes on `kek_id` serve
 * this.
 */
import { and, asc, eq, inArray, isNotNull, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import { unixNow } from '../core/time.ts';
import { batch } from '../d1/batch.ts';
import { boundedCount, toldCount } from '../d1/bounded-count.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations, phone_numbers, webhook_secrets } from '../d1/schema.ts';
import type { WrappedDataKey } from './envelope.ts';
import { findKek, isKnownKek, isUsableKek, recordKek } from './kek-check.ts';

const ROWS_PER_PAGE = 100;

/** Whose credentials are in KV, encrypted with the data key. */
const credentialsTables = ['integrations', 'phone_numbers'] as const;
/** A webhook secret is such a key itself. */
export const dataKeyTables = [...credentialsTables, 'webhook_secrets'] as const;

/** A data key, and the row that holds it: an integration, a SIP number or a webhook secret. */
export interface StoredDataKey extends WrappedDataKey {
  table: (typeof dataKeyTables)[number];
  organization_id: string;
  subject_id: string;
  /** Of a webhook secret: its endpoint. */
  credentials_version: string;
}

type Place = Pick<StoredDataKey, 'organization_id' | 'subject_id'>;
const BEFORE_ALL: Place = { organization_id: '', subject_id: '' };

interface Replacement extends Omit<StoredDataKey, 'table'> {
  new_data_key: string;
  new_kek_id: string;
  new_check_value: string;
}

/** A data key, and the status of its row. */
export type HeldDataKey = StoredDataKey & { status: string };

interface Holders {
  table: SQLiteTable & Record<'organization_id' | 'data_key' | 'kek_id', SQLiteColumn>;
  subject_id: SQLiteColumn;
  credentials_version: SQLiteColumn;
  /**
   * Predicate: the row comes after a place in the order of the primary key. (The index on `kek_id` ends with that key.)
   */
  isAfter: (place: Placeholders<Place>) => SQL;
  order: SQLiteColumn[];
}

const columnsOf = ({ table, subject_id, credentials_version }: Holders) => ({
  organization_id: sql<string>`${table.organization_id}`.as('organization_id'),
  subject_id: sql<string>`${subject_id}`.as('subject_id'),
  credentials_version: sql<string>`${credentials_version}`.as('credentials_version'),
  data_key: sql<string>`${table.data_key}`.as('data_key'),
  kek_id: sql<string>`${table.kek_id}`.as('kek_id'),
});

function statements(holders: Holders) {
  const { table, subject_id, credentials_version, isAfter, order } = holders;
  const { organization_id, data_key, kek_id } = table;
  const columns = columnsOf(holders);
  const inOrder = order.map((column) => asc(column));
  return {
    /**
     * Goes from each id to the next greater one, so it takes as many seeks as there are ids, however many rows there
     * are.
     */
    listKekIds: query<object, { kek_id: string }[]>((db) =>
      db.select({ kek_id: sql<string>`kek_id`.as('kek_id') }).from(
        sql`(WITH RECURSIVE walk(kek_id) AS (
            SELECT '' UNION ALL
            SELECT (SELECT min(${kek_id}) FROM ${table} WHERE ${kek_id} > walk.kek_id) FROM walk WHERE walk.kek_id IS NOT NULL
          ) SELECT kek_id FROM walk WHERE kek_id > '')`,
      ),
    ),

    count: query((db, { kek_ids }: Placeholders<{ kek_ids: string }>) =>
      boundedCount(db, table, inArray(kek_id, sql`(SELECT value FROM json_each(${kek_ids}))`)),
    ),

    page: query((db, parameters: Placeholders<Place & { kek_id: string; limit: number }>) =>
      db
        .select(columns)
        .from(table)
        .where(and(eq(kek_id, parameters.kek_id), isAfter(parameters)))
        .orderBy(...inOrder)
        .limit(parameters.limit),
    ),

    /** A compare-and-swap. For the client nothing changes, so `revision` and `updated_at` stay as they are. */
    replace: query((db, parameters: Placeholders<Replacement>) =>
      db
        .update(table)
        .set({ data_key: sql`${parameters.new_data_key}`, kek_id: sql`${parameters.new_kek_id}` })
        .where(
          and(
            eq(organization_id, parameters.organization_id),
            eq(subject_id, parameters.subject_id),
            eq(credentials_version, parameters.credentials_version),
            eq(kek_id, parameters.kek_id),
            eq(data_key, parameters.data_key),
            isKnownKek(db, { kek_id: parameters.new_kek_id, check_value: parameters.new_check_value }),
          ),
        )
        .returning({ subject_id: sql<string>`${subject_id}`.as('subject_id') }),
    ),
  };
}

const definitions = {
  integrations: {
    table: integrations,
    subject_id: integrations.integration_id,
    credentials_version: integrations.credentials_version,
    isAfter: ({ organization_id, subject_id }) =>
      sql`(${integrations.organization_id}, ${integrations.integration_id}) > (${organization_id}, ${subject_id})`,
    order: [integrations.organization_id, integrations.integration_id],
  },
  phone_numbers: {
    table: phone_numbers,
    subject_id: phone_numbers.phone_number_id,
    credentials_version: phone_numbers.credentials_version,
    isAfter: ({ subject_id }) => sql`${phone_numbers.phone_number_id} > ${subject_id}`,
    order: [phone_numbers.phone_number_id],
  },
  webhook_secrets: {
    table: webhook_secrets,
    subject_id: webhook_secrets.secret_id,
    credentials_version: webhook_secrets.endpoint_id,
    isAfter: ({ organization_id, subject_id }) =>
      sql`(${webhook_secrets.organization_id}, ${webhook_secrets.secret_id}) > (${organization_id}, ${subject_id})`,
    order: [webhook_secrets.organization_id, webhook_secrets.secret_id],
  },
} satisfies Record<StoredDataKey['table'], Holders>;

const holders = {
  integrations: statements(definitions.integrations),
  phone_numbers: statements(definitions.phone_numbers),
  webhook_secrets: statements(definitions.webhook_secrets),
};

/** In the order of the primary key, which no re-wrap changes. */
const pageOfAll = (name: (typeof credentialsTables)[number]) =>
  query((db, parameters: Placeholders<Place & { limit: number }>) => {
    const { table, credentials_version, isAfter, order } = definitions[name];
    return db
      .select({ ...columnsOf(definitions[name]), status: sql<string>`${table.status}`.as('status') })
      .from(table)
      .where(and(isNotNull(credentials_version), isAfter(parameters)))
      .orderBy(...order.map((column) => asc(column)))
      .limit(parameters.limit);
  });

const pagesOfAll = { integrations: pageOfAll('integrations'), phone_numbers: pageOfAll('phone_numbers') };

/** The ids of all KEKs that wrap a stored data key, ascending; and the row of one KEK (kek-check.ts). */
export async function readKeks(database: D1Database, kek_id: string) {
  const [integrationsUnder, numbersUnder, secretsUnder, [known]] = await batch(database, [
    holders.integrations.listKekIds.bind({}),
    holders.phone_numbers.listKekIds.bind({}),
    holders.webhook_secrets.listKekIds.bind({}),
    findKek.bind({ kek_id }),
  ]);
  const ids = [...integrationsUnder, ...numbersUnder, ...secretsUnder].map((row) => row.kek_id);
  return { inUse: [...new Set(ids)].toSorted(), known };
}

/** How many data keys these KEKs wrap. It counts up to 1,000 in each table. */
export async function countDataKeys(
  database: D1Database,
  kek_ids: string[],
): Promise<{ count: number; exact: boolean }> {
  const counted = await batch(
    database,
    dataKeyTables.map((table) => holders[table].count.bind({ kek_ids: JSON.stringify(kek_ids) })),
  );
  const told = counted.flat().map(({ count }) => toldCount(count));
  return {
    count: told.reduce((sum, { count }) => sum + count, 0),
    exact: told.every(({ exact }) => exact),
  };
}

/** The place of a data key among those of several KEKs. */
export type DataKeyPlace = Place & Pick<StoredDataKey, 'kek_id' | 'table'>;

/**
 * The data keys that these KEKs wrap, in the order of KEK, table and primary key, in pages of at most 100. A data key
 * that is re-wrapped meanwhile may be left out.
 *
 * @param behind begin after this place
 */
export async function* dataKeysUnder(
  database: D1Database,
  kek_ids: string[],
  behind?: DataKeyPlace,
): AsyncGenerator<StoredDataKey[], void> {
  for (const kek_id of kek_ids.toSorted()) {
    for (const table of dataKeyTables) {
      const isBefore = behind && (kek_id === behind.kek_id ? table < behind.table : kek_id < behind.kek_id);
      if (isBefore) continue;
      const isWithin = behind && kek_id === behind.kek_id && table === behind.table;
      let after: Place | undefined = isWithin ? behind : BEFORE_ALL;
      while (after) {
        const [rows]: readonly [Omit<StoredDataKey, 'table'>[]] = await batch(database, [
          holders[table].page.bind({
            organization_id: after.organization_id,
            subject_id: after.subject_id,
            kek_id,
            limit: ROWS_PER_PAGE,
          }),
        ]);
        yield rows.map((row) => ({ ...row, table }));
        after = rows.length === ROWS_PER_PAGE ? rows.at(-1) : undefined;
      }
    }
  }
}

/** All data keys of credentials, in pages of at most 100. It reads every row of both tables once. */
export async function* allDataKeys(database: D1Database): AsyncGenerator<HeldDataKey[], void> {
  for (const table of credentialsTables) {
    let after: Place | undefined = BEFORE_ALL;
    while (after) {
      const [rows]: readonly [Omit<HeldDataKey, 'table'>[]] = await batch(database, [
        pagesOfAll[table].bind({ ...after, limit: ROWS_PER_PAGE }),
      ]);
      yield rows.map((row) => ({ ...row, table }));
      after = rows.length === ROWS_PER_PAGE ? rows.at(-1) : undefined;
    }
  }
}

/**
 * Replaces data keys in one transaction, each only if its row still holds the one that was read. Replaces none if the
 * KEK cannot be used (kek-check.ts).
 *
 * @param rewrap_place where the next run of the re-wrap must begin; stored with the KEK
 * @returns how many it replaced
 */
export async function replaceDataKeys(
  database: D1Database,
  kek: { kek_id: string; check_value: string },
  rewrap_place: string | null,
  replacements: (StoredDataKey & { rewrapped: WrappedDataKey })[],
): Promise<number> {
  const [, [known], ...replaced] = await batch(database, [
    recordKek.bind({ ...kek, now: unixNow(), rewrap_place }),
    findKek.bind(kek),
    ...replacements.map(({ table, rewrapped, ...row }) =>
      holders[table].replace.bind({
        ...row,
        new_data_key: rewrapped.data_key,
        new_kek_id: kek.kek_id,
        new_check_value: kek.check_value,
      }),
    ),
  ]);
  return isUsableKek(kek, known) ? replaced.flat().length : 0;
}
