/**
 * The schema as drizzle-kit makes migrations of it: the tables of schema.ts with their indexes, checks and keys of several
 * columns. It is not in the Worker's bundle.
 */
import { and, isNotNull, isNull, sql } from 'drizzle-orm';
import { check, foreignKey, index, primaryKey, sqliteTable, uniqueIndex } from 'drizzle-orm/sqlite-core';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
import {
  deliveryStatuses,
  integrationStatuses,
  keyStatuses,
  mediaEncryptions,
  storedOrganizationStatuses,
  ownerships,
  purgeStates,
  roles,
  sipTransports,
  tiers,
  verdicts,
  verificationStatuses,
} from '../worker/core/vocabulary.ts';
import * as schema from '../worker/d1/schema.ts';

const oneOf = (column: SQLiteColumn, values: readonly string[]) =>
  sql`${column} IN (${sql.raw(values.map((value) => `'${value}'`).join(', '))})`;

export const organizations = sqliteTable('organizations', schema.organizationsColumns, (table) => [
  // One for each set of filters of the list, in each of its two orders, so that no page reads rows that it does not
  // show. None of these columns changes when a row is counted.
  index('organizations_by_created_at').on(table.created_at, table.organization_id),
  index('organizations_by_status').on(table.status, table.is_offboarding, table.created_at, table.organization_id),
  index('organizations_by_tier').on(table.tier, table.created_at, table.organization_id),
  index('organizations_by_tier_status').on(
    table.tier,
    table.status,
    table.is_offboarding,
    table.created_at,
    table.organization_id,
  ),
  index('organizations_by_name').on(table.name_folded, table.organization_id),
  index('organizations_by_status_name').on(
    table.status,
    table.is_offboarding,
    table.name_folded,
    table.organization_id,
  ),
  index('organizations_by_tier_name').on(table.tier, table.name_folded, table.organization_id),
  index('organizations_by_tier_status_name').on(
    table.tier,
    table.status,
    table.is_offboarding,
    table.name_folded,
    table.organization_id,
  ),
  check('organizations_is_offboarding', sql`${table.is_offboarding} IN (0, 1)`),
  check(
    'organizations_organization_id',
    sql`${table.organization_id} GLOB 'org_*' AND substr(${table.organization_id}, 5) NOT GLOB '*[^A-Za-z0-9_-]*' AND length(${table.organization_id}) BETWEEN 5 AND 44`,
  ),
  check('organizations_tier', oneOf(table.tier, tiers)),
  check('organizations_status', oneOf(table.status, storedOrganizationStatuses)),
]);

export const api_keys = sqliteTable('api_keys', schema.apiKeysColumns, (table) => [
  index('api_keys_by_created_at').on(table.organization_id, table.created_at, table.key_id),
  // The next three find the keys that a key created, keys that have expired (for the cron), and keys that ended long
  // ago.
  index('api_keys_by_created_by').on(table.organization_id, table.created_by).where(isNotNull(table.created_by)),
  index('api_keys_by_expires_at')
    .on(table.expires_at)
    .where(sql`${and(isNotNull(table.expires_at), isNull(table.ended_at))}`),
  index('api_keys_by_ended_at').on(table.ended_at).where(isNotNull(table.ended_at)),
  check('api_keys_role', oneOf(table.role, roles)),
  check('api_keys_status', oneOf(table.status, keyStatuses)),
]);

export const integrations = sqliteTable('integrations', schema.integrationsColumns, (table) => [
  primaryKey({ columns: [table.organization_id, table.integration_id] }),
  // One index for each set of filters of the list, so that no page reads rows that it does not show. (`category`
  // needs none: there is only one.)
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
  index('integrations_by_verification').on(
    table.organization_id,
    table.verification_status,
    table.created_at,
    table.integration_id,
  ),
  index('integrations_by_provider_verification').on(
    table.organization_id,
    table.provider,
    table.verification_status,
    table.created_at,
    table.integration_id,
  ),
  index('integrations_by_status_verification').on(
    table.organization_id,
    table.status,
    table.verification_status,
    table.created_at,
    table.integration_id,
  ),
  index('integrations_by_provider_status_verification').on(
    table.organization_id,
    table.provider,
    table.status,
    table.verification_status,
    table.created_at,
    table.integration_id,
  ),
  index('integrations_by_name').on(table.organization_id, table.name_folded, table.integration_id),
  index('integrations_unfolded').on(table.organization_id, table.integration_id).where(isNull(table.name_folded)),
  // Finds the data keys that a rotation must re-wrap.
  index('integrations_by_kek').on(table.kek_id),
  // The next two find the integrations that the cron must check, and those that it is checking.
  index('integrations_by_recheck_from').on(table.recheck_from),
  index('integrations_by_checking_until').on(table.checking_until).where(isNotNull(table.checking_until)),
  check('integrations_status', oneOf(table.status, integrationStatuses)),
  check('integrations_verification_status', oneOf(table.verification_status, verificationStatuses)),
  check('integrations_last_verdict', oneOf(table.last_verdict, verdicts)),
]);

