import * as z from 'zod';
import { auditActions, deliveryStatuses, webhookEventPatterns } from '../worker/core/vocabulary.ts';
import { newEndpoint } from '../worker/webhooks/create.ts';
import { deliveriesQuery } from '../worker/webhooks/deliveries.ts';
import { presentDelivery } from '../worker/webhooks/delivery.ts';
import type { WebhookDelivery } from '../worker/webhooks/delivery.ts';
import { presentEndpoint } from '../worker/webhooks/endpoint.ts';
import type { WebhookEndpoint } from '../worker/webhooks/endpoint.ts';
import { replayQuery } from '../worker/webhooks/replay.ts';
import { secretRotation } from '../worker/webhooks/rotate.ts';
import { endpointChanges } from '../worker/webhooks/update.ts';
import { described, named } from './json-schema.ts';
import { action, entity, id, page, time } from './operation.ts';
import type { Operations } from './operation.ts';

const url =
  'Where events are sent, by POST. It begins with `https://`, has port 443 or one above 1023, no user, no password and no ' +
  'fragment, and its host is neither this API nor an address or a name of a private network.';
const events = 'The types of events that it gets: each by its name, all of a subject (`integration.*`), or all (`*`).';

described(newEndpoint, {
  url,
  events,
  description: 'For people.',
  enabled: 'Whether events are sent to it.',
});
described(endpointChanges, {
  url: `${url} Another URL gets events once it has answered a test.`,
  events,
  enabled: 'Whether events are sent to it. While it is disabled they wait, as long as audit events are kept.',
});
described(secretRotation, {
  overlap_seconds: 'How long messages are signed with the old secret too, in seconds; at most 7 days.',
});
described(replayQuery, { since: 'The events at this time or later are sent once more. It must not be in the future.' });
described(deliveriesQuery, { status: 'Only deliveries in this state.' });

const tag = 'Webhook endpoints';

export const webhookEndpointSchema = z
  .object({
    endpoint_id: id('whep'),
    client_id: z.string().meta({ description: 'The organization.' }),
    url: z.string(),
    description: z.string().nullable(),
    events: z.array(z.enum(webhookEventPatterns)).meta({ description: events }),
    enabled: z.boolean().meta({ description: 'Also false after it has failed for 5 days.' }),
    verified_at: time.nullable().meta({
      description: 'When its URL answered a test first. Null: it has not, and gets no events until then.',
    }),
    last_test: z
      .object({
        succeeded: z.boolean().meta({ description: 'Whether it answered with 2xx.' }),
        response_status: z.int().nullable().meta({ description: 'Null: there was no answer.' }),
        duration_ms: z.int().nullable(),
        error: z.string().nullable().meta({ description: 'A sentence for people; null after a success.' }),
        tested_at: time,
      })
      .nullable(),
    delivered_until: time.meta({
      description: 'All events before this time have been tried. Those that failed are among the deliveries.',
    }),
    last_delivered_at: time.nullable().meta({ description: 'When it last answered an event with 2xx.' }),
    failing_since: time.nullable().meta({ description: 'Null if the last attempt succeeded.' }),
    last_error: z
      .string()
      .nullable()
      .meta({ description: 'What failed in the last attempt, as a sentence for people; null if it succeeded.' }),
    created_at: time,
    updated_at: time,
  })
  .meta({ id: 'WebhookEndpoint', title: 'Webhook endpoint' }) satisfies z.ZodType<WebhookEndpoint>;

export const webhookEndpointExample = presentEndpoint({
  endpoint_id: 'whep_a1b2c3d4e5f6',
  organization_id: 'org_abc123',
  url: 'https://routing.example.com/patchbay',
  description: 'Call routing',
  events: JSON.stringify(['integration.*', 'phone_number.*']),
  enabled: 1,
  created_at: 1_705_314_600,
  updated_at: 1_705_314_660,
  verified_at: 1_705_314_660,
  tested_at: 1_705_314_660,
  test_response_status: 204,
  test_duration_ms: 85,
  test_error: null,
  cursor_at: 1_705_318_200,
  last_delivered_at: 1_705_318_200,
  failing_since: null,
  last_error: null,
});

