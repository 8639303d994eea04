/**
 * Every table and column, in one file because foreign keys cross features. What only the migrations need (indexes, checks and
 * keys of several columns) is in src/dev/migrated-schema.ts, and not in the Worker's bundle.
 *
 * Columns have the names of docs/contract.md, except that `client_id` is `organization_id` here. Times are whole unix
 * seconds. Every table is STRICT. It is also WITHOUT ROWID, because every key is TEXT and a rowid would be a second
 * b-tree to write. Drizzle cannot express either, so they are added to the generated migration by hand, and
 * `test/d1/schema.test.ts` checks the migrated database.
 */
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core';
import {
  integrationStatuses,
  keyStatuses,
  eventReasons,
  mediaEncryptions,
  storedOrganizationStatuses,
  ownerships,
  phoneNumberStatuses,
  purgeStates,
  roles,
  sipTransports,
  tiers,
  actorTypes,
  auditActions,
  deliveryStatuses,
  verdicts,
  verificationStatuses,
} from '../core/vocabulary.ts';
import type { Category, Provider } from '../core/vocabulary.ts';

/**
 * Counts rows of another table. Triggers keep it exact (migrations/0004_counters.sql), whoever writes. No statement of
 * the Worker sets it.
 */
const counter = () => integer().notNull().default(0);

/** 0 or 1. */
const flag = () => integer().notNull();

/**
 * Counts a row's updates. An update applies only to the revision that its audit event saw, so that a late try of its
 * batch cannot bring old values back.
 */
const revision = () => integer().notNull().default(1);

export const organizationsColumns = {
  organization_id: text().primaryKey(),
  tier: text({ enum: tiers }).notNull(),
  created_at: integer().notNull(),
  status: text({ enum: storedOrganizationStatuses }).notNull().default('active'),
  integration_count: counter(),
  /** Includes SIP numbers. */
  phone_number_count: counter(),
  /** Keys that have not ended. */
  api_key_count: counter(),
  /** Events of what was done. Refusals and reads of credentials are counted apart. */
  audit_event_count: counter(),
  refusal_count: counter(),
  /** Quotas that an operator has set. Null: the default of the tier (organizations/quotas.ts). */
  max_integrations: integer(),
  max_phone_numbers: integer(),
  max_api_keys: integer(),
  max_audit_events: integer(),
  /** The sequence of the newest audit event. It never goes down, even when events are deleted. */
  last_sequence: integer().notNull().default(0),
  /** The `created_at` of the newest audit event. The next event's is never before it. */
  last_event_at: integer().notNull().default(0),
  /** Counts changes of name, tier, metadata and status, so that a change applies only to what was seen. */
  change_count: integer().notNull().default(0),
  /** Random hex. It keeps the account fingerprints of two organizations from being compared. A trigger makes it. */
  account_salt: text(),
  /** How many of its credentials were refused since `refused_checks_since` (integrations/refusals.ts). */
  refused_check_count: integer().notNull().default(0),
  refused_checks_since: integer().notNull().default(0),
  /** None of its credentials is checked until then. */
  checks_stopped_until: integer().notNull().default(0),
  /** Events `credentials.read`. */
  read_count: counter(),
  /** SIP numbers among them. */
  unconfirmed_number_count: counter(),
  max_unconfirmed_numbers: integer(),
  /** Null for an organization that a command created. */
  name: text(),
  /** The name as the list by names compares it (core/folded-name.ts). */
  name_folded: text(),
  /** JSON object of strings, for the operator alone. */
  metadata: text().notNull().default('{}'),
  /** The event of its creation, by which the batch that created it knows it. Null: a command did. */
  created_event_id: text(),
  /** It is offboarded, and the cron has yet to delete some of what it has. */
  is_offboarding: flag().default(0),
};

export const organizations = sqliteTable('organizations', organizationsColumns);

