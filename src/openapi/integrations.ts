import * as z from 'zod';
import { DomainError, preconditions, targetFaults } from '../worker/core/errors.ts';
import {
  categories,
  integrationStatuses,
  phoneNumberStatuses,
  providerNames,
  verificationStatuses,
} from '../worker/core/vocabulary.ts';
import { deletionQuery } from '../worker/integrations/deletion.ts';
import { presentDeletedIntegration, presentIntegration } from '../worker/integrations/integration.ts';
import type { DeletedIntegration, Integration, ListedIntegration } from '../worker/integrations/integration.ts';
import { blockerCodes } from '../worker/integrations/preview.ts';
import { presentProviderNumber } from '../worker/integrations/provider-numbers.ts';
import type { ProviderNumber } from '../worker/integrations/provider-numbers.ts';
import { integrationsQuery } from '../worker/integrations/read.ts';
import { presentReference } from '../worker/integrations/references.ts';
import type { IntegrationReference } from '../worker/integrations/references.ts';
import { credentialsQuery, presentPreview } from '../worker/integrations/routes.ts';
import type { DeletionPreview } from '../worker/integrations/routes.ts';
import { integrationChanges } from '../worker/integrations/update.ts';
import { providerCredentials, providers } from '../worker/providers/providers.ts';
import { described, named, separated } from './json-schema.ts';
import { action, agentId, entity, id, orDryRun, page, pageWithoutCount, time } from './operation.ts';
import type { Operations } from './operation.ts';

named('IntegrationCredentials', providerCredentials);
named('TelnyxCredentials', providers.telnyx.credentials, 'Telnyx');
named('PlivoCredentials', providers.plivo.credentials, 'Plivo');
described(integrationChanges, {
  credentials: 'All credentials, of the same provider. They replace the old ones.',
});
described(credentialsQuery, {
  verify:
    'Whether the provider is asked if it accepts the credentials. What it refuses is not stored. `true` if it is absent.',
});
described(deletionQuery, {
  dry_run: 'Whether to say only what the delete would do.',
  reassign_to:
    'The integration that gets all phone numbers, of the same organization and provider. Needs `phone_numbers:update` too.',
  remove_phone_numbers:
    'Whether to delete all phone numbers too. Refused if an agent holds one of them. Needs `phone_numbers:delete` too.',
  expect_references: 'How many phone numbers must use the integration. If it is another number, nothing is done.',
  verify:
    'Only with `reassign_to`: whether the account of that integration is asked if it holds the phone numbers, unless it is known to be ' +
    'the same account. `true` if it is absent; with `false` they are unconfirmed.',
});
described(integrationsQuery, {
  name_prefix:
    'What the name begins with, in upper or lower case. The list is then in the order of the names. It cannot be combined ' +
    'with `provider`, `status` and `verification`.',
});
described(providers.twilio.credentials, { region: 'The region of the Auth Token and the API key.' });
described(providers.telnyx.credentials, { public_key: 'Verifies the signatures of webhooks.' });
described(providers.vonage.credentials, {
  application_id: 'The application that places calls.',
  private_key: 'The private key of that application, in PKCS#8 PEM. Its line breaks may be written as `\\n`.',
  signature_secret: 'Verifies signed webhooks.',
});
separated(providers.twilio.credentials, [
  { id: 'TwilioAuthTokenCredentials', title: 'Twilio, by Auth Token', required: ['auth_token'] },
  { id: 'TwilioApiKeyCredentials', title: 'Twilio, by API key', required: ['api_key_sid', 'api_key_secret'] },
  {
    id: 'TwilioAuthTokenAndApiKeyCredentials',
    title: 'Twilio, by API key, with the Auth Token that signs webhooks',
    required: ['auth_token', 'api_key_sid', 'api_key_secret'],
  },
]);
separated(providers.vonage.credentials, [
  { id: 'VonageCredentials', title: 'Vonage', required: [] },
  {
    id: 'VonageApplicationCredentials',
    title: 'Vonage, with an application',
    required: ['application_id', 'private_key'],
  },
]);

