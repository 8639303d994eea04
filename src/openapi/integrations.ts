import * as z from 'zod';
import { categories, integrationStatuses, providerNames } from '../worker/core/vocabulary.ts';
import { presentIntegration } from '../worker/integrations/integration.ts';
import type { Integration } from '../worker/integrations/integration.ts';
import { providerCredentials, providers } from '../worker/integrations/providers.ts';
import { named } from './json-schema.ts';
import { action, entity, id, page, time } from './operation.ts';
import type { Operations } from './operation.ts';

named('IntegrationCredentials', providerCredentials);
named('TelnyxCredentials', providers.telnyx.credentials, 'Telnyx');
named('VonageCredentials', providers.vonage.credentials, 'Vonage');
named('PlivoCredentials', providers.plivo.credentials, 'Plivo');

const tag = 'Integrations';

export const integrationSchema = z
  .object({
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
  })
  .meta({
    id: 'Integration',
    title: 'Integration',
    description: 'An account at a telephony provider. No answer contains its credentials.',
  }) satisfies z.ZodType<Integration>;

export const integrationExample = presentIntegration({
  integration_id: 'intg_a1b2c3d4e5f6',
  organization_id: 'org_abc123',
  name: 'Twilio Production',
  provider: 'twilio',
  category: 'telephony',
  status: 'active',
  created_at: 1_705_314_600,
  updated_at: 1_705_314_600,
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
    description: 'Stores a provider’s credentials, encrypted with their own key. No answer ever contains them.',
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
    problems: ['quota_exceeded'],
  },
  'GET /api/integrations': {
    operationId: 'listIntegrations',
    tag,
    summary: 'List integrations',
    description: 'Oldest first.',
    answer: page(integrationSchema, integrationExample),
  },
  'GET /api/integrations/{integration_id}': {
    operationId: 'getIntegration',
    tag,
    summary: 'Get an integration',
    answer: entity(integrationSchema, integrationExample),
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
    problems: ['integration_not_found', 'quota_exceeded'],
  },
  'DELETE /api/integrations/{integration_id}': {
    operationId: 'deleteIntegration',
    tag,
    summary: 'Delete an integration and its credentials',
    description:
      'Refused while phone numbers reference it: `detail` and `references` name the first 100 in ascending order. ' +
      'Reassign them with `PUT /api/phone-numbers/{phone_number_id}`, or delete them, and try again.',
    answer: action(200, 'Integration deleted successfully', integrationSchema, integrationExample),
    problems: ['integration_not_found', 'integration_in_use'],
  },
};