export const apiKeysColumns = {
  key_id: text().primaryKey(),
  organization_id: text()
    .notNull()
    .references(() => organizations.organization_id, { onDelete: 'restrict' }),
  user_id: text().notNull(),
  name: text().notNull(),
  role: text({ enum: roles }).notNull(),
  /** Lower-case hex SHA-256 of the raw key, which is not stored. */
  key_hash: text().notNull().unique(),
  prefix: text().notNull(),
  status: text({ enum: keyStatuses }).notNull(),
  created_at: integer().notNull(),
  last_used_at: integer(),
  expires_at: integer(),
  /** The key that created it. Null: an operator did, or it is older than this column. */
  created_by: text(),
  /** When it was revoked or expired. Null while it is alive, and until the cron has noticed that it expired. */
  ended_at: integer(),
  revision: revision(),
};

export const api_keys = sqliteTable('api_keys', apiKeysColumns);

/**
 * The row holds the wrapped data key, so deleting the row makes its ciphertext unreadable at once. The primary key
 * begins with the organization, so that looking up another organization's id costs the same as looking up one that does
 * not exist.
 */
export const integrationsColumns = {
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
  /** Some characters of the account's identifier at the provider. Null: it has none, or the row is older. */
  account_hint: text(),
  /** Base64 HMAC-SHA-256 of that identifier under the organization's `account_salt`. Null as the hint is. */
  account_fingerprint: text(),
  verification_status: text({ enum: verificationStatuses }).notNull().default('unverified'),
  verification_checked_at: integer(),
  verification_provider_status: integer(),
  verification_provider_code: text(),
  /** Null: the provider has not accepted or refused these credentials yet. */
  last_verdict: text({ enum: verdicts }),
  /** Counts the outcomes that were written. An outcome is written only if none was since its check began. */
  check_count: integer().notNull().default(0),
  /** From when `REVERIFY_HOURS` count until the next check. */
  recheck_from: integer().notNull().default(0),
  /** A run of the cron has it among those that it checks until then. */
  checking_until: integer(),
  /** The name as the list by names compares it (core/folded-name.ts). Null: the cron has yet to fold it. */
  name_folded: text(),
};

export const integrations = sqliteTable('integrations', integrationsColumns);

export const phoneNumbersColumns = {
  phone_number_id: text().primaryKey(),
  organization_id: text()
    .notNull()
    .references(() => organizations.organization_id, { onDelete: 'restrict' }),
  /** Null for a SIP number only, which is reached through its own trunk. */
  integration_id: text(),
  /** E.164; unique in the whole system. */
  phone_number: text().notNull().unique(),
  provider: text().$type<Provider | 'sip'>().notNull(),
  status: text({ enum: phoneNumberStatuses }).notNull(),
  assigned_agent_id: text(),
  supports_inbound: flag(),
  supports_outbound: flag(),
  sip_trunk_name: text(),
  sip_username: text(),
  sip_server_address: text(),
  inbound_room_name: text(),
  media_encryption: text({ enum: mediaEncryptions }),
  /**
   * `sip_password` and `inbound_pin` are credentials, stored like an integration's. Null if the number has neither.
   */
  credentials_version: text(),
  data_key: text(),
  kek_id: text(),
  created_at: integer().notNull(),
  updated_at: integer().notNull(),
  revision: revision(),
  /** Null for a number that is not a SIP number. */
  sip_transport: text({ enum: sipTransports }),
  ownership: text({ enum: ownerships }).notNull().default('unconfirmed'),
  /** When the cron asks the account about the number (phone-numbers/ownership.ts). Null: it does not. */
  ownership_due_at: integer().default(1),
};

export const phone_numbers = sqliteTable('phone_numbers', phoneNumbersColumns);

/**
 * Append-only. Events outlive what they are about, so there is no foreign key. An event is also the decision of the
 * call that wrote it (decision/event.ts).
 */