const tag = 'Integrations';

const fields = {
  integration_id: id('intg'),
  client_id: z.string().meta({ description: 'The organization.' }),
  name: z.string(),
  provider: z.enum(providerNames),
  category: z.enum(categories),
  status: z.enum(integrationStatuses).meta({
    description:
      '`credentials_missing`: a restore of the database could not bring the credentials back. Send them again.',
  }),
  created_at: time,
  updated_at: time,
};

const deletedIntegrationSchema = z.object(fields).meta({
  id: 'DeletedIntegration',
  title: 'Deleted integration',
  description: 'An integration as it was just before it was deleted.',
}) satisfies z.ZodType<DeletedIntegration>;

const verificationSchema = z.object({
  status: z.enum(verificationStatuses).meta({
    description:
      '`verified`: the provider accepts the credentials. `refused`: it refuses them. `limited`: it knows them, and did ' +
      'not permit the call. `unreachable`: it gave no answer that says anything. `unverified`: it was never asked.',
  }),
  checked_at: time.nullable(),
  provider_status: z.int().nullable().meta({ description: 'The HTTP status that the provider answered with.' }),
  provider_code: z.string().nullable().meta({ description: 'The provider’s own code of an error.' }),
  detail: z.string().meta({ description: 'A sentence for people.' }),
});

export const integrationSchema = z
  .object({
    ...fields,
    account_hint: z
      .string()
      .nullable()
      .meta({
        description:
          'The first two and the last four characters of the account’s identifier at the provider, or the last two of a ' +
          'short one. Null if the credentials have none, or have not been opened since hints exist.',
      }),
    verification: verificationSchema.meta({ description: 'The last check of the credentials with their provider.' }),
  })
  .meta({
    id: 'Integration',
    title: 'Integration',
    description: 'An account at a telephony provider. No answer contains its credentials.',
  }) satisfies z.ZodType<Integration>;

const listedIntegrationSchema = integrationSchema
  .extend({ phone_number_count: z.int().min(0).meta({ description: 'How many phone numbers use it: exact.' }) })
  .meta({ id: 'ListedIntegration', title: 'Integration in a list' }) satisfies z.ZodType<ListedIntegration>;

const exampleState = {
  integration_id: 'intg_a1b2c3d4e5f6',
  organization_id: 'org_abc123',
  name: 'Twilio Production',
  provider: 'twilio',
  category: 'telephony',
  status: 'active',
  created_at: 1_705_314_600,
  updated_at: 1_705_314_600,
  revision: 1,
  account_hint: 'AC…cdef',
  verification_status: 'verified',
  verification_checked_at: 1_705_314_600,
  verification_provider_status: 200,
  verification_provider_code: null,
} as const;

export const integrationExample = presentIntegration(exampleState);

const providerNumberSchema = z
  .object({
    phone_number: z.string().regex(/^\+[1-9]\d{6,14}$/),
    provider_number_id: z.string().meta({ description: 'The provider’s own name of the number.' }),
    friendly_name: z.string().max(64).nullable().meta({ description: 'Null if the provider has none.' }),
    capabilities: z.object({ voice: z.boolean(), sms: z.boolean() }),
    import_status: z.enum(['available', 'imported', 'taken']).meta({
      description:
        '`imported`: this organization has it. `taken`: the account of another organization holds it too, and has been ' +
        'confirmed. `available`: it can be imported.',
    }),
    phone_number_id: id('phon').nullable().meta({ description: 'Null unless it is `imported`.' }),
  })
  .meta({
    id: 'ProviderNumber',
    title: 'Number of the account',
    description: 'A phone number as the account at the provider has it.',
  }) satisfies z.ZodType<ProviderNumber>;