const newEndpointExample: WebhookEndpoint = {
  ...webhookEndpointExample,
  verified_at: null,
  last_test: null,
  delivered_until: '2024-01-15T10:30:00Z',
  last_delivered_at: null,
  updated_at: '2024-01-15T10:30:00Z',
};

export const webhookDeliverySchema = z
  .object({
    delivery_id: id('whdel'),
    endpoint_id: id('whep'),
    event_id: z.uuidv7().meta({ description: 'Of the audit event: the `id` of the message.' }),
    event_type: z.enum(auditActions),
    status: z.enum(deliveryStatuses).meta({
      description:
        '`retrying`: the last attempt failed, and there will be another. `dead`: attempts failed for 3 days, and there is ' +
        'none any more.',
    }),
    attempts: z.int().min(1),
    created_at: time.meta({ description: 'The time of the first attempt.' }),
    attempted_at: time.meta({ description: 'The time of the last attempt.' }),
    next_attempt_at: time.nullable().meta({ description: 'Not before this time. Null unless `retrying`.' }),
    response_status: z.int().nullable().meta({ description: 'Of the last attempt. Null: there was no answer.' }),
    response_body: z
      .string()
      .nullable()
      .meta({ description: 'The first 1 KiB of the last answer. Always null in audit events.' }),
    duration_ms: z.int().meta({ description: 'Of the last attempt.' }),
    last_error: z.string().nullable().meta({ description: 'A sentence for people; null after a success.' }),
  })
  .meta({ id: 'WebhookDelivery', title: 'Webhook delivery' }) satisfies z.ZodType<WebhookDelivery>;

export const webhookDeliveryExample = presentDelivery({
  delivery_id: 'whdel_a1b2c3d4e5f6',
  endpoint_id: webhookEndpointExample.endpoint_id,
  event_id: '018d0cab-c440-7abc-9def-0123456789ab',
  event_type: 'integration.deleted',
  status: 'retrying',
  attempts: 2,
  created_at: 1_705_314_600,
  attempted_at: 1_705_314_606,
  next_attempt_at: 1_705_314_628,
  response_status: 500,
  response_body: 'Internal Server Error',
  duration_ms: 120,
  last_error: 'The answer had status 500.',
});

/** The schema of a secret that only the first response has. */
const secretSchema = z
  .string()
  .regex(/^whsec_[A-Za-z0-9+/]{43}=$/)
  .optional()
  .meta({
    description:
      'Verifies the signatures of messages. Only in the first response. Absent when the response is repeated for an ' +
      '`Idempotency-Key`.',
  });

const secretExample = `whsec_${'0'.repeat(43)}=`;

