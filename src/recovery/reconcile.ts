/** After a restore of D1: its rows and the ciphertext in KV, which no restore brings back, are made to agree. */
import { and, eq, not, sql } from 'drizzle-orm';
import pMap from 'p-map';
import { eventRecorder, eventSaw, operatorEventParameters } from '../audit/record.ts';
import type { RecordParameters } from '../audit/record.ts';
import { MAX_CONNECTIONS } from '../connections.ts';
import { dataKeysUnder, kekIdsInUse } from '../credentials/data-keys.ts';
import type { StoredDataKey } from '../credentials/data-keys.ts';
import { credentialsKey, inState, INTENT_DUE_SECONDS } from '../credentials/vault.ts';
import type { Bindings } from '../env.ts';
import { batch, existsIn, query } from '../query.ts';
import type { Placeholders } from '../query.ts';
import { credential_purges, integrations, phone_numbers } from '../schema.ts';
import { unixNow } from '../time.ts';
import { isIntegration, isPhoneNumber, placesOf } from './subject.ts';

const ROWS_PER_BATCH = 100;

interface OrphanParameters {
  /** JSON of what {@link placesOf} makes of KV keys. */
  places: string;
  due_at: number;
}

const part = (name: string) => sql<string>`(json_each.value ->> ${sql.raw(`'${name}'`)})`;
const place = { organization_id: part('organization_id'), target_id: part('subject_id') };

/**
 * What no row names goes to the outbox. What is there already stays due as it is: a create under way is named there by its
 * intent, and by its row from then on.
 */
const enqueueOrphans = query((db, { places, due_at }: Placeholders<OrphanParameters>) =>
  db
    .insert(credential_purges)
    .select(
      db
        .select({
          kv_key: part('kv_key').as('kv_key'),
          organization_id: part('organization_id').as('organization_id'),
          due_at: sql<number>`${due_at}`.as('due_at'),
          attempts: sql<number>`0`.as('attempts'),
          first_due_at: sql<number>`${due_at}`.as('first_due_at'),
          state: inState('owed'),
        })
        .from(sql`json_each(${places})`)
        .where(
          and(
            not(
              existsIn(
                db,
                integrations,
                and(isIntegration(place), eq(integrations.credentials_version, part('version'))),
              ),
            ),
            not(
              existsIn(
                db,
                phone_numbers,
                and(isPhoneNumber(place), eq(phone_numbers.credentials_version, part('version'))),
              ),
            ),
          ),
        ),
    )
    .onConflictDoNothing()
    .returning({ kv_key: credential_purges.kv_key }),
);

interface MissingParameters extends RecordParameters {
  target_id: string;
  credentials_version: string;
}

/** Of the version whose ciphertext is gone: new credentials may have come meanwhile. */
const recordMissing = eventRecorder<MissingParameters>(
  integrations,
  integrations.integration_id,
  'integration.credentials_missing',
  (_, parameters) =>
    and(
      isIntegration(parameters),
      eq(integrations.credentials_version, parameters.credentials_version),
      eq(integrations.status, 'active'),
    ),
);

const markMissing = query((db, parameters: Placeholders<MissingParameters>) =>
  db
    .update(integrations)
    .set({
      status: 'credentials_missing',
      updated_at: sql`${parameters.event_time}`,
      revision: sql`${integrations.revision} + 1`,
    })
    .where(and(isIntegration(parameters), eventSaw(db, parameters, integrations.revision)))
    .returning({ integration_id: integrations.integration_id }),
);

export interface Reconciled {
  /** Integrations that are `credentials_missing` from now on. */
  credentials_missing: string[];
  /** SIP numbers whose ciphertext is gone. They have no status for it: to be deleted and imported anew. */
  sip_numbers_missing: string[];
  /** KV keys that neither a row nor the outbox named, and the outbox does now. */
  orphans: string[];
}