export const phone_numbers = sqliteTable('phone_numbers', schema.phoneNumbersColumns, (table) => [
  foreignKey({
    columns: [table.organization_id, table.integration_id],
    foreignColumns: [integrations.organization_id, integrations.integration_id],
  }).onDelete('restrict'),
  // For the list of references, for the check that there are none, and for the check of the foreign key.
  index('phone_numbers_by_integration').on(
    table.integration_id,
    table.organization_id,
    table.phone_number,
    table.phone_number_id,
  ),
  // With the index above, one for each set of filters that the list takes.
  index('phone_numbers_by_phone_number').on(table.organization_id, table.phone_number),
  index('phone_numbers_by_status').on(table.organization_id, table.status, table.phone_number),
  index('phone_numbers_by_integration_status').on(
    table.integration_id,
    table.organization_id,
    table.status,
    table.phone_number,
  ),
  index('phone_numbers_by_ownership').on(table.organization_id, table.ownership, table.phone_number),
  index('phone_numbers_by_status_ownership').on(
    table.organization_id,
    table.status,
    table.ownership,
    table.phone_number,
  ),
  index('phone_numbers_by_integration_ownership').on(
    table.integration_id,
    table.organization_id,
    table.ownership,
    table.phone_number,
  ),
  index('phone_numbers_by_integration_status_ownership').on(
    table.integration_id,
    table.organization_id,
    table.status,
    table.ownership,
    table.phone_number,
  ),
  index('phone_numbers_by_provider').on(table.organization_id, table.provider, table.phone_number),
  index('phone_numbers_by_agent')
    .on(table.organization_id, table.assigned_agent_id, table.phone_number)
    .where(isNotNull(table.assigned_agent_id)),
  // Finds the numbers that the cron must ask about; those of one integration are together.
  index('phone_numbers_by_ownership_due_at')
    .on(table.ownership_due_at, table.integration_id)
    .where(isNotNull(table.ownership_due_at)),
  index('phone_numbers_by_kek').on(table.kek_id).where(isNotNull(table.kek_id)),
  check(
    'phone_numbers_phone_number',
    sql`${table.phone_number} GLOB '+[1-9]*' AND substr(${table.phone_number}, 2) NOT GLOB '*[^0-9]*' AND length(${table.phone_number}) BETWEEN 8 AND 16`,
  ),
  check('phone_numbers_integration_id', sql`(${table.integration_id} IS NULL) = (${table.provider} = 'sip')`),
  check('phone_numbers_status', sql`${table.status} = iif(${table.assigned_agent_id} IS NULL, 'free', 'assigned')`),
  check('phone_numbers_supports', sql`${table.supports_inbound} IN (0, 1) AND ${table.supports_outbound} IN (0, 1)`),
  check('phone_numbers_media_encryption', oneOf(table.media_encryption, mediaEncryptions)),
  check('phone_numbers_sip_transport', oneOf(table.sip_transport, sipTransports)),
  check('phone_numbers_ownership', oneOf(table.ownership, ownerships)),
  check(
    'phone_numbers_credentials',
    sql`(${table.credentials_version} IS NULL) = (${table.data_key} IS NULL) AND (${table.data_key} IS NULL) = (${table.kek_id} IS NULL)`,
  ),
]);

export const audit_events = sqliteTable('audit_events', schema.auditEventsColumns, (table) => [
  primaryKey({ columns: [table.organization_id, table.event_id] }),
  // The order of the list, the export and the retention. Times never fall as the sequence rises, so this is also the
  // order of the sequence, and `since` and `until` are positions in it.
  index('audit_events_by_created_at').on(table.organization_id, table.created_at, table.sequence),
  // One for each filter of the list. The list takes only one of them, because filters together would need an index of
  // their own: one more row to write for each event. A replay and a rotation also search by target.
  index('audit_events_by_action').on(table.organization_id, table.action, table.created_at, table.sequence),
  index('audit_events_by_target').on(table.organization_id, table.target_id, table.created_at, table.sequence),
  index('audit_events_by_actor').on(table.organization_id, table.actor_key_id, table.created_at, table.sequence),
  // The acts of operators, in all organizations.
  index('audit_events_by_operator')
    .on(table.created_at, table.organization_id, table.sequence)
    .where(sql`${table.actor_type} = 'operator'`),
  // Checks only the form, because adding an action must not require a rebuild of the largest table.
  check('audit_events_action', sql`${table.action} GLOB '[a-z]*.[a-z]*'`),
]);

