/** The operations under `/operator`. */
import * as z from 'zod';
import { mintedKey } from '../worker/api-keys/mint.ts';
import type { OperatorsAuditEvent } from '../worker/audit/read.ts';
import { organizationStatuses, tiers } from '../worker/core/vocabulary.ts';
import { newOrganization } from '../worker/organizations/create.ts';
import { offboarding } from '../worker/organizations/offboarding.ts';
import type { OperatedOrganization } from '../worker/organizations/organization.ts';
import type { CountedOrganization } from '../worker/organizations/read.ts';
import { numberToRelease } from '../worker/phone-numbers/release.ts';
import { apiKeyExample, apiKeySchema, rawKeyExample, rawKeySchema } from './api-keys.ts';
import { auditEventExample, auditEventSchema } from './audit-events.ts';
import { integrationSchema } from './integrations.ts';
import { described, named } from './json-schema.ts';
import { action, entity, page, time } from './operation.ts';
import type { Operations } from './operation.ts';
import { phoneNumberExample, phoneNumberSchema } from './phone-numbers.ts';

described(newOrganization, {
  organization_id: 'One is made if it is absent.',
  metadata: 'At most 16 pairs. `{}` if it is absent or null.',
  first_key: 'Makes the first API key of the organization in the same commit. It does not expire.',
});
described(mintedKey, {
  user_id: 'The user of the key; `user_operator` if it is absent.',
});
described(numberToRelease, {
  organization_id:
    'The organization that must have it. Without it, whoever has the number loses it: a request that is repeated without an ' +
    'Idempotency-Key could take it from the next one.',
});
described(offboarding, { organization_id: 'The organization of the path once more, as a confirmation.' });

const organizationSchema = z
  .object({
    organization_id: z.string(),
    name: z.string().nullable().meta({ description: 'Null if a command created it.' }),
    tier: z.enum(tiers),
    status: z.enum(organizationStatuses).meta({
      description: '`offboarding`: it has ended for good, and what it had is still being deleted.',
    }),
    metadata: z.record(z.string(), z.string()).meta({ description: 'The organization itself does not see it.' }),
    created_at: time,
  })
  .meta({ id: 'OperatedOrganization', title: 'Organization' }) satisfies z.ZodType<OperatedOrganization>;

const organizationExample: OperatedOrganization = {
  organization_id: 'org_abc123',
  name: 'Acme',
  tier: 'pro',
  status: 'active',
  metadata: { customer: 'C-1041' },
  created_at: '2024-01-15T10:30:00Z',
};

const countedSchema = named(
  'CountedOrganization',
  organizationSchema.extend({
    counts: z.object({
      integrations: z.int(),
      phone_numbers: z.int(),
      api_keys: z.int().meta({ description: 'Those that have not ended.' }),
      refused_verifications: z
        .int()
        .meta({ description: 'Integrations whose provider refuses their credentials, counted up to 1,000.' }),
    }),
  }),
) satisfies z.ZodType<CountedOrganization>;

const countedExample: CountedOrganization = {
  ...organizationExample,
  counts: { integrations: 2, phone_numbers: 15, api_keys: 1, refused_verifications: 0 },
};

const mintedSchema = named('MintedApiKey', z.object({ raw_key: rawKeySchema, key: apiKeySchema }));

const operatorsEventSchema = named(
  'OperatorsAuditEvent',
  auditEventSchema.extend({
    state: z
      .union([integrationSchema, phoneNumberSchema, apiKeySchema, organizationSchema])
      .meta({ description: 'The target just before; for a creation or an import, as it was created.' }),
  }),
) satisfies z.ZodType<OperatorsAuditEvent>;

const organizations = 'Organizations';
const keys = 'API keys';
const numbers = 'Phone numbers';

const ORGANIZATION = '/operator/organizations/{organization_id}';