export const webhookOperations: Operations = {
  'POST /api/webhook-endpoints': {
    operationId: 'createWebhookEndpoint',
    tag,
    summary: 'Create a webhook endpoint',
    description:
      'The secret is shown only in this response. The endpoint gets the events that follow, once it has answered a test with ' +
      '2xx. An organization can have 10.',
    body: {
      name: 'NewWebhookEndpoint',
      examples: {
        default: {
          url: webhookEndpointExample.url,
          events: webhookEndpointExample.events,
          description: webhookEndpointExample.description,
        },
        everything: { url: 'https://hooks.example.com:8443/events?from=patchbay', events: ['*'], enabled: false },
      },
    },
    answer: action(
      201,
      'Webhook endpoint created successfully',
      named('CreatedWebhookEndpoint', z.object({ secret: secretSchema, endpoint: webhookEndpointSchema })),
      { secret: secretExample, endpoint: newEndpointExample },
    ),
    problems: ['quota_exceeded'],
  },
  'GET /api/webhook-endpoints': {
    operationId: 'listWebhookEndpoints',
    tag,
    summary: 'List webhook endpoints',
    description: 'Oldest first, including disabled ones.',
    answer: page(webhookEndpointSchema, webhookEndpointExample),
  },
  'GET /api/webhook-endpoints/{endpoint_id}': {
    operationId: 'getWebhookEndpoint',
    tag,
    summary: 'Get a webhook endpoint',
    answer: entity(webhookEndpointSchema, webhookEndpointExample),
    problems: ['webhook_endpoint_not_found'],
  },
  'PUT /api/webhook-endpoints/{endpoint_id}': {
    operationId: 'updateWebhookEndpoint',
    tag,
    summary: 'Update a webhook endpoint',
    description: 'What waits for it is tried at once, however often it has failed before.',
    body: {
      name: 'WebhookEndpointChanges',
      examples: {
        default: { events: ['integration.deleted', 'phone_number.*'] },
        again: { enabled: true },
      },
    },
    answer: action(200, 'Webhook endpoint updated successfully', webhookEndpointSchema, {
      ...webhookEndpointExample,
      events: ['integration.deleted', 'phone_number.*'],
      updated_at: '2024-01-15T12:00:00Z',
    }),
    problems: ['webhook_endpoint_not_found', 'quota_exceeded'],
  },
  'DELETE /api/webhook-endpoints/{endpoint_id}': {
    operationId: 'deleteWebhookEndpoint',
    tag,
    summary: 'Delete a webhook endpoint',
    description: 'With its secrets and deliveries. A message that is under way may still arrive.',
    answer: action(200, 'Webhook endpoint deleted successfully', webhookEndpointSchema, webhookEndpointExample),
    problems: ['webhook_endpoint_not_found'],
  },
  'POST /api/webhook-endpoints/{endpoint_id}/rotate-secret': {
    operationId: 'rotateWebhookSecret',
    tag,
    summary: 'Rotate the secret of a webhook endpoint',
    description:
      'The new secret is shown only in this response. Until the overlap ends, messages are signed with the old one too. If ' +
      'the response is lost, rotate again: the old one of the rotation before still signs.',
    body: {
      name: 'WebhookSecretRotation',
      examples: { default: { overlap_seconds: 3600 } },
      refused: { overlap_seconds: -1 },
    },
    answer: action(
      201,
      'Webhook secret rotated successfully',
      named('RotatedWebhookSecret', z.object({ secret: secretSchema, endpoint: webhookEndpointSchema })),
      { secret: secretExample, endpoint: webhookEndpointExample },
    ),
    problems: ['webhook_endpoint_not_found', 'quota_exceeded'],
  },
  'POST /api/webhook-endpoints/{endpoint_id}/test': {
    operationId: 'testWebhookEndpoint',
    tag,
    summary: 'Test a webhook endpoint',
    description:
      'Sends a signed test, also to an endpoint that is disabled, and waits for the answer. `last_test` tells what came of it. ' +
      'An organization has 10 tests and replays a minute.',
    answer: action(200, 'Webhook endpoint answered the test', webhookEndpointSchema, webhookEndpointExample),
    problems: ['webhook_endpoint_not_found', 'quota_exceeded'],
  },
  'POST /api/webhook-endpoints/{endpoint_id}/replay': {
    operationId: 'replayWebhookEvents',
    tag,
    summary: 'Send events to a webhook endpoint once more',
    description:
      'All events from a time on that the endpoint asks for, with the same ids as before. They are sent after the response.',
    answer: action(202, 'Events will be sent again', webhookEndpointSchema, {
      ...webhookEndpointExample,
      delivered_until: '2024-01-15T10:45:00Z',
    }),
    problems: ['webhook_endpoint_not_found', 'quota_exceeded'],
  },
  'GET /api/webhook-endpoints/{endpoint_id}/deliveries': {
    operationId: 'listWebhookDeliveries',
    tag,
    summary: 'List the deliveries of a webhook endpoint',
    description: 'The events that failed, and the last 10 that succeeded, newest first. They are kept for 7 days.',
    answer: page(webhookDeliverySchema, webhookDeliveryExample),
    problems: ['webhook_endpoint_not_found'],
  },
  'POST /api/webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}/retry': {
    operationId: 'retryWebhookDelivery',
    tag,
    summary: 'Send one event to a webhook endpoint once more',
    description:
      'Whatever came of it before. It is sent after the response; to an endpoint that is disabled, once it is enabled.',
    answer: action(202, 'Event will be sent again', webhookDeliverySchema, {
      ...webhookDeliveryExample,
      next_attempt_at: '2024-01-15T10:30:08Z',
    }),
    problems: ['webhook_endpoint_not_found', 'webhook_delivery_not_found', 'quota_exceeded'],
  },
};
