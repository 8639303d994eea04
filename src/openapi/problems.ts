/** The problems in the document: the members of each code, and an example that the Worker's own map makes. */
import * as z from 'zod';
import { DomainError, preconditions, targetFaults } from '../worker/core/errors.ts';
import type { ProblemCode, ProblemMembers } from '../worker/core/errors.ts';
import { operatorPermissions, rolesHolding } from '../worker/core/permissions.ts';
import { quotas } from '../worker/core/vocabulary.ts';
import { detailOf, problemAnswer } from '../worker/http/problem.ts';
import { actResultsSchema, failedResult, undoneResult } from './act-results.ts';
import { importResultsSchema } from './import-results.ts';
import { agentId, id } from './operation.ts';

const REQUEST_ID = '26e0718a-cc31-4b5b-8be4-4946ebdcbd1c';

const none = { members: {}, example: {} };

const permissions = Object.keys(rolesHolding);

const referenceSchema = z.object({ phone_number_id: id('phon'), phone_number: z.string() });
const reference = { phone_number_id: 'phon_a1b2c3d4e5f6', phone_number: '+1234567890' };

const problems: { [Code in ProblemCode]: { members: z.ZodRawShape; example: ProblemMembers[Code] } } = {
  missing_api_key: none,
  invalid_api_key: none,
  missing_organization_id: none,
  invalid_organization_id: none,
  organization_mismatch: none,
  permission_denied: {
    members: {
      required_permission: z.enum(permissions),
      exceeds: z.enum(['role', 'expires_at', 'user']).optional().meta({
        description: 'The key has the permission, but the request goes beyond the key’s own role, expiry or user.',
      }),
    },
    example: { required_permission: 'integrations:delete' },
  },
  rate_limited: { members: { retry_after_seconds: z.int() }, example: { retry_after_seconds: 10 } },
  malformed_json: none,
  payload_too_large: none,
  unsupported_media_type: none,
  validation_failed: {
    members: {
      errors: z.array(z.object({ path: z.string(), message: z.string() })).meta({
        description:
          '`path` is a dotted path into the body, or the name of a parameter or header. It is empty for the body or the query ' +
          'string as a whole.',
      }),
    },
    example: { errors: [{ path: 'name', message: 'is required' }] },
  },
  idempotency_key_reused: none,
  not_found: none,
  method_not_allowed: {
    members: { allowed_methods: z.array(z.string()) },
    example: { allowed_methods: ['GET', 'HEAD'] },
  },
  integration_not_found: none,
  credentials_refused: {
    members: {
      provider_status: z.int().nullable().meta({ description: 'The HTTP status that the provider answered with.' }),
      provider_code: z.string().nullable().meta({ description: 'The provider’s own code of the error.' }),
    },
    example: { provider_status: 401, provider_code: '20003' },
  },
  credentials_limited: {
    members: {
      provider_status: z.int().nullable().meta({ description: 'The HTTP status that the provider answered with.' }),
      provider_code: z.string().nullable().meta({ description: 'The provider’s own code of the error.' }),
    },
    example: { provider_status: 403, provider_code: '20003' },
  },
  provider_unavailable: none,
  provider_account_differs: {
    members: { account_hint: z.string().nullable().meta({ description: 'Of the account that the integration has.' }) },
    example: { account_hint: 'AC…89ef' },
  },
  verification_limited: { members: { retry_after_seconds: z.int() }, example: { retry_after_seconds: 3600 } },
  credentials_missing: none,
  precondition_failed: {
    members: { precondition: z.enum(preconditions) },
    example: { precondition: 'If-Match' },
  },
  integration_in_use: {
    members: {
      references: z.array(referenceSchema).max(100).meta({ description: 'The first 100 phone numbers, ascending.' }),
      reference_count: z.int().min(0).max(1000),
      reference_count_exact: z.boolean(),
      references_url: z.string().meta({ description: 'The path of the list of all of them.' }),
    },
    example: {
      references: [reference],
      reference_count: 1,
      reference_count_exact: true,
      references_url: '/api/integrations/intg_a1b2c3d4e5f6/references',
    },
  },
  invalid_reassign_target: {
    members: {
      reason: z.enum(targetFaults),
      phone_numbers: z
        .array(referenceSchema)
        .max(100)
        .meta({ description: 'The first 100 phone numbers that do not fit, ascending.' }),
    },
    example: { reason: 'phone_number_not_in_account', phone_numbers: [reference] },
  },
  too_many_references: { members: { limit: z.int() }, example: { limit: 10_000 } },
  too_many_to_verify: none,

  webhook_endpoint_not_found: none,
  webhook_delivery_not_found: none,
  phone_number_not_found: none,
  phone_number_exists: none,
  phone_number_not_in_account: none,
  phone_numbers_not_imported: {
    members: { data: importResultsSchema },
    example: {
      data: {
        results: [
          {
            phone_number: '+1234567890',
            status: 'failed',
            phone_number_id: null,
            code: 'phone_number_not_in_account',
            detail: detailOf(new DomainError('phone_number_not_in_account', {})),
          },
        ],
      },
    },
  },
  phone_numbers_not_updated: {
    members: { data: actResultsSchema },
    example: { data: { results: [undoneResult, failedResult(new DomainError('phone_number_not_in_account', {}))] } },
  },
  phone_numbers_not_deleted: {
    members: { data: actResultsSchema },
    example: {
      data: {
        results: [
          undoneResult,
          failedResult(new DomainError('phone_number_assigned', { assigned_agent_id: 'agent_a1b2c3d4e5f6' })),
        ],
      },
    },
  },
  phone_number_assigned: {
    members: {
      assigned_agent_id: agentId.meta({ description: 'Of the first phone number, if there are several.' }),
      phone_numbers: z
        .array(referenceSchema.extend({ assigned_agent_id: agentId }))
        .max(100)
        .optional()
        .meta({ description: 'Of a call that would delete several: the first 100 that agents hold, ascending.' }),
    },
    example: { assigned_agent_id: 'agent_a1b2c3d4e5f6' },
  },
  missing_operator_key: none,
  invalid_operator_key: none,
  operator_permission_denied: {
    members: { required_permission: z.enum(operatorPermissions) },
    example: { required_permission: 'organizations:create' },
  },
  organization_not_found: none,
  organization_exists: {
    members: { organization_id: z.string() },
    example: { organization_id: 'org_abc123' },
  },
  organization_offboarded: none,
  organization_not_suspended: none,
  phone_number_not_held: none,
  api_key_not_found: none,
  api_key_inactive: none,
  quota_exceeded: {
    members: { quota: z.enum([...quotas, 'webhook_endpoints']), limit: z.int().min(0) },
    example: { quota: 'integrations', limit: 50 },
  },
  temporarily_unavailable: {
    members: {
      outcome: z.enum(['not_done', 'unknown']).meta({
        description: '`not_done`: nothing was done. `unknown`: the request was done completely, or not at all.',
      }),
    },
    example: { outcome: 'not_done' },
  },
  internal_error: none,
};

