/** Run after a restore of D1: reconciles its rows with the ciphertext in KV, which cannot be restored. */
import { and, eq, gt, inArray, not, sql } from 'drizzle-orm';
import pMap from 'p-map';
import { MAX_CONNECTIONS } from '../../worker/core/connections.ts';
import { RESTORABLE_SECONDS } from '../../worker/core/time.ts';
import { allDataKeys } from '../../worker/credentials/data-keys.ts';
import type { HeldDataKey, StoredDataKey } from '../../worker/credentials/data-keys.ts';
import { opens } from '../../worker/credentials/envelope.ts';
import { parseKekRing } from '../../worker/credentials/kek-ring.ts';
import type { KekRing } from '../../worker/credentials/kek-ring.ts';
import { credentialsKey, partsOf } from '../../worker/credentials/kv-key.ts';
import { INTENT_DUE_SECONDS, owedRow } from '../../worker/credentials/outbox.ts';
import { batch } from '../../worker/d1/batch.ts';
import { existsIn } from '../../worker/d1/columns.ts';
import { query } from '../../worker/d1/query.ts';
import type { Builder, Placeholders } from '../../worker/d1/query.ts';
import { credential_purges, integrations, key_encryption_keys, phone_numbers } from '../../worker/d1/schema.ts';
import { eventParameters } from '../../worker/decision/call.ts';
import type { EventParameters } from '../../worker/decision/call.ts';
import { decisionSaw, eventRecorder, updateTime } from '../../worker/decision/event.ts';
import type { Bindings } from '../../worker/env.ts';
import { commandCall } from '../call.ts';
import { databaseNow } from '../clock.ts';
import { isIntegration, isPhoneNumber } from './subject.ts';

const ROWS_PER_BATCH = 100;

interface OrphanParameters {
  /** JSON array of what {@link partsOf} returns for KV keys. */
  places: string;
  due_at: number;
}

const part = (name: string) => sql<string>`(json_each.value ->> ${sql.raw(`'${name}'`)})`;
const place = { organization_id: part('organization_id'), target_id: part('subject_id') };

/** Predicate: no row names the ciphertext. */
const isUnnamed = (db: Builder) =>
  and(
    not(existsIn(db, integrations, and(isIntegration(place), eq(integrations.credentials_version, part('version'))))),
    not(existsIn(db, phone_numbers, and(isPhoneNumber(place), eq(phone_numbers.credentials_version, part('version'))))),
  );

/** Puts ciphertext that no row names into the outbox. A row that is already there keeps its time. */
const enqueueOrphans = query((db, { places, due_at }: Placeholders<OrphanParameters>) =>
  db
    .insert(credential_purges)
    .select(
      db
        .select(
          owedRow({
            kv_key: part('kv_key'),
            organization_id: part('organization_id'),
            due_at: sql`${due_at}`,
          }),
        )
        .from(sql`json_each(${places})`)
        .where(isUnnamed(db)),
    )
    .onConflictDoNothing(),
);

/** Ciphertext that no row names and that waits until Time Travel ends. Nothing else waits in the outbox for so long. */
const findOrphans = query((db, { places, now }: Placeholders<{ places: string; now: number }>) =>
  db
    .select({ kv_key: credential_purges.kv_key })
    .from(sql`json_each(${places})`)
    .crossJoin(credential_purges)
    .where(
      and(
        eq(credential_purges.kv_key, part('kv_key')),
        gt(credential_purges.due_at, sql`${now} + ${sql.raw(String(INTENT_DUE_SECONDS))}`),
        isUnnamed(db),
      ),
    ),
);

const findOwed = query((db, { kv_keys }: Placeholders<{ kv_keys: string }>) =>
  db
    .select({ kv_key: credential_purges.kv_key })
    .from(credential_purges)
    .where(
      and(
        inArray(credential_purges.kv_key, sql`(SELECT value FROM json_each(${kv_keys}))`),
        eq(credential_purges.state, 'owed'),
      ),
    ),
);

const listKeks = query((db) =>
  db
    .select({ kek_id: key_encryption_keys.kek_id, check_value: key_encryption_keys.check_value })
    .from(key_encryption_keys),
);

interface MissingParameters extends EventParameters {
  target_id: string;
  credentials_version: string;
}

/** Only if the row still has the version that was checked: new credentials may have been stored meanwhile. */
const recordMissing = eventRecorder<MissingParameters>({
  table: integrations,
  target_id: integrations.integration_id,
  action: 'integration.credentials_missing',
  where: (_, parameters) =>
    and(
      isIntegration(parameters),
      eq(integrations.credentials_version, parameters.credentials_version),
      eq(integrations.status, 'active'),
    ),
});

const markMissing = query((db, parameters: Placeholders<MissingParameters>) =>
  db
    .update(integrations)
    .set({
      status: 'credentials_missing',
      updated_at: updateTime(db, parameters, integrations.updated_at),
      revision: sql`${integrations.revision} + 1`,
    })
    .where(and(isIntegration(parameters), decisionSaw(db, parameters, integrations.revision)))
    .returning({ integration_id: integrations.integration_id }),
);

export interface Reconciled {
  /** Integrations that are `credentials_missing`, since now or already before. */
  credentials_missing: string[];
  /** SIP numbers whose credentials are lost. They have no status for that, and need new ones by an update. */
  sip_numbers_missing: string[];
  /** KV keys that no row names. They wait in the outbox now. */
  orphans: string[];
}

/** Without a ring, only the existence of a ciphertext can be checked, not whether it can be decrypted. */
type ReconcileBindings = Pick<Bindings, 'DB' | 'CREDENTIALS'> & { CREDENTIALS_KEKS?: string | undefined };