const providerNumberExample = presentProviderNumber(
  {
    isSure: true,
    phone_number: '+1234567890',
    provider_number_id: 'PN0123456789abcdef0123456789abcdef',
    friendly_name: 'Front desk',
    capabilities: { voice: true, sms: true },
  },
  { phone_number: '+1234567890', phone_number_id: 'phon_a1b2c3d4e5f6', ownership: 'confirmed' },
);

const referenceSchema = z
  .object({
    type: z.literal('phone_number'),
    phone_number_id: id('phon'),
    phone_number: z.string().regex(/^\+[1-9]\d{6,14}$/),
    status: z.enum(phoneNumberStatuses),
    assigned_agent_id: agentId.nullable(),
  })
  .meta({ id: 'IntegrationReference', title: 'Reference to an integration' }) satisfies z.ZodType<IntegrationReference>;

const referenceExample = presentReference({
  phone_number_id: 'phon_a1b2c3d4e5f6',
  phone_number: '+1234567890',
  status: 'free',
  assigned_agent_id: null,
});

const previewSchema = z
  .object({
    would_delete: z.boolean(),
    integration: integrationSchema,
    reference_count: z.int().min(0).max(1000),
    reference_count_exact: z.boolean(),
    references: z.array(referenceSchema).max(100).meta({ description: 'The first 100, ascending.' }),
    would_reassign: z.int().min(0).max(1000),
    would_remove: z.int().min(0).max(1000),
    blocked_by: z
      .array(
        z.object({
          code: z.enum(blockerCodes).meta({ description: 'Of the error that the delete would get.' }),
          title: z.string(),
          phone_number_id: id('phon').nullable(),
          phone_number: z.string().nullable(),
          assigned_agent_id: agentId.nullable(),
          reason: z.enum([...targetFaults, ...preconditions]).nullable(),
        }),
      )
      .max(100)
      .meta({ description: 'What stands against the delete: an entry for each phone number that it is about.' }),
  })
  .meta({ id: 'DeletionPreview', title: 'Preview of a deletion' }) satisfies z.ZodType<DeletionPreview>;

const previewExample = presentPreview('refuse', {
  blocker: new DomainError('integration_in_use', {
    references: [{ phone_number_id: 'phon_a1b2c3d4e5f6', phone_number: '+1234567890' }],
    reference_count: 1,
    reference_count_exact: true,
    references_url: '/api/integrations/intg_a1b2c3d4e5f6/references',
  }),
  integration: integrationExample,
  reference_count: 1,
  reference_count_exact: true,
  references: [referenceExample],
});

const credentials = {
  provider: 'twilio',
  account_sid: 'AC0123456789abcdef0123456789abcdef',
  auth_token: 'your-auth-token',
};