export const auditEventsColumns = {
  organization_id: text().notNull(),
  event_id: text().notNull(),
  action: text({ enum: auditActions }).notNull(),
  target_id: text().notNull(),
  /** Null if the actor is not an API key. */
  actor_key_id: text(),
  request_id: text().notNull(),
  /** JSON of the target, without secrets: as it was just before, or as it was created. */
  state: text().notNull(),
  /** When it was committed, by D1's clock; never before the organization's previous event (decision/event.ts). */
  created_at: integer().notNull(),
  /** The event's place in the order of the organization's commits. */
  sequence: integer().notNull().default(0),
  /** Null for an event older than this column. Its actor is the API key, or an operator if `actor_key_id` is null. */
  actor_type: text({ enum: actorTypes }),
  actor_id: text(),
  /** The name at that time. The key itself is deleted some time after it ends. */
  actor_name: text(),
  /**
   * For an update: JSON of the columns that it set, with their new values, without secrets. Null for other events.
   */
  changes: text(),
  /** Null for what the organization or an operator asked for. */
  reason: text({ enum: eventReasons }),
};

export const audit_events = sqliteTable('audit_events', auditEventsColumns);

/**
 * The outbox: KV keys of ciphertext that no row names, or does not name yet (credentials/outbox.ts). `due_at` is when
 * the drain may claim the row. `attempts` counts the claims, and the times that an intent was spent.
 */
export const credentialPurgesColumns = {
  kv_key: text().primaryKey(),
  organization_id: text().notNull(),
  due_at: integer().notNull(),
  attempts: integer().notNull(),
  /** What `due_at` was before the first attempt. It shows how late the removal is. */
  first_due_at: integer().notNull().default(0),
  state: text({ enum: purgeStates }).notNull().default('owed'),
  /** For an intent: the key-encryption key that wraps the data key of its ciphertext. */
  kek_id: text(),
};

export const credential_purges = sqliteTable('credential_purges', credentialPurgesColumns);

/**
 * The key-encryption keys that have wrapped a data key. An operator chooses the id, so the check value tells whether a
 * key in the ring is the one that has been used under that id (credentials/kek-check.ts).
 */
export const keyEncryptionKeysColumns = {
  kek_id: text().primaryKey(),
  /** Base64 of a hash of the key's bytes (credentials/kek-ring.ts). It identifies the key and reveals nothing else. */
  check_value: text().notNull(),
  /** When it first wrapped a data key. */
  created_at: integer().notNull(),
  /** When it was retired for good. From then on nothing is wrapped under it. */
  retired_at: integer(),
  /** JSON of a place among the data keys (credentials/data-keys.ts). The next run of the re-wrap begins after it. */
  rewrap_place: text(),
};

export const key_encryption_keys = sqliteTable('key_encryption_keys', keyEncryptionKeysColumns);

/**
 * Mutations that acted under an Idempotency-Key, kept for 24 hours. The row is written by the batch that decides, and a
 * repeat of the request is answered from its event (decision/remembered-answers.ts).
 */
export const idempotencyKeysColumns = {
  organization_id: text().notNull(),
  actor_key_id: text().notNull(),
  idempotency_key: text().notNull(),
  method: text().notNull(),
  path: text().notNull(),
  /** The audit event that decided. */
  event_id: text().notNull(),
  /** Identifies the body and the query string of the first request, so that another request can be refused. */
  fingerprint: text().notNull(),
  created_at: integer().notNull(),
};

export const idempotency_keys = sqliteTable('idempotency_keys', idempotencyKeysColumns);

/** The keys of operators, who provision organizations. They are of no organization. */
export const operatorKeysColumns = {
  operator_key_id: text().primaryKey(),
  name: text().notNull(),
  /** Lower-case hex SHA-256 of the raw key, which is not stored. */
  key_hash: text().notNull().unique(),
  prefix: text().notNull(),
  /** JSON array of names (core/permissions.ts). */
  permissions: text().notNull(),
  status: text({ enum: keyStatuses }).notNull(),
  created_at: integer().notNull(),
  expires_at: integer().notNull(),
  last_used_at: integer(),
};

export const operator_keys = sqliteTable('operator_keys', operatorKeysColumns);

/**
 * As {@link idempotency_keys}, for what operators did. It is a table of its own, because an operator's Idempotency-Key counts
 * for all organizations: a repeat need not know which one the first request made.
 */