/**
 * Marks integrations whose credentials are gone, cannot be decrypted, or are about to be removed. Puts ciphertext that
 * no row names into the outbox. It becomes due only when Time Travel can no longer bring its row back, because the
 * restore may be undone. Works in batches of at most 100, and every run returns all that it found, not only what is
 * new.
 *
 * @param onProgress called with the numbers of KV keys and data keys that have been checked
 * @throws DomainError `temporarily_unavailable`; what KV throws; Error, with nothing done, if the ring is malformed or
 *   one of its keys is not the one that is recorded under its id
 */
export async function reconcile(
  { DB, CREDENTIALS, CREDENTIALS_KEKS }: ReconcileBindings,
  onProgress: (looked: { kv_keys: number; data_keys: number }) => void = () => {},
): Promise<Reconciled> {
  const ring = CREDENTIALS_KEKS === undefined ? undefined : await parseKekRing(CREDENTIALS_KEKS);
  if (ring) await assertKnownKeks(DB, ring);
  const reconciled: Reconciled = { credentials_missing: [], sip_numbers_missing: [], orphans: [] };
  const looked = { kv_keys: 0, data_keys: 0 };
  const now = await databaseNow(DB);
  const due_at = now + RESTORABLE_SECONDS;

  for await (const kv_keys of listKeys(CREDENTIALS)) {
    const places = JSON.stringify(kv_keys.flatMap((kv_key) => partsOf(kv_key) ?? []));
    const [, orphans] = await batch(DB, [enqueueOrphans.bind({ places, due_at }), findOrphans.bind({ places, now })]);
    reconciled.orphans.push(...orphans.map(({ kv_key }) => kv_key));
    looked.kv_keys += kv_keys.length;
    onProgress(looked);
  }

  for await (const dataKeys of allDataKeys(DB)) {
    const [marked, unmarked] = [dataKeys.filter(isMarked), dataKeys.filter((row) => !isMarked(row))];
    const lost = await findLost(DB, CREDENTIALS, ring, unmarked);
    const numbers = lost.filter(({ table }) => table === 'phone_numbers');
    reconciled.sip_numbers_missing.push(...numbers.map(({ subject_id }) => subject_id));
    reconciled.credentials_missing.push(
      ...marked.map(({ subject_id }) => subject_id),
      ...(await mark(
        DB,
        lost.filter(({ table }) => table === 'integrations'),
      )),
    );
    looked.data_keys += dataKeys.length;
    onProgress(looked);
  }
  return reconciled;
}

const isMarked = ({ status }: HeldDataKey) => status === 'credentials_missing';

/** With a wrong key under a recorded id, all its credentials would seem to be lost. */
async function assertKnownKeks(database: D1Database, { checkValues }: KekRing): Promise<void> {
  const [known] = await batch(database, [listKeks.bind({})]);
  for (const { kek_id, check_value } of known) {
    if ((checkValues.get(kek_id) ?? check_value) !== check_value) {
      throw new Error(`CREDENTIALS_KEKS: ${kek_id} is not the key that has wrapped data keys under this name`);
    }
  }
}

async function* listKeys(namespace: KVNamespace): AsyncGenerator<string[], void> {
  let cursor: string | undefined;
  do {
    const page = await namespace.list({ limit: ROWS_PER_BATCH, ...(cursor !== undefined && { cursor }) });
    yield page.keys.map(({ name }) => name);
    cursor = page.list_complete ? undefined : page.cursor;
  } while (cursor !== undefined);
}

/**
 * The data keys whose ciphertext is gone, about to be removed, or cannot be decrypted. Each ciphertext is read by its
 * key, because KV's list may be out of date.
 */
async function findLost(
  database: D1Database,
  namespace: KVNamespace,
  ring: KekRing | undefined,
  dataKeys: HeldDataKey[],
): Promise<HeldDataKey[]> {
  const held = dataKeys.map((row) => ({
    row,
    kv_key: credentialsKey(row.organization_id, row.subject_id, row.credentials_version),
  }));
  const [owed] = await batch(database, [findOwed.bind({ kv_keys: JSON.stringify(held.map(({ kv_key }) => kv_key)) })]);
  const toBeRemoved = new Set(owed.map(({ kv_key }) => kv_key));
  const isLost = async ({ row, kv_key }: (typeof held)[number]) => {
    if (toBeRemoved.has(kv_key)) return true;
    const ciphertext = await namespace.get(kv_key, 'arrayBuffer');
    return ciphertext === null || (ring !== undefined && !(await opens(ring, kv_key, row, new Uint8Array(ciphertext))));
  };
  const lost = await pMap(held, isLost, { concurrency: MAX_CONNECTIONS });
  return dataKeys.filter((_, index) => lost[index]);
}

const hasRows = (result: unknown) => Array.isArray(result) && result.length > 0;

/** @returns the ids of those that were marked: they were not yet, and still have the version that was checked */
async function mark(database: D1Database, lost: StoredDataKey[]): Promise<string[]> {
  if (lost.length === 0) return [];
  const parameters = lost.map(({ organization_id, subject_id, credentials_version }) => ({
    ...eventParameters(commandCall(organization_id)),
    target_id: subject_id,
    credentials_version,
  }));
  const results: readonly unknown[] = await batch(database, [
    ...parameters.map((row) => recordMissing.bind(row)),
    ...parameters.map((row) => markMissing.bind(row)),
  ]);
  return parameters.filter((_, index) => hasRows(results[parameters.length + index])).map(({ target_id }) => target_id);
}
