/** The allowed values of columns and of fields in answers, and their types. */

/** To add a provider, add its name here and its rows in providers/providers.ts and providers/numbers.ts. */
export const providerNames = ['twilio', 'telnyx', 'vonage', 'plivo'] as const;
export type Provider = (typeof providerNames)[number];

export const categories = ['telephony'] as const;
export type Category = (typeof categories)[number];

export const tiers = ['starter', 'pro', 'enterprise'] as const;
export type Tier = (typeof tiers)[number];

/** From the highest to the lowest. */
export const roles = ['admin', 'agent_manager', 'user'] as const;
export type Role = (typeof roles)[number];

/**
 * As they are stored. The keys of a suspended organization do not work until it is resumed. An offboarded organization
 * has nothing left but its audit events, for good.
 */
export const storedOrganizationStatuses = ['active', 'suspended', 'offboarded'] as const;

/** As answers have them. `offboarding`: offboarded, and what it has is still being deleted. */
export const organizationStatuses = ['active', 'suspended', 'offboarding', 'offboarded'] as const;
export type OrganizationStatus = (typeof organizationStatuses)[number];
export const keyStatuses = ['active', 'revoked'] as const;
/** `credentials_missing`: a restore of the database brought the row back, but its ciphertext is gone. */
export const integrationStatuses = ['active', 'credentials_missing'] as const;

/** What came of the last time that the provider was asked about an integration's credentials (providers/check.ts). */
export const verificationStatuses = ['unverified', 'verified', 'limited', 'refused', 'unreachable'] as const;
export type VerificationStatus = (typeof verificationStatuses)[number];

/**
 * The last thing that the provider said of an integration's credentials. `doubted`: it had accepted them, and has since
 * refused them once.
 */
export const verdicts = ['accepted', 'doubted', 'refused'] as const;
export type Verdict = (typeof verdicts)[number];

export const phoneNumberStatuses = ['free', 'assigned'] as const;

/**
 * Whether the account of a phone number's integration holds the number. `unconfirmed`: it was not asked, could not say, or
 * does not hold it any more. SIP numbers are unconfirmed, because they have no account.
 */
export const ownerships = ['confirmed', 'unconfirmed'] as const;
export type Ownership = (typeof ownerships)[number];

/**
 * The states of an outbox row. `intended`: a create or an update is under way. It may still make its ciphertext live,
 * and then deletes the row. `owed`: the ciphertext is garbage for good, and the row stays until the ciphertext has been
 * removed.
 */
export const purgeStates = ['intended', 'owed'] as const;
export type PurgeState = (typeof purgeStates)[number];

export const mediaEncryptions = ['disable', 'allow', 'require'] as const;
export const sipTransports = ['auto', 'udp', 'tcp', 'tls'] as const;

/** Who acts: an API key, an operator's key or command, another Worker of the platform, or the cron. */
export const actorTypes = ['api_key', 'operator', 'service', 'system'] as const;
export type ActorType = (typeof actorTypes)[number];

/** What is read, and who may read it: integrations of a provider, or SIP numbers with their trunk. */
export const readableProviders = [...providerNames, 'sip'] as const;
export type ReadableProvider = (typeof readableProviders)[number];

/** Every action that an audit event can name: `{subject}.{what happened}`. */
export const auditActions = [
  'organization.created',
  'organization.updated',
  'organization.suspended',
  'organization.resumed',
  'organization.offboarded',
  'api_key.created',
  'api_key.updated',
  'api_key.rotated',
  'api_key.revoked',
  'integration.created',
  'integration.updated',
  'integration.deleted',
  'integration.delete_refused',
  'integration.credentials_missing',
  'integration.verification_failed',
  'integration.verification_recovered',
  'phone_number.imported',
  'phone_number.updated',
  'phone_number.deleted',
  'phone_number.delete_refused',
  'phone_number.released',
  'credentials.read',
  'webhook_endpoint.created',
  'webhook_endpoint.updated',
  'webhook_endpoint.tested',
  'webhook_endpoint.secret_rotated',
  'webhook_endpoint.replayed',
  'webhook_endpoint.disabled',
  'webhook_endpoint.deleted',
  'webhook_delivery.retried',
  'webhook_delivery.dead',
] as const;
export type AuditAction = (typeof auditActions)[number];

/** What webhook endpoints are told about: actions on these subjects. */
export const webhookSubjects = ['organization', 'api_key', 'integration', 'phone_number'] as const;

export type WebhookSubject = (typeof webhookSubjects)[number];
export type WebhookEventType = Extract<AuditAction, `${WebhookSubject}.${string}`>;

/** The types of events that webhook endpoints get, each an action. */
export const webhookEventTypes = auditActions.filter((action): action is WebhookEventType =>
  webhookSubjects.some((subject) => action.startsWith(`${subject}.`)),
);

/** What an endpoint can ask for: all events, those about a subject, or one type. */
export const webhookEventPatterns = [
  '*' as const,
  ...webhookSubjects.map((subject) => `${subject}.*` as const),
  ...webhookEventTypes,
];

/**
 * `retrying`: it failed, and is tried again. `dead`: it failed for three days, and is not tried again unless somebody asks
 * for it.
 */
export const deliveryStatuses = ['delivered', 'retrying', 'dead'] as const;
export type DeliveryStatus = (typeof deliveryStatuses)[number];

/** Why something was done that its organization did not ask for. */
export const eventReasons = ['ownership_confirmed_elsewhere'] as const;
export type EventReason = (typeof eventReasons)[number];

/**
 * The actions that delete, revoke, or change an organization's status. A restore of D1 undoes them; a replay redoes
 * them.
 */
export const endingActions = [
  'organization.suspended',
  'organization.resumed',
  'organization.offboarded',
  'api_key.rotated',
  'api_key.revoked',
  'integration.deleted',
  'phone_number.deleted',
  'phone_number.released',
  'webhook_endpoint.deleted',
] as const satisfies AuditAction[];

/** What is limited. The organization's row has a counter for each, and a limit where an operator has set one. */
export const quotas = ['integrations', 'phone_numbers', 'unconfirmed_numbers', 'api_keys', 'audit_events'] as const;
export type Quota = (typeof quotas)[number];
