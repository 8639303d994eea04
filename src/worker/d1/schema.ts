/**
 * Every table, key, index and check. One file, because foreign keys cross features.
 *
 * Columns bear the wire's names (contract.md); only `client_id` is `organization_id` here. Times are whole unix seconds.
 * Every table is STRICT, and WITHOUT ROWID because every key is TEXT and a rowid would be a second b-tree to write.
 * Neither is in Drizzle's vocabulary: the generated migration is edited to say them, and `test/d1/schema.test.ts` holds
 * the applied database to it.
 */
import { and, isNotNull, isNull, sql } from 'drizzle-orm';
import { check, foreignKey, index, integer, primaryKey, sqliteTable, text } from 'drizzle-orm/sqlite-core';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
import {
  integrationStatuses,
  keyStatuses,
  mediaEncryptions,
  organizationStatuses,
  phoneNumberStatuses,
  purgeStates,
  roles,
  tiers,
  actorTypes,
  auditActions,
} from '../core/vocabulary.ts';
import type { Category, Provider } from '../core/vocabulary.ts';

const oneOf = (column: SQLiteColumn, values: readonly string[]) =>
  sql`${column} IN (${sql.raw(values.map((value) => `'${value}'`).join(', '))})`;

/**
 * Counts rows of another table. Triggers of the database keep it (migrations/0004_counters.sql), so it is exact whoever
 * writes; no statement of the Worker sets it.
 */
const counter = () => integer().notNull().default(0);

/**
 * Counts a row's updates. An update applies to the revision that its audit event saw and to no other, so that a late try of
 * its batch cannot bring old values back.
 */
const revision = () => integer().notNull().default(1);

export const organizations = sqliteTable(
  'organizations',
  {
    organization_id: text().primaryKey(),
    tier: text({ enum: tiers }).notNull(),
    created_at: integer().notNull(),
    status: text({ enum: organizationStatuses }).notNull().default('active'),
    integration_count: counter(),
    /** SIP numbers too. */
    phone_number_count: counter(),
    sip_number_count: counter(),
    /** Of keys that have not ended. */
    api_key_count: counter(),
    /** Of events of something done: refusals have a count of their own. */
    audit_event_count: counter(),
    refusal_count: counter(),
    /** Null where the tier's default holds (organizations/quotas.ts); so are the others. */
    max_integrations: integer(),
    max_phone_numbers: integer(),
    max_sip_numbers: integer(),
    max_api_keys: integer(),
    max_audit_events: integer(),
    /** Of the newest audit event: what the next one's follows. It never goes back, whatever events are forgotten. */
    last_sequence: integer().notNull().default(0),
    /** The `created_at` of the newest audit event: no later one has an earlier time. */
    last_event_at: integer().notNull().default(0),
    /** Of changes of tier and status: a command acts on the organization as it was seen, and on no other. */
    change_count: integer().notNull().default(0),
  },
  (table) => [
    check(
      'organizations_organization_id',
      sql`${table.organization_id} GLOB 'org_*' AND substr(${table.organization_id}, 5) NOT GLOB '*[^A-Za-z0-9_-]*' AND length(${table.organization_id}) BETWEEN 5 AND 44`,
    ),
    check('organizations_tier', oneOf(table.tier, tiers)),
    check('organizations_status', oneOf(table.status, organizationStatuses)),
  ],
);

export const api_keys = sqliteTable(
  'api_keys',
  {
    key_id: text().primaryKey(),
    organization_id: text()
      .notNull()
      .references(() => organizations.organization_id, { onDelete: 'restrict' }),
    user_id: text().notNull(),
    name: text().notNull(),
    role: text({ enum: roles }).notNull(),
    /** Lower-case hex SHA-256 of the raw key; the raw key is stored nowhere. */
    key_hash: text().notNull().unique(),
    prefix: text().notNull(),
    status: text({ enum: keyStatuses }).notNull(),
    created_at: integer().notNull(),
    last_used_at: integer(),
    expires_at: integer(),
    /** The key that made it; null for an operator's, and for one of before this was recorded. */
    created_by: text(),
    /** When it was revoked, or was seen to have expired; null while it lives. */
    ended_at: integer(),
  },
  (table) => [
    index('api_keys_by_created_at').on(table.organization_id, table.created_at, table.key_id),
    // Finds the keys that a key made, the cron's expired ones, and those that ended long ago.
    index('api_keys_by_created_by').on(table.organization_id, table.created_by).where(isNotNull(table.created_by)),
    index('api_keys_by_expires_at')
      .on(table.expires_at)
      .where(sql`${and(isNotNull(table.expires_at), isNull(table.ended_at))}`),
    index('api_keys_by_ended_at').on(table.ended_at).where(isNotNull(table.ended_at)),
    check('api_keys_role', oneOf(table.role, roles)),
    check('api_keys_status', oneOf(table.status, keyStatuses)),
  ],
);

