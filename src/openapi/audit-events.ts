import * as z from 'zod';
import { REDACTED } from '../worker/audit/read.ts';
import type { AuditEvent } from '../worker/audit/read.ts';
import { actorTypes, auditActions, eventReasons } from '../worker/core/vocabulary.ts';
import { apiKeySchema } from './api-keys.ts';
import { integrationExample, integrationSchema } from './integrations.ts';
import { id, page, time } from './operation.ts';
import type { Operations } from './operation.ts';
import { organizationSchema } from './organization.ts';
import { phoneNumberSchema } from './phone-numbers.ts';
import { webhookDeliverySchema, webhookEndpointSchema } from './webhooks.ts';

export const actorSchema = z
  .object({
    type: z.enum(actorTypes).meta({
      description:
        '`api_key`: a key of the organization. `operator`: an operator key or a command. `service`: another Worker of the ' +
        'platform. `system`: a scheduled task.',
    }),
    id: z.string().nullable().meta({
      description: 'For an API key or an operator key, its id; for another service, its name. Null for a command.',
    }),
    name: z.string().nullable().meta({ description: 'The name at that time; null for events before 0.2.0.' }),
  })
  .meta({ description: 'Who did it.' });

/** What an update changed. */
export const changesSchema = z.record(z.string(), z.object({ from: z.unknown(), to: z.unknown() }));

export const auditEventSchema = z
  .object({
    event_id: z.uuidv7(),
    client_id: z.string().meta({ description: 'The organization.' }),
    action: z.enum(auditActions),
    outcome: z.enum(['succeeded', 'refused']),
    target_id: z.string(),
    actor: actorSchema,
    actor_key_id: id('apikey')
      .nullable()
      .meta({ description: 'The `actor.id`, if the actor is an API key; otherwise null.' }),
    request_id: z.string().meta({ description: 'The `X-Request-Id` of the call.' }),
    state: z
      .union([
        integrationSchema,
        phoneNumberSchema,
        apiKeySchema,
        organizationSchema,
        webhookEndpointSchema,
        webhookDeliverySchema,
      ])
      .meta({ description: 'The target just before; for a creation or an import, as it was created.' }),
    changes: changesSchema.nullable().meta({
      description:
        'For an update: each field of `state` that it changed, with the old and the new value. Replaced `credentials` are ' +
        `shown as \`${REDACTED}\`. Null for any other event.`,
    }),
    reason: z
      .enum(eventReasons)
      .nullable()
      .meta({
        description:
          'Why the service did it by itself. `ownership_confirmed_elsewhere`: the number was unconfirmed, and is in the account ' +
          'of somebody else. Null for what was asked for.',
      }),
    created_at: time,
  })
  .meta({ id: 'AuditEvent' }) satisfies z.ZodType<AuditEvent>;

export const auditEventExample: AuditEvent = {
  event_id: '018d0cab-c440-7abc-9def-0123456789ab',
  client_id: 'org_abc123',
  action: 'integration.deleted',
  outcome: 'succeeded',
  target_id: integrationExample.integration_id,
  actor: { type: 'api_key', id: 'apikey_a1b2c3d4e5f6', name: 'Billing service' },
  actor_key_id: 'apikey_a1b2c3d4e5f6',
  request_id: '26e0718a-cc31-4b5b-8be4-4946ebdcbd1c',
  state: integrationExample,
  changes: null,
  reason: null,
  created_at: '2024-01-15T10:30:00Z',
};

export const auditOperations: Operations = {
  'GET /api/audit-events': {
    operationId: 'listAuditEvents',
    tag: 'Audit',
    summary: 'List audit events',
    description:
      'What was done and which deletes were refused, in the order of the commits, oldest first. With `after`, the list can be ' +
      'followed as it grows.',
    answer: page(auditEventSchema, auditEventExample),
  },
};
