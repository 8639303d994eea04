/** The words that columns, permissions and answers may have, and the types of each. */

/** Adding a provider: its name here, and its row in integrations/providers.ts. */
export const providerNames = ['twilio', 'telnyx', 'vonage', 'plivo'] as const;
export type Provider = (typeof providerNames)[number];

export const categories = ['telephony'] as const;
export type Category = (typeof categories)[number];

export const tiers = ['starter', 'pro', 'enterprise'] as const;
export type Tier = (typeof tiers)[number];

/** From the highest to the lowest. */
export const roles = ['admin', 'agent_manager', 'user'] as const;
export type Role = (typeof roles)[number];

/** The keys of a suspended organization are dead until it is resumed; an offboarded one has nothing left and stays so. */
export const organizationStatuses = ['active', 'suspended', 'offboarded'] as const;
export const keyStatuses = ['active', 'revoked'] as const;
/** `credentials_missing` is for rows that a database restore brings back without their ciphertext. */
export const integrationStatuses = ['active', 'credentials_missing'] as const;
export const phoneNumberStatuses = ['free', 'assigned'] as const;

/**
 * An outbox row is `intended` by a create or an update under way, which may still make its ciphertext live and withdraw the
 * row; it is `owed` where the ciphertext is garbage for good, which nothing but its removal ends.
 */
export const purgeStates = ['intended', 'owed'] as const;
export type PurgeState = (typeof purgeStates)[number];

export const mediaEncryptions = ['disable', 'allow', 'require'] as const;

/** Who acts: an API key, an operator's command, another Worker of the platform, or the cron. */
export const actorTypes = ['api_key', 'operator', 'service', 'system'] as const;
export type ActorType = (typeof actorTypes)[number];

/** Every action that an audit event can name: `{subject}.{what happened}`. */
export const auditActions = [
  'organization.updated',
  'organization.suspended',
  'organization.resumed',
  'organization.offboarded',
  'api_key.created',
  'api_key.rotated',
  'api_key.revoked',
  'integration.created',
  'integration.updated',
  'integration.deleted',
  'integration.delete_refused',
  'integration.credentials_missing',
  'phone_number.imported',
  'phone_number.updated',
  'phone_number.deleted',
  'phone_number.delete_refused',
  'phone_number.released',
] as const;
export type AuditAction = (typeof auditActions)[number];

/** Those after which something has ended, or may do less: what a restore of D1 undoes and a replay does again. */
export const endingActions = [
  'organization.suspended',
  'organization.resumed',
  'organization.offboarded',
  'api_key.rotated',
  'api_key.revoked',
  'integration.deleted',
  'phone_number.deleted',
  'phone_number.released',
] as const satisfies AuditAction[];

/** What an organization may hold; each has a counter and, where an operator set one, a limit in the organization's row. */
export const quotas = ['integrations', 'phone_numbers', 'sip_numbers', 'api_keys', 'audit_events'] as const;
export type Quota = (typeof quotas)[number];