export const integrationOperations: Operations = {
  'POST /api/integrations': {
    operationId: 'createIntegration',
    tag,
    summary: 'Create an integration',
    description:
      'Asks the provider whether it accepts the credentials, and stores them, encrypted with a key of their own. No answer ever contains them.',
    body: {
      name: 'NewIntegration',
      examples: {
        twilio: { name: 'Twilio Production', credentials },
        twilio_api_key: {
          name: 'Twilio by API key',
          credentials: {
            provider: 'twilio',
            account_sid: credentials.account_sid,
            api_key_sid: 'SK0123456789abcdef0123456789abcdef',
            api_key_secret: 'your-api-key-secret',
          },
        },
        telnyx: { name: 'Telnyx', credentials: { provider: 'telnyx', api_key: 'your-api-key' } },
        vonage: {
          name: 'Vonage',
          credentials: { provider: 'vonage', api_key: 'your-api-key', api_secret: 'your-api-secret' },
        },
        plivo: {
          name: 'Plivo',
          credentials: { provider: 'plivo', auth_id: 'MA0123456789ABCDEFGH', auth_token: 'your-auth-token' },
        },
      },
    },
    answer: action(201, 'Integration created successfully', integrationSchema, integrationExample),
    headers: ['ETag'],
    problems: ['credentials_refused', 'verification_limited', 'quota_exceeded'],
  },
  'GET /api/integrations': {
    operationId: 'listIntegrations',
    tag,
    summary: 'List integrations',
    description: 'Oldest first, or with `name_prefix` in the order of the names.',
    answer: page(listedIntegrationSchema, { ...integrationExample, phone_number_count: 1 }, 'Integration'),
  },
  'GET /api/integrations/{integration_id}': {
    operationId: 'getIntegration',
    tag,
    summary: 'Get an integration',
    answer: entity(integrationSchema, integrationExample),
    headers: ['ETag'],
    problems: ['integration_not_found'],
  },
  'PUT /api/integrations/{integration_id}': {
    operationId: 'updateIntegration',
    tag,
    summary: 'Update an integration',
    description:
      'Changes the name, the credentials, or both. New credentials replace the old ones, which can no longer be read.',
    body: {
      name: 'IntegrationChanges',
      examples: { name: { name: 'Twilio Europe' }, credentials: { credentials } },
    },
    answer: action(200, 'Integration updated successfully', integrationSchema, integrationExample),
    headers: ['ETag'],
    problems: [
      'integration_not_found',
      'credentials_refused',
      'verification_limited',
      'provider_account_differs',
      'quota_exceeded',
    ],
  },
  'GET /api/integrations/{integration_id}/provider-numbers': {
    operationId: 'listProviderNumbers',
    tag,
    summary: 'List the account’s phone numbers',
    description:
      'Asks the provider now, and lists the numbers in its order. A number that vanishes between two pages hides no other. ' +
      'Import what you need with `POST /api/phone-numbers/bulk`.',
    answer: pageWithoutCount(providerNumberSchema, providerNumberExample),
    problems: [
      'integration_not_found',
      'credentials_missing',
      'credentials_refused',
      'credentials_limited',
      'verification_limited',
      'provider_unavailable',
    ],
  },
  'GET /api/integrations/{integration_id}/references': {
    operationId: 'listReferences',
    tag,
    summary: 'List what uses an integration',
    description: 'Its phone numbers, ascending. While there are any, the integration cannot be deleted alone.',
    answer: page(referenceSchema, referenceExample),
    problems: ['integration_not_found'],
  },
  'POST /api/integrations/{integration_id}/verify': {
    operationId: 'verifyIntegration',
    tag,
    summary: 'Check an integration’s credentials',
    description:
      'Asks the provider now whether it accepts the stored credentials, and stores what it says as `verification`. The ' +
      'answer is 200 for `refused` too.',
    answer: action(200, 'Integration checked successfully', integrationSchema, integrationExample),
    headers: ['ETag'],
    problems: ['integration_not_found', 'credentials_missing', 'verification_limited', 'quota_exceeded'],
  },
  'DELETE /api/integrations/{integration_id}': {
    operationId: 'deleteIntegration',
    tag,
    summary: 'Delete an integration and its credentials',
    description:
      'Refused while phone numbers reference it: `detail` and `references` name the first 100 in ascending order. ' +
      'With `reassign_to` or `remove_phone_numbers` the same step reassigns or deletes them all, at most 10,000: wholly, or ' +
      'nothing is done. With `dry_run=true` nothing is done, and the answer says what would be.',
    answer: orDryRun(
      action(
        200,
        'Integration deleted successfully',
        deletedIntegrationSchema,
        presentDeletedIntegration(exampleState),
        ['Integration deleted successfully'],
      ),
      action(200, 'Integration would not be deleted', previewSchema, previewExample, [
        'Integration would be deleted',
        'Integration would not be deleted',
      ]),
    ),
    headers: ['X-Reassigned-Count', 'X-Removed-Count'],
    problems: [
      'integration_not_found',
      'integration_in_use',
      'phone_number_assigned',
      'invalid_reassign_target',
      'too_many_references',
      'too_many_to_verify',
      'credentials_missing',
      'credentials_refused',
      'verification_limited',
      'quota_exceeded',
    ],
  },
};
