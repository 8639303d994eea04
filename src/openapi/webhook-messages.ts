/** What is sent to webhook endpoints: the `webhooks` of the document. */
import * as z from 'zod';
import { webhookEventTypes } from '../worker/core/vocabulary.ts';
import { apiKeySchema } from './api-keys.ts';
import { actorSchema, auditEventExample, changesSchema } from './audit-events.ts';
import { integrationExample, integrationSchema } from './integrations.ts';
import type { JsonObject, Schemas } from './json-schema.ts';
import { id, time } from './operation.ts';
import { organizationSchema } from './organization.ts';
import { phoneNumberSchema } from './phone-numbers.ts';
import { webhookEndpointExample } from './webhooks.ts';

const message = {
  created_at: time,
  organization_id: z.string(),
};

const eventSchema = z
  .object({
    id: z.uuidv7().meta({
      description: 'The `event_id` of the audit event, the same in every attempt: whoever has seen it ignores it.',
    }),
    type: z.enum(webhookEventTypes).meta({ description: 'The `action` of the audit event.' }),
    ...message,
    data: z
      .object({
        target_id: z.string(),
        state: z.union([integrationSchema, phoneNumberSchema, apiKeySchema, organizationSchema]),
        changes: changesSchema.optional(),
        actor: actorSchema,
      })
      .meta({ description: 'As in the audit event.' }),
  })
  .meta({ id: 'WebhookEvent' });

const testSchema = z
  .object({
    id: z.uuid(),
    type: z.literal('webhook_endpoint.test'),
    ...message,
    data: z.object({ target_id: id('whep').meta({ description: 'The webhook endpoint.' }) }),
  })
  .meta({ id: 'WebhookTest' });

const { event_id, client_id, target_id, actor, created_at } = auditEventExample;

const eventExample: z.output<typeof eventSchema> = {
  id: event_id,
  type: 'integration.deleted',
  created_at,
  organization_id: client_id,
  data: { target_id, state: integrationExample, actor },
};

const testExample: z.output<typeof testSchema> = {
  id: '26e0718a-cc31-4b5b-8be4-4946ebdcbd1c',
  type: 'webhook_endpoint.test',
  created_at: webhookEndpointExample.created_at,
  organization_id: webhookEndpointExample.client_id,
  data: { target_id: webhookEndpointExample.endpoint_id },
};

const headers = [
  {
    name: 'webhook-id',
    in: 'header',
    required: true,
    description: 'The `id` of the message.',
    schema: { type: 'string', format: 'uuid' },
  },
  {
    name: 'webhook-timestamp',
    in: 'header',
    required: true,
    description: 'When this attempt was made, in unix seconds. Refuse what is older than 5 minutes.',
    schema: { type: 'string', pattern: '^\\d+$' },
  },
  {
    name: 'webhook-signature',
    in: 'header',
    required: true,
    description:
      'Signatures of Standard Webhooks, separated by spaces: `v1,` and the base64 of an HMAC-SHA256 of ' +
      '`{webhook-id}.{webhook-timestamp}.{body}`. During the overlap of a rotation there are two.',
    schema: { type: 'string', pattern: '^v1,[A-Za-z0-9+/]{43}=( v1,[A-Za-z0-9+/]{43}=)*$' },
  },
];

/** The webhooks of the document: messages that the service sends, and what it takes for a success. */
export function webhooks(components: Schemas): JsonObject {
  const sent = (
    operationId: string,
    summary: string,
    description: string,
    { schema, example }: { schema: z.ZodType; example: object },
  ) => ({
    post: {
      operationId,
      tags: ['Webhook endpoints'],
      summary,
      description,
      security: [],
      parameters: headers,
      requestBody: { required: true, content: { 'application/json': { schema: components.add(schema), example } } },
      responses: { '2XX': { description: 'Received. Anything else is a failure, redirects too.' } },
    },
  });
  return {
    event: sent('receiveEvent', 'An event', 'Sent at least once, in no promised order. Answer within 10 seconds.', {
      schema: eventSchema,
      example: eventExample,
    }),
    test: sent(
      'receiveTest',
      'A test',
      'Whether the URL can be reached, and its receiver knows the secret. Until it has answered one, an endpoint gets nothing else.',
      { schema: testSchema, example: testExample },
    ),
  };
}