export const credential_purges = sqliteTable('credential_purges', schema.credentialPurgesColumns, (table) => [
  // The drain is fair among organizations: it reads the rows of each one, in the order in which they are due.
  index('credential_purges_by_organization').on(table.organization_id, table.due_at),
  check('credential_purges_state', oneOf(table.state, purgeStates)),
]);

export const key_encryption_keys = sqliteTable('key_encryption_keys', schema.keyEncryptionKeysColumns);

export const idempotency_keys = sqliteTable('idempotency_keys', schema.idempotencyKeysColumns, (table) => [
  primaryKey({
    columns: [table.organization_id, table.actor_key_id, table.idempotency_key, table.method, table.path],
  }),
  index('idempotency_keys_by_created_at').on(table.created_at),
]);

export const operator_keys = sqliteTable('operator_keys', schema.operatorKeysColumns, (table) => [
  check('operator_keys_status', oneOf(table.status, keyStatuses)),
]);

export const operator_idempotency_keys = sqliteTable(
  'operator_idempotency_keys',
  schema.operatorIdempotencyKeysColumns,
  (table) => [
    primaryKey({ columns: [table.operator_key_id, table.idempotency_key, table.method, table.path] }),
    index('operator_idempotency_keys_by_created_at').on(table.created_at),
  ],
);

export const heartbeats = sqliteTable('heartbeats', schema.heartbeatsColumns);

export const webhook_endpoints = sqliteTable('webhook_endpoints', schema.webhookEndpointsColumns, (table) => [
  primaryKey({ columns: [table.organization_id, table.endpoint_id] }),
  index('webhook_endpoints_by_created_at').on(table.organization_id, table.created_at, table.endpoint_id),
  check('webhook_endpoints_enabled', sql`${table.enabled} IN (0, 1)`),
]);

export const webhook_secrets = sqliteTable('webhook_secrets', schema.webhookSecretsColumns, (table) => [
  primaryKey({ columns: [table.organization_id, table.secret_id] }),
  foreignKey({
    columns: [table.organization_id, table.endpoint_id],
    foreignColumns: [webhook_endpoints.organization_id, webhook_endpoints.endpoint_id],
  }).onDelete('restrict'),
  index('webhook_secrets_by_endpoint').on(table.organization_id, table.endpoint_id),
  index('webhook_secrets_by_kek').on(table.kek_id),
  // Finds those whose overlap has ended.
  index('webhook_secrets_by_ends_at').on(table.ends_at).where(isNotNull(table.ends_at)),
]);

export const webhook_deliveries = sqliteTable('webhook_deliveries', schema.webhookDeliveriesColumns, (table) => [
  primaryKey({ columns: [table.organization_id, table.delivery_id] }),
  foreignKey({
    columns: [table.organization_id, table.endpoint_id],
    foreignColumns: [webhook_endpoints.organization_id, webhook_endpoints.endpoint_id],
  }).onDelete('restrict'),
  uniqueIndex('webhook_deliveries_by_event').on(table.organization_id, table.endpoint_id, table.event_id),
  // One for each set of filters of the list.
  index('webhook_deliveries_by_created_at').on(
    table.organization_id,
    table.endpoint_id,
    table.created_at,
    table.delivery_id,
  ),
  index('webhook_deliveries_by_status').on(
    table.organization_id,
    table.endpoint_id,
    table.status,
    table.created_at,
    table.delivery_id,
  ),
  // Finds those that are due.
  index('webhook_deliveries_by_next_attempt_at')
    .on(table.organization_id, table.endpoint_id, table.next_attempt_at)
    .where(isNotNull(table.next_attempt_at)),
  // Finds those that are kept no longer.
  index('webhook_deliveries_by_attempted_at').on(table.attempted_at),
  check('webhook_deliveries_status', oneOf(table.status, deliveryStatuses)),
  check(
    'webhook_deliveries_next_attempt_at',
    sql`(${table.status} = 'retrying') = (${table.next_attempt_at} IS NOT NULL)`,
  ),
]);