/** Headers that only some answers with the code have, or that the middleware adds. */
const ofSome: { [Code in ProblemCode]?: string[] } = {
  rate_limited: ['RateLimit'],
  verification_limited: ['RateLimit'],
  unsupported_media_type: ['Accept-Encoding'],
};
/** `integration_in_use` as `IntegrationInUse`. */
export const pascalCase = (text: string) =>
  text.replaceAll(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** The status, title, schema and headers (without Content-Type) of a code, and an example with these members. */
export function describeProblem<Code extends ProblemCode>(
  code: Code,
  example: ProblemMembers[Code] = problems[code].example,
) {
  const { members } = problems[code];
  const { status, headers, body } = problemAnswer(new DomainError(code, example), REQUEST_ID);
  const exampleBody = z.looseObject({ title: z.string() }).parse(body);
  const schema = z
    .object({
      type: z.literal(`urn:patchbay:problem:${code}`),
      title: z.string(),
      status: z.literal(status),
      code: z.literal(code),
      detail: z.string().meta({ description: 'A sentence for people.' }),
      ...members,
      request_id: z.string(),
    })
    .meta({ id: `${pascalCase(code)}Problem`, title: exampleBody.title });
  const names = [...Object.keys(headers).filter((name) => name !== 'Content-Type'), ...(ofSome[code] ?? [])];
  return { code, status, title: exampleBody.title, headers: names, schema, example: exampleBody };
}
