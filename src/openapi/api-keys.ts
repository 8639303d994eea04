import * as z from 'zod';
import { presentApiKey } from '../worker/api-keys/api-key.ts';
import type { ApiKey } from '../worker/api-keys/api-key.ts';
import { newApiKey } from '../worker/api-keys/create.ts';
import { rotation } from '../worker/api-keys/rotate.ts';
import { rolesHolding } from '../worker/core/permissions.ts';
import { keyStatuses, quotas, roles } from '../worker/core/vocabulary.ts';
import { described, named } from './json-schema.ts';
import { action, entity, id, page, time } from './operation.ts';
import type { Operations } from './operation.ts';
import { organizationExample, organizationSchema } from './organization.ts';

described(newApiKey, {
  role: 'Not higher than the role of the calling key.',
  expires_at: 'In the future, and not later than the expiry of the calling key, which is the default.',
});
described(rotation, { overlap_seconds: 'How long the old key still works, in seconds; at most 7 days.' });

const tag = 'API keys';

export const apiKeySchema = z
  .object({
    key_id: id('apikey'),
    name: z.string(),
    role: z.enum(roles),
    prefix: z.string().meta({ description: 'The first characters of the raw key.' }),
    client_id: z.string().meta({ description: 'The organization.' }),
    user_id: z.string(),
    status: z.enum(keyStatuses),
    created_at: time,
    last_used_at: time.nullable().meta({ description: 'Accurate to about a minute.' }),
    expires_at: time.nullable().meta({ description: 'Null for a key that does not expire.' }),
  })
  .meta({ id: 'ApiKey', title: 'API key' }) satisfies z.ZodType<ApiKey>;

export const apiKeyExample = presentApiKey({
  key_id: 'apikey_a1b2c3d4e5f6',
  organization_id: 'org_abc123',
  user_id: 'user_operator',
  name: 'Billing service',
  role: 'user',
  prefix: 'bk_live_x7Yp',
  status: 'active',
  created_at: 1_705_314_600,
  last_used_at: null,
  expires_at: null,
});

/** The schema of a raw key that only the first response has. */
export const rawKeySchema = z
  .string()
  .regex(/^bk_live_[0-9A-Za-z]{56}$/)
  .optional()
  .meta({ description: 'Only in the first response. Absent when the response is repeated for an `Idempotency-Key`.' });

// The last six characters are not the right checksum, so that scanners for leaked keys ignore this one.
export const rawKeyExample = `bk_live_x7Yp${'0'.repeat(52)}`;

const whoamiSchema = named(
  'Caller',
  z.object({
    organization: z.object({
      ...organizationSchema.shape,
      limits: z
        .object(Object.fromEntries(quotas.map((quota) => [quota, z.int().min(0)])))
        .meta({ description: 'How much the organization may have.' }),
      rate_limits: z
        .object({ period_seconds: z.int(), requests: z.int(), mutations: z.int() })
        .meta({ description: 'How many requests it may send in a period, and how many of them may be mutations.' }),
    }),
    key: z.object({
      key_id: id('apikey'),
      name: z.string(),
      role: z.enum(roles),
      permissions: z.array(z.enum(Object.keys(rolesHolding))),
      user_id: z.string(),
      expires_at: time.nullable().meta({ description: 'Null for a key that does not expire.' }),
    }),
  }),
);