export const operatorIdempotencyKeysColumns = {
  operator_key_id: text().notNull(),
  idempotency_key: text().notNull(),
  method: text().notNull(),
  path: text().notNull(),
  /** With `event_id`: the audit event that decided. */
  organization_id: text().notNull(),
  event_id: text().notNull(),
  fingerprint: text().notNull(),
  created_at: integer().notNull(),
};

export const operator_idempotency_keys = sqliteTable('operator_idempotency_keys', operatorIdempotencyKeysColumns);

/** One row, by which a replica shows how old it is (d1/heartbeat.ts). */
export const heartbeatsColumns = {
  source: text().primaryKey(),
  /** By the primary's clock. */
  beat_at: integer().notNull(),
};

export const heartbeats = sqliteTable('heartbeats', heartbeatsColumns);

/**
 * Where an organization's events are sent. The endpoint is a cursor over its audit events: those up to `cursor_at` and
 * `cursor_sequence` have been sent, or have a row of their own in {@link webhook_deliveries}.
 */
export const webhookEndpointsColumns = {
  organization_id: text()
    .notNull()
    .references(() => organizations.organization_id, { onDelete: 'restrict' }),
  endpoint_id: text().notNull(),
  url: text().notNull(),
  description: text(),
  /** JSON array of patterns (core/vocabulary.ts). */
  events: text().notNull(),
  enabled: flag(),
  created_at: integer().notNull(),
  updated_at: integer().notNull(),
  revision: revision(),
  /** When it first answered a test with 2xx. Until then it gets nothing else. */
  verified_at: integer(),
  /** What came of the last test. Null: there was none. */
  tested_at: integer(),
  test_response_status: integer(),
  test_duration_ms: integer(),
  test_error: text(),
  /** The place of the last event that is done with: an event's `created_at` and `sequence`. */
  cursor_at: integer().notNull(),
  cursor_sequence: integer().notNull(),
  last_delivered_at: integer(),
  /** Since when it has failed, without a success in between. Null: the last attempt succeeded, or there was none. */
  failing_since: integer(),
  last_error: text(),
  /** Attempts that failed since the last success. A failed test counts as three. */
  failed_attempt_count: integer().notNull().default(0),
  /** Nothing is sent before. */
  resting_until: integer().notNull().default(0),
  /** Random. Whoever knows it sends to the endpoint, alone, until `claimed_until`. */
  claim: text(),
  claimed_until: integer().notNull().default(0),
};

export const webhook_endpoints = sqliteTable('webhook_endpoints', webhookEndpointsColumns);

/** The signing secrets of endpoints: one each, and for the overlaps after rotations, up to two older ones. */
export const webhookSecretsColumns = {
  organization_id: text().notNull(),
  secret_id: text().notNull(),
  endpoint_id: text().notNull(),
  /** Base64 of the secret's 32 bytes, wrapped by the key-encryption key `kek_id` (credentials/envelope.ts). */
  data_key: text().notNull(),
  kek_id: text().notNull(),
  created_at: integer().notNull(),
  /** Null for the current one. */
  ends_at: integer(),
};

export const webhook_secrets = sqliteTable('webhook_secrets', webhookSecretsColumns);

/** What became of events that an endpoint did not take at once, and of the last few that it did take. */
export const webhookDeliveriesColumns = {
  organization_id: text().notNull(),
  delivery_id: text().notNull(),
  endpoint_id: text().notNull(),
  event_id: text().notNull(),
  event_type: text({ enum: auditActions }).notNull(),
  status: text({ enum: deliveryStatuses }).notNull(),
  attempts: integer().notNull(),
  /** When it was first tried. */
  created_at: integer().notNull(),
  attempted_at: integer().notNull(),
  /** Only while it is `retrying`. */
  next_attempt_at: integer(),
  /** Null: there was no answer. */
  response_status: integer(),
  /** The first 1 KiB of the answer. */
  response_body: text(),
  duration_ms: integer().notNull(),
  /** Why the last attempt failed. */
  last_error: text(),
};

export const webhook_deliveries = sqliteTable('webhook_deliveries', webhookDeliveriesColumns);