export const operatorOperations: Operations = {
  'POST /operator/organizations': {
    operationId: 'createOrganization',
    tag: organizations,
    summary: 'Create an organization',
    description: 'With `first_key`, its first API key too. The raw key is shown only in this response.',
    body: {
      name: 'NewOrganization',
      examples: {
        default: { name: 'Acme' },
        with_first_key: {
          organization_id: 'org_acme',
          name: 'Acme',
          tier: 'pro',
          metadata: { customer: 'C-1041' },
          first_key: { name: 'First key', role: 'admin' },
        },
      },
    },
    answer: action(
      201,
      'Organization created successfully',
      named('CreatedOrganization', organizationSchema.extend({ first_key: mintedSchema.optional() })),
      { ...organizationExample, first_key: { raw_key: rawKeyExample, key: { ...apiKeyExample, role: 'admin' } } },
    ),
    problems: ['organization_exists'],
  },
  'GET /operator/organizations': {
    operationId: 'listOrganizations',
    tag: organizations,
    summary: 'List organizations',
    description: 'Oldest first; with `name_prefix`, in the order of their names.',
    answer: page(organizationSchema, organizationExample),
  },
  [`GET ${ORGANIZATION}`]: {
    operationId: 'getOrganization',
    tag: organizations,
    summary: 'Get an organization',
    answer: entity(countedSchema, countedExample),
    problems: ['organization_not_found'],
  },
  [`PUT ${ORGANIZATION}`]: {
    operationId: 'updateOrganization',
    tag: organizations,
    summary: 'Update an organization',
    description: 'A field that is absent stays as it is. `metadata` is replaced as a whole.',
    body: {
      name: 'OrganizationChanges',
      examples: { default: { tier: 'enterprise' }, renamed: { name: 'Acme Europe', metadata: {} } },
    },
    answer: action(200, 'Organization updated successfully', organizationSchema, organizationExample),
    problems: ['organization_not_found', 'organization_offboarded'],
  },
  [`POST ${ORGANIZATION}/suspend`]: {
    operationId: 'suspendOrganization',
    tag: organizations,
    summary: 'Suspend an organization',
    description:
      'Its API keys stop: at once for mutations, within 60 seconds for reads. Everything that it has stays. Suspending it ' +
      'again has no effect.',
    answer: action(200, 'Organization suspended successfully', countedSchema, {
      ...countedExample,
      status: 'suspended',
    }),
    problems: ['organization_not_found', 'organization_offboarded'],
  },
  [`POST ${ORGANIZATION}/resume`]: {
    operationId: 'resumeOrganization',
    tag: organizations,
    summary: 'Resume a suspended organization',
    description: 'Its API keys work again. Resuming an active organization has no effect.',
    answer: action(200, 'Organization resumed successfully', countedSchema, countedExample),
    problems: ['organization_not_found', 'organization_offboarded'],
  },
  [`POST ${ORGANIZATION}/offboard`]: {
    operationId: 'offboardOrganization',
    tag: organizations,
    summary: 'Offboard a suspended organization, for good',
    description:
      'Deletes its phone numbers and its integrations with their credentials, and revokes its API keys. Its audit events ' +
      'stay. That goes on after the answer, and by itself: as long as something is left, `status` is `offboarding`, and ' +
      '`counts` says how much. The same request again carries it on.',
    body: { name: 'Offboarding', examples: { default: { organization_id: 'org_abc123' } } },
    answer: action(202, 'Offboarding has begun; status and counts tell how far it is', countedSchema, {
      ...countedExample,
      status: 'offboarding',
    }),
    problems: ['organization_not_found', 'organization_not_suspended'],
  },
  [`POST ${ORGANIZATION}/api-keys`]: {
    operationId: 'mintApiKey',
    tag: keys,
    summary: 'Mint an API key of an organization',
    description:
      'The raw key is shown only in this response. While the organization is suspended, the key does not work.',
    body: {
      name: 'NewMintedApiKey',
      examples: {
        default: { name: 'Billing service', role: 'user' },
        of_a_user: { name: 'Console', role: 'admin', user_id: 'user_4711', expires_at: '2099-12-31T23:59:59Z' },
      },
    },
    answer: action(201, 'API key minted successfully', mintedSchema, { raw_key: rawKeyExample, key: apiKeyExample }),
    problems: ['organization_not_found', 'organization_offboarded', 'quota_exceeded'],
  },
  [`GET ${ORGANIZATION}/api-keys`]: {
    operationId: 'listApiKeysOfOrganization',
    tag: keys,
    summary: 'List the API keys of an organization',
    description: 'Oldest first, including revoked and expired keys.',
    answer: page(apiKeySchema, apiKeyExample),
    problems: ['organization_not_found'],
  },
  [`POST ${ORGANIZATION}/api-keys/revoke-all`]: {
    operationId: 'revokeAllApiKeys',
    tag: keys,
    summary: 'Revoke all API keys of an organization',
    description: 'In one commit. From then on they can change nothing, and they can read for at most 60 seconds.',
    answer: action(
      200,
      'API keys revoked successfully',
      named('RevokedApiKeys', z.object({ revoked_count: z.int().min(0) })),
      { revoked_count: 3 },
    ),
    problems: ['organization_not_found', 'organization_offboarded'],
  },
  [`DELETE ${ORGANIZATION}/api-keys/{key_id}`]: {
    operationId: 'revokeApiKeyOfOrganization',
    tag: keys,
    summary: 'Revoke an API key of an organization',
    description:
      'From then on the key can change nothing, and it can read for at most 60 seconds. Revoking it again has no effect.',
    answer: action(200, 'API key revoked successfully', apiKeySchema, { ...apiKeyExample, status: 'revoked' }),
    problems: ['organization_not_found', 'api_key_not_found'],
  },
  'GET /operator/phone-numbers': {
    operationId: 'findPhoneNumber',
    tag: numbers,
    summary: 'Find out which organization has a phone number',
    description: 'The organization is called `client_id` in the answer.',
    answer: entity(phoneNumberSchema, phoneNumberExample),
    problems: ['phone_number_not_held'],
  },
  'POST /operator/phone-numbers/release': {
    operationId: 'releasePhoneNumber',
    tag: numbers,
    summary: 'Take a phone number from the organization that has it',
    description:
      'Deletes it there, with its SIP credentials if it has any, even if it is assigned to an agent. Then any organization ' +
      'can import it. The answer has the number as it was.',
    body: {
      name: 'PhoneNumberRelease',
      examples: { default: { phone_number: '+14155550123', organization_id: 'org_abc123' } },
    },
    answer: action(200, 'Phone number released successfully', phoneNumberSchema, phoneNumberExample),
    problems: ['phone_number_not_held'],
  },
  'GET /operator/audit-events': {
    operationId: 'listAuditEventsForOperator',
    tag: 'Audit',
    summary: 'List audit events',
    description:
      'Newest first: those of one organization, or, with `actor_type=operator`, what operators did in all organizations. One ' +
      'of the two must be given.',
    answer: page(operatorsEventSchema, auditEventExample),
    problems: ['organization_not_found'],
  },
};