export const apiKeyOperations: Operations = {
  'POST /api/api-keys': {
    operationId: 'createApiKey',
    tag,
    summary: 'Create an API key',
    description: 'The raw key is shown only in this response. We store only its SHA-256.',
    body: {
      name: 'NewApiKey',
      examples: {
        default: { name: 'Billing service', role: 'user' },
        expiring: { name: 'Contractor', role: 'agent_manager', expires_at: '2099-12-31T23:59:59Z' },
      },
    },
    answer: action(
      201,
      'API key created successfully',
      named('CreatedApiKey', z.object({ raw_key: rawKeySchema, key: apiKeySchema })),
      { raw_key: rawKeyExample, key: apiKeyExample },
    ),
    problems: ['quota_exceeded'],
  },
  'POST /api/api-keys/{key_id}/rotate': {
    operationId: 'rotateApiKey',
    tag,
    summary: 'Rotate an API key',
    description:
      'Makes a new key with the same name, user, role and expiry. The old key, `previous_key`, works until the overlap ends or ' +
      'until its own expiry, whichever is sooner. A key can rotate keys of its own user; an admin’s key can rotate any.',
    body: { name: 'ApiKeyRotation', examples: { default: { overlap_seconds: 3600 } } },
    answer: action(
      201,
      'API key rotated successfully',
      named('RotatedApiKey', z.object({ raw_key: rawKeySchema, key: apiKeySchema, previous_key: apiKeySchema })),
      {
        raw_key: rawKeyExample,
        key: apiKeyExample,
        previous_key: {
          ...apiKeyExample,
          key_id: 'apikey_0f1e2d3c4b5a',
          prefix: 'bk_live_9aQz',
          created_at: '2023-12-15T10:30:00Z',
          expires_at: '2024-01-15T11:30:00Z',
        },
      },
    ),
    problems: ['api_key_not_found', 'api_key_inactive', 'quota_exceeded'],
  },
  'GET /api/whoami': {
    operationId: 'whoAmI',
    tag,
    summary: 'Get the calling key and its organization',
    description: 'It takes `X-API-Key` alone.',
    answer: entity(whoamiSchema, {
      organization: {
        ...organizationExample,
        limits: {
          integrations: 500,
          phone_numbers: 20_000,
          unconfirmed_numbers: 1000,
          api_keys: 1000,
          audit_events: 400_000,
        },
        rate_limits: { period_seconds: 10, requests: 500, mutations: 100 },
      },
      key: {
        key_id: apiKeyExample.key_id,
        name: apiKeyExample.name,
        role: apiKeyExample.role,
        permissions: ['integrations:read', 'phone_numbers:read'],
        user_id: apiKeyExample.user_id,
        expires_at: null,
      },
    }),
  },
  'GET /api/api-keys': {
    operationId: 'listApiKeys',
    tag,
    summary: 'List API keys',
    description: 'Oldest first, including revoked and expired keys.',
    answer: page(apiKeySchema, apiKeyExample),
  },
  'GET /api/api-keys/{key_id}': {
    operationId: 'getApiKey',
    tag,
    summary: 'Get an API key',
    answer: entity(apiKeySchema, apiKeyExample),
    problems: ['api_key_not_found'],
  },
  'PUT /api/api-keys/{key_id}': {
    operationId: 'updateApiKey',
    tag,
    summary: 'Rename an API key',
    description: 'The key must not have a higher role than the calling key. It may be revoked or expired.',
    body: { name: 'ApiKeyChanges', examples: { default: { name: 'Billing service' } } },
    answer: action(200, 'API key updated successfully', apiKeySchema, apiKeyExample),
    problems: ['api_key_not_found', 'quota_exceeded'],
  },
  'DELETE /api/api-keys/{key_id}': {
    operationId: 'revokeApiKey',
    tag,
    summary: 'Revoke an API key',
    description:
      'From then on the key can change nothing, and it can read for at most 60 seconds. Revoking it again has no effect. ' +
      'With `descendants=true`, the keys that it created are revoked too, even if the key itself no longer works.',
    answer: action(
      200,
      'API key revoked successfully',
      named(
        'RevokedApiKey',
        apiKeySchema.extend({
          revoked_descendants: z
            .array(apiKeySchema)
            .optional()
            .meta({ description: 'With `descendants=true`: the other keys that were revoked.' }),
        }),
      ),
      { ...apiKeyExample, status: 'revoked' },
    ),
    problems: ['api_key_not_found'],
  },
};