/**
 * The row holds the wrapped data key: deleting the row makes its ciphertext unreadable at commit.
 * The primary key leads with the organization, so another tenant's id costs what a missing one costs.
 */
export const integrations = sqliteTable(
  'integrations',
  {
    organization_id: text()
      .notNull()
      .references(() => organizations.organization_id, { onDelete: 'restrict' }),
    integration_id: text().notNull(),
    name: text().notNull(),
    provider: text().$type<Provider>().notNull(),
    category: text().$type<Category>().notNull(),
    status: text({ enum: integrationStatuses }).notNull(),
    credentials_version: text().notNull(),
    /** Base64 of the data key wrapped by the key-encryption key `kek_id` (credentials/envelope.ts). */
    data_key: text().notNull(),
    kek_id: text().notNull(),
    created_at: integer().notNull(),
    updated_at: integer().notNull(),
    revision: revision(),
    phone_number_count: counter(),
  },
  (table) => [
    primaryKey({ columns: [table.organization_id, table.integration_id] }),
    // One for each set of filters that a list may have, so that no page reads rows it does not show. (The category follows
    // from the provider, and there is one.)
    index('integrations_by_created_at').on(table.organization_id, table.created_at, table.integration_id),
    index('integrations_by_provider').on(table.organization_id, table.provider, table.created_at, table.integration_id),
    index('integrations_by_status').on(table.organization_id, table.status, table.created_at, table.integration_id),
    index('integrations_by_provider_status').on(
      table.organization_id,
      table.provider,
      table.status,
      table.created_at,
      table.integration_id,
    ),
    // Finds the data keys that are to be wrapped anew.
    index('integrations_by_kek').on(table.kek_id),
    check('integrations_status', oneOf(table.status, integrationStatuses)),
  ],
);

export const phone_numbers = sqliteTable(
  'phone_numbers',
  {
    phone_number_id: text().primaryKey(),
    organization_id: text()
      .notNull()
      .references(() => organizations.organization_id, { onDelete: 'restrict' }),
    /** Null for `sip` alone: such a number is reached through its own trunk. */
    integration_id: text(),
    /** E.164; unique in the whole system. */
    phone_number: text().notNull().unique(),
    provider: text().$type<Provider | 'sip'>().notNull(),
    status: text({ enum: phoneNumberStatuses }).notNull(),
    assigned_agent_id: text(),
    supports_inbound: integer({ mode: 'boolean' }).notNull(),
    supports_outbound: integer({ mode: 'boolean' }).notNull(),
    sip_trunk_name: text(),
    sip_username: text(),
    sip_server_address: text(),
    inbound_room_name: text(),
    media_encryption: text({ enum: mediaEncryptions }),
    /** `sip_password` and `inbound_pin` are credentials, kept as an integration's are; null where there is neither. */
    credentials_version: text(),
    data_key: text(),
    kek_id: text(),
    created_at: integer().notNull(),
    updated_at: integer().notNull(),
    revision: revision(),
  },
  (table) => [
    foreignKey({
      columns: [table.organization_id, table.integration_id],
      foreignColumns: [integrations.organization_id, integrations.integration_id],
    }).onDelete('restrict'),
    // Covers the references' listing, their NOT EXISTS and the foreign key's own check.
    index('phone_numbers_by_integration').on(
      table.integration_id,
      table.organization_id,
      table.phone_number,
      table.phone_number_id,
    ),
    // With the one above, one for each set of filters that a list may have.
    index('phone_numbers_by_phone_number').on(table.organization_id, table.phone_number),
    index('phone_numbers_by_status').on(table.organization_id, table.status, table.phone_number),
    index('phone_numbers_by_integration_status').on(
      table.integration_id,
      table.organization_id,
      table.status,
      table.phone_number,
    ),
    index('phone_numbers_by_kek').on(table.kek_id).where(isNotNull(table.kek_id)),
    check(
      'phone_numbers_phone_number',
      sql`${table.phone_number} GLOB '+[1-9]*' AND substr(${table.phone_number}, 2) NOT GLOB '*[^0-9]*' AND length(${table.phone_number}) BETWEEN 8 AND 16`,
    ),
    check('phone_numbers_integration_id', sql`(${table.integration_id} IS NULL) = (${table.provider} = 'sip')`),
    check('phone_numbers_status', sql`${table.status} = iif(${table.assigned_agent_id} IS NULL, 'free', 'assigned')`),
    check('phone_numbers_supports', sql`${table.supports_inbound} IN (0, 1) AND ${table.supports_outbound} IN (0, 1)`),
    check('phone_numbers_media_encryption', oneOf(table.media_encryption, mediaEncryptions)),
    check(
      'phone_numbers_credentials',
      sql`(${table.credentials_version} IS NULL) = (${table.data_key} IS NULL) AND (${table.data_key} IS NULL) = (${table.kek_id} IS NULL)`,
    ),
  ],
);