/**
 * Marks the integrations whose ciphertext is gone, and puts ciphertext that nothing names into the outbox: due as late as an
 * intent is, which leaves a put under way the time it has. In batches of at most 100; a second run does nothing more.
 *
 * @param onProgress told how many KV keys and data keys have been looked at
 * @throws DomainError `temporarily_unavailable`; what KV throws
 */
export async function reconcile(
  { DB, CREDENTIALS }: Pick<Bindings, 'DB' | 'CREDENTIALS'>,
  onProgress: (looked: { kv_keys: number; data_keys: number }) => void = () => {},
): Promise<Reconciled> {
  const reconciled: Reconciled = { credentials_missing: [], sip_numbers_missing: [], orphans: [] };
  const looked = { kv_keys: 0, data_keys: 0 };
  /** All names, some 70 bytes each: an operator's machine has the room, and D1 and KV list in different orders. */
  const listed = new Set<string>();

  for await (const kv_keys of listKeys(CREDENTIALS)) {
    for (const kv_key of kv_keys) listed.add(kv_key);
    const places = JSON.stringify(kv_keys.flatMap(placesOf));
    const [orphans] = await batch(DB, [enqueueOrphans.bind({ places, due_at: unixNow() + INTENT_DUE_SECONDS })]);
    reconciled.orphans.push(...orphans.map(({ kv_key }) => kv_key));
    looked.kv_keys += kv_keys.length;
    onProgress(looked);
  }

  for await (const dataKeys of dataKeysUnder(DB, await kekIdsInUse(DB))) {
    const gone = await withoutCiphertext(CREDENTIALS, dataKeys, listed);
    const numbers = gone.filter(({ table }) => table === 'phone_numbers');
    reconciled.sip_numbers_missing.push(...numbers.map(({ subject_id }) => subject_id));
    reconciled.credentials_missing.push(
      ...(await mark(
        DB,
        gone.filter(({ table }) => table === 'integrations'),
      )),
    );
    looked.data_keys += dataKeys.length;
    onProgress(looked);
  }
  return reconciled;
}

async function* listKeys(namespace: KVNamespace): AsyncGenerator<string[], void> {
  let cursor: string | undefined;
  do {
    const page = await namespace.list({ limit: ROWS_PER_BATCH, ...(cursor !== undefined && { cursor }) });
    yield page.keys.map(({ name }) => name);
    cursor = page.list_complete ? undefined : page.cursor;
  } while (cursor !== undefined);
}

/** A list may be older than a row's ciphertext: what it lacks is asked for by name. */
async function withoutCiphertext(
  namespace: KVNamespace,
  dataKeys: StoredDataKey[],
  listed: ReadonlySet<string>,
): Promise<StoredDataKey[]> {
  const unlisted = dataKeys
    .map((row) => ({ row, kv_key: credentialsKey(row.organization_id, row.subject_id, row.credentials_version) }))
    .filter(({ kv_key }) => !listed.has(kv_key));
  const isGone = async ({ kv_key }: { kv_key: string }) => (await namespace.get(kv_key, 'arrayBuffer')) === null;
  const gone = await pMap(unlisted, isGone, { concurrency: MAX_CONNECTIONS });
  return unlisted.filter((_, index) => gone[index]).map(({ row }) => row);
}

const isMarked = (result: unknown) => Array.isArray(result) && result.length > 0;

/** @returns the ids of those that were not marked already */
async function mark(database: D1Database, gone: StoredDataKey[]): Promise<string[]> {
  if (gone.length === 0) return [];
  const parameters = gone.map(({ organization_id, subject_id, credentials_version }) => ({
    ...operatorEventParameters(organization_id),
    target_id: subject_id,
    credentials_version,
  }));
  const results: readonly unknown[] = await batch(database, [
    ...parameters.map((row) => recordMissing.bind(row)),
    ...parameters.map((row) => markMissing.bind(row)),
  ]);
  return parameters
    .filter((_, index) => isMarked(results[parameters.length + index]))
    .map(({ target_id }) => target_id);
}
