/** Organizations and their rows, written past the API: no call of it would be quick enough. */
import { createKeyByCommand } from '../../src/operator/api-keys/create.ts';
import { displayedPrefix, hashKey, newRawKey } from '../../src/worker/callers/raw-key.ts';
import { seal } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { credentialsKey } from '../../src/worker/credentials/kv-key.ts';
import type { Bindings } from '../../src/worker/env.ts';

export interface Client {
  organization_id: string;
  /** Of every request. */
  headers: Record<string, string>;
}

const headersOf = (organization_id: string, raw_key: string) => ({
  'X-API-Key': raw_key,
  'X-Organization-Id': organization_id,
  'CF-Connecting-IP': '192.0.2.1',
});

/** An organization of the highest tier, and an admin's key. */
export async function newClient(database: D1Database, organization_id = 'org_bench'): Promise<Client> {
  const { raw_key } = await createKeyByCommand(database, {
    organization_id,
    role: 'admin',
    tier: 'enterprise',
    name: 'Benchmark',
    expires_at: null,
  });
  return { organization_id, headers: headersOf(organization_id, raw_key) };
}

const KEYS_PER_STATEMENT = 500;

/** Further keys of a client's organization. */
export async function addKeys(
  database: D1Database,
  { organization_id }: Client,
  count: number,
): Promise<Client['headers'][]> {
  const raw_keys = Array.from({ length: count }, newRawKey);
  for (let first = 0; first < count; first += KEYS_PER_STATEMENT) {
    const hashed = raw_keys.slice(first, first + KEYS_PER_STATEMENT).map(async (raw_key, index) => ({
      key_id: `apikey_${hex(first + index)}`,
      key_hash: await hashKey(raw_key),
      prefix: displayedPrefix(raw_key),
    }));
    const keys = await Promise.all(hashed);
    await database
      .prepare(
        `INSERT INTO api_keys (key_id, organization_id, user_id, name, role, key_hash, prefix, status, created_at)
         SELECT value ->> 'key_id', ?1, 'user_bench', 'Benchmark', 'admin', value ->> 'key_hash', value ->> 'prefix',
           'active', 0 FROM json_each(?2)`,
      )
      .bind(organization_id, JSON.stringify(keys))
      .run();
  }
  return raw_keys.map((raw_key) => headersOf(organization_id, raw_key));
}

const hex = (index: number) => index.toString(16).padStart(12, '0');

export const integrationId = (index: number) => `intg_${hex(index)}`;
export const phoneNumberId = (index: number) => `phon_${hex(index)}`;

/** Integrations {@link integrationId} 0, 1, …, each created an hour after the one before. */
export async function addIntegrations(database: D1Database, { organization_id }: Client, count: number): Promise<void> {
  await database
    .prepare(
      `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < CAST(?2 AS INTEGER))
       INSERT INTO integrations (organization_id, integration_id, name, provider, category, status, credentials_version,
         data_key, kek_id, created_at, updated_at)
       SELECT ?1, 'intg_' || printf('%012x', i), 'Twilio Production', 'twilio', 'telephony', 'active', 'v' || i, 'key', 'k1',
         1700000000 + 3600 * i, 1700000000 + 3600 * i FROM n`,
    )
    .bind(organization_id, count)
    .run();
}

/** Gives an integration credentials that open. */
export async function addCredentials(
  { DB, CREDENTIALS, CREDENTIALS_KEKS }: Pick<Bindings, 'DB' | 'CREDENTIALS' | 'CREDENTIALS_KEKS'>,
  { organization_id }: Client,
  integration_id: string,
): Promise<void> {
  const kv_key = credentialsKey(organization_id, integration_id, 'v');
  const credentials = { provider: 'twilio', account_sid: 'AC0123456789abcdef', auth_token: 'a-bench-token' };
  const { ciphertext, data_key, kek_id } = await seal(await parseKekRing(CREDENTIALS_KEKS), kv_key, credentials);
  await CREDENTIALS.put(kv_key, ciphertext);
  await DB.prepare(
    `UPDATE integrations SET credentials_version = 'v', data_key = ?, kek_id = ? WHERE organization_id = ? AND integration_id = ?`,
  )
    .bind(data_key, kek_id, organization_id, integration_id)
    .run();
}

const NUMBERS_PER_STATEMENT = 50_000;

/** Phone numbers {@link phoneNumberId} `first`, `first` + 1, …, of one integration; no two calls may share one. */
export async function addNumbers(
  database: D1Database,
  { organization_id }: Client,
  { integration_id, first, count }: { integration_id: string; first: number; count: number },
): Promise<void> {
  for (let done = 0; done < count; done += NUMBERS_PER_STATEMENT) {
    await database
      .prepare(
        `WITH RECURSIVE n(i) AS (SELECT CAST(?3 AS INTEGER) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?3 + ?4)
         INSERT INTO phone_numbers (phone_number_id, organization_id, integration_id, phone_number, provider, status,
           supports_inbound, supports_outbound, created_at, updated_at)
         SELECT 'phon_' || printf('%012x', i), ?1, ?2, '+1' || printf('%010d', i), 'twilio', 'free', 0, 0, 0, 0 FROM n`,
      )
      .bind(organization_id, integration_id, first + done, Math.min(NUMBERS_PER_STATEMENT, count - done))
      .run();
  }
}

/** How many rows of a table hold a condition. */
async function countRows(database: D1Database, table: string, condition = 'true'): Promise<number> {
  return (await database.prepare(`SELECT count(*) AS count FROM ${table} WHERE ${condition}`).first('count')) ?? 0;
}

/**
 * That the deletes of a suite did what their answers said.
 *
 * @throws Error where the database has not one event for each, or has other integrations left than it should
 */
export async function assertDeleted(database: D1Database, deletes: number, left = 0): Promise<void> {
  const events = await countRows(database, 'audit_events', `action = 'integration.deleted'`);
  const integrations = await countRows(database, 'integrations');
  if (events !== deletes || integrations !== left) {
    throw new Error(
      `${deletes} deletes are answered, ${events} have an event, and ${integrations} integrations are left instead of ${left}`,
    );
  }
}