/**
 * Append-only; survives its subject, so it references nothing. An event is also the decision of the mutation that
 * wrote it: its id is minted before the first try, and a retry finds it (audit/record.ts).
 */
export const audit_events = sqliteTable(
  'audit_events',
  {
    organization_id: text().notNull(),
    event_id: text().notNull(),
    action: text({ enum: auditActions }).notNull(),
    target_id: text().notNull(),
    /** Null for an actor that is no API key. */
    actor_key_id: text(),
    request_id: text().notNull(),
    /** JSON of the target, without any secret: as it stood before a deletion, or as it was created. */
    state: text().notNull(),
    /** Of the commit, by D1's clock; never before the organization's event before (audit/record.ts). */
    created_at: integer().notNull(),
    /** The event's place in the order in which D1 committed the organization's events. */
    sequence: integer().notNull().default(0),
    /** Null of an event from before this was recorded: its actor is the API key, or an operator where there is none. */
    actor_type: text({ enum: actorTypes }),
    actor_id: text(),
    /** As it was then: a key that has ended is deleted later. */
    actor_name: text(),
    /** Of an update: JSON of the columns that it set, with their new values, without any secret. */
    changes: text(),
  },
  (table) => [
    primaryKey({ columns: [table.organization_id, table.event_id] }),
    // The order of the list, the export and the retention. Times rise with the sequence, so this is the sequence's own
    // order, and `since` and `until` are places in it.
    index('audit_events_by_created_at').on(table.organization_id, table.created_at, table.sequence),
    // One for each filter that the list takes, which takes one of them: an index for two is one more row written for each
    // event, and without it a page of two reads all that pass one. A replay and a rotation ask by target too.
    index('audit_events_by_action').on(table.organization_id, table.action, table.created_at, table.sequence),
    index('audit_events_by_target').on(table.organization_id, table.target_id, table.created_at, table.sequence),
    index('audit_events_by_actor').on(table.organization_id, table.actor_key_id, table.created_at, table.sequence),
    // The form alone: a new verb must not need a rebuild of the largest table.
    check('audit_events_action', sql`${table.action} GLOB '[a-z]*.[a-z]*'`),
  ],
);

/**
 * The outbox: KV keys of ciphertext that no live row names, or that a create under way has not yet made live.
 * `attempts` is 0 until a drain claims the row or a refusal spends it, and with that it is owed; `due_at` is when it may be
 * claimed (again).
 */
export const credential_purges = sqliteTable(
  'credential_purges',
  {
    kv_key: text().primaryKey(),
    organization_id: text().notNull(),
    due_at: integer().notNull(),
    attempts: integer().notNull(),
    /** What `due_at` was before any attempt: a purge is late by the time since. */
    first_due_at: integer().notNull().default(0),
    state: text({ enum: purgeStates }).notNull().default('owed'),
    /** Of an intent: the key-encryption key that wraps the data key of what it may make live. */
    kek_id: text(),
  },
  (table) => [
    // For a drain that is fair: each organization's own, those that are due first.
    index('credential_purges_by_organization').on(table.organization_id, table.due_at),
    check('credential_purges_state', oneOf(table.state, purgeStates)),
  ],
);

/**
 * What a key-encryption key is known by beside its id, which an operator chooses: written when it first wraps a data key.
 */
export const key_encryption_keys = sqliteTable('key_encryption_keys', {
  kek_id: text().primaryKey(),
  /** Base64 of a hash of the key's bytes (credentials/envelope.ts), which tells them from others and nothing else. */
  check_value: text().notNull(),
  /** When it was first current where data keys are wrapped. */
  created_at: integer().notNull(),
  /** When it was taken out of the ring for good: nothing is wrapped under it any more. */
  retired_at: integer(),
  /** JSON of the data key (credentials/data-keys.ts) behind which the next run of the re-wrap goes on. */
  rewrap_place: text(),
});

/**
 * A mutation with an Idempotency-Key that acted, for 24 hours: written by the batch that decides it; every repeat of the
 * request is answered from its event (idempotency.ts).
 */
export const idempotency_keys = sqliteTable(
  'idempotency_keys',
  {
    organization_id: text().notNull(),
    actor_key_id: text().notNull(),
    idempotency_key: text().notNull(),
    method: text().notNull(),
    path: text().notNull(),
    /** The audit event of what was done. */
    event_id: text().notNull(),
    /** Of the first request's body and query string, by which another one is told. */
    fingerprint: text().notNull(),
    created_at: integer().notNull(),
  },
  (table) => [
    primaryKey({
      columns: [table.organization_id, table.actor_key_id, table.idempotency_key, table.method, table.path],
    }),
    index('idempotency_keys_by_created_at').on(table.created_at),
  ],
);
