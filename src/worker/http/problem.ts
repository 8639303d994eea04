/** Maps the codes of domain errors to answers (RFC 9457). */
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import type { DomainError, ProblemCode, ProblemMembers, Reference, TargetFault } from '../core/errors.ts';
import { sentenceOf } from '../core/parse.ts';
import { spread } from '../core/retry.ts';

interface Answer<Members> {
  status: ContentfulStatusCode;
  title: string;
  detail: string | ((members: Members) => string);
  headers?: (members: Members) => Record<string, string>;
}

const quotaNames: Record<ProblemMembers['quota_exceeded']['quota'], string> = {
  integrations: 'integrations',
  phone_numbers: 'phone numbers',
  unconfirmed_numbers: 'unconfirmed phone numbers',
  api_keys: 'active API keys',
  audit_events: 'audit events',
  webhook_endpoints: 'webhook endpoints',
};

const exceedsDetails = {
  role: 'An API key cannot create, rename, rotate or revoke a key that has a higher role than its own.',
  expires_at: 'An API key cannot create or rotate a key that expires later than itself.',
  user: 'An API key can rotate only keys of its own user, unless its role is admin.',
};

const preconditionDetails = {
  'If-Match':
    'The resource has changed: its ETag is none of those in If-Match. Nothing was done. Read the resource again, and send its new ETag.',
  expect_references:
    'Another number of phone numbers uses the integration than expect_references says. Nothing was done. Preview the deletion again, with ?dry_run=true.',
};

const withCode = (provider_code: string | null) => (provider_code === null ? '' : ` (its code is ${provider_code})`);

const targetDetails: Record<TargetFault, string> = {
  integration_not_found: 'There is no integration with the id in reassign_to in this organization.',
  same_integration: 'The integration in reassign_to is the one that is to be deleted. Name another.',
  other_provider: 'The integration in reassign_to must be of the same provider as the one that is to be deleted.',
  phone_number_not_in_account:
    'The account of the integration in reassign_to does not hold all phone numbers. With ?verify=false the account is not asked, and they stay unconfirmed.',
};

/** The numbers as the end of a detail. */
const namesOf = (phone_numbers: Reference[]) =>
  phone_numbers.length === 0 ? '' : ` These are: ${quoted(phone_numbers)}.`;

const quoted = (phone_numbers: Reference[]) =>
  `[${phone_numbers.map(({ phone_number }) => `'${phone_number}'`).join(', ')}]`;

const UNAVAILABLE_SECONDS = 3;

// RFC 9110 §11.6.1 requires a challenge with every 401.
const challenge = () => ({ 'WWW-Authenticate': 'ApiKey realm="patchbay"' });
const operatorChallenge = () => ({ 'WWW-Authenticate': 'Bearer realm="patchbay operators"' });

const retryAfter = ({ retry_after_seconds }: { retry_after_seconds: number }) => ({
  'Retry-After': String(retry_after_seconds),
});

const answers: { [Code in ProblemCode]: Answer<ProblemMembers[Code]> } = {
  missing_api_key: {
    status: 401,
    title: 'API key is missing',
    detail: 'Send your API key in the X-API-Key header.',
    headers: challenge,
  },
  invalid_api_key: {
    status: 401,
    title: 'API key is not valid',
    detail: 'The API key in the X-API-Key header is not valid.',
    headers: challenge,
  },
  missing_organization_id: {
    status: 400,
    title: 'Organization id is missing',
    detail: 'Send your organization id (org_…) in the X-Organization-Id header.',
  },
  invalid_organization_id: {
    status: 400,
    title: 'Organization id is not valid',
    detail:
      'The X-Organization-Id header must be org_ followed by 1 to 40 of A–Z, a–z, 0–9, _ and -, and nothing else.',
  },
  organization_mismatch: {
    status: 403,
    title: 'Organization does not match the API key',
    detail: 'The API key does not belong to the organization in the X-Organization-Id header.',
  },
  permission_denied: {
    status: 403,
    title: 'Permission denied',
    detail: ({ required_permission, exceeds }) =>
      exceeds ? exceedsDetails[exceeds] : `The API key's role does not have the permission ${required_permission}.`,
  },
  rate_limited: {
    status: 429,
    title: 'Too many requests',
    detail: ({ retry_after_seconds }) => `Too many requests. Try again in ${retry_after_seconds} seconds.`,
    headers: retryAfter,
  },
  malformed_json: {
    status: 400,
    title: 'Body is not JSON',
    detail: 'The body of the request is not well-formed JSON.',
  },
  payload_too_large: {
    status: 413,
    title: 'Body is too large',
    detail: 'The body of the request is larger than 64 KiB.',
  },
  unsupported_media_type: {
    status: 415,
    title: 'Content type is not supported',
    detail: 'Send the body as JSON in UTF-8, not compressed: Content-Type: application/json, and no Content-Encoding.',
  },
  validation_failed: {
    status: 422,
    title: 'Request is not valid',
    detail: ({ errors }) => `The request is not valid: ${sentenceOf(errors)}`,
  },
  idempotency_key_reused: {
    status: 422,
    title: 'Idempotency-Key was used for another request',
    detail: 'This Idempotency-Key was used for another request. Use a new key for each new request.',
  },
  not_found: {
    status: 404,
    title: 'Not found',
    detail: 'There is nothing at this path.',
  },
  method_not_allowed: {
    status: 405,
    title: 'Method is not allowed',
    detail: ({ allowed_methods }) => `This path answers to ${allowed_methods.join(', ')}.`,
    headers: ({ allowed_methods }) => ({ Allow: allowed_methods.join(', ') }),
  },
  integration_not_found: {
    status: 404,
    title: 'Integration not found',
    detail: 'There is no such integration in this organization.',
  },
  precondition_failed: {
    status: 412,
    title: 'Precondition failed',
    detail: ({ precondition }) => preconditionDetails[precondition],
  },
  integration_in_use: {
    status: 409,
    title: 'Integration is in use',
    detail: inUseDetail,
  },
  invalid_reassign_target: {
    status: 422,
    title: 'Integration cannot get the phone numbers',
    detail: ({ reason, phone_numbers }) => targetDetails[reason] + namesOf(phone_numbers),
  },
  credentials_refused: {
    status: 422,
    title: 'Credentials are refused',
    detail: ({ provider_code }) =>
      `The provider refused the credentials${withCode(provider_code)}. Nothing was stored. Correct them; a call that takes ?verify=false can be sent without asking the provider.`,
  },
  credentials_limited: {
    status: 422,
    title: 'Credentials are limited',
    detail: ({ provider_code }) =>
      `The provider knows the credentials, but does not permit this call${withCode(provider_code)}: they are restricted, or the account is suspended.`,
  },
  provider_unavailable: {
    status: 502,
    title: 'Provider is unavailable',
    detail: 'The provider did not answer, or not as documented. Nothing was changed. Try again later.',
  },
  provider_account_differs: {
    status: 409,
    title: 'Credentials are of another account',
    detail: ({ account_hint }) =>
      `Phone numbers use this integration, and the credentials are of another account than ${account_hint}. Reassign or remove the numbers first, or create another integration.`,
  },
  verification_limited: {
    status: 429,
    title: 'Too many refused credentials',
    detail: ({ retry_after_seconds }) =>
      `Providers refused too many credentials of this organization. Its credentials can be checked again in ${retry_after_seconds} seconds.`,
    headers: retryAfter,
  },
  credentials_missing: {
    status: 409,
    title: 'Credentials are missing',
    detail: 'The credentials of this integration were lost. Send them again, with PUT.',
  },
  phone_number_exists: {
    status: 409,
    title: 'Phone number exists',
    detail: 'This phone number has already been imported.',
  },
  phone_number_not_found: {
    status: 404,
    title: 'Phone number not found',
    detail: 'There is no such phone number in this organization.',
  },
  phone_number_not_in_account: {
    status: 422,
    title: 'Phone number is not in the account',
    detail:
      'The account of the integration does not hold this phone number. With ?verify=false the account is not asked, and the number stays unconfirmed.',
  },
  phone_numbers_not_imported: {
    status: 422,
    title: 'No phone number was imported',
    detail: 'None of the phone numbers was imported. data.results says why, for each of them.',
  },
  phone_numbers_not_updated: {
    status: 422,
    title: 'No phone number was updated',
    detail: 'None of the phone numbers was updated, because some of them cannot be. data.results says which, and why.',
  },
  phone_numbers_not_deleted: {
    status: 409,
    title: 'No phone number was deleted',
    detail: 'None of the phone numbers was deleted, because some of them cannot be. data.results says which, and why.',
  },
  too_many_references: {
    status: 422,
    title: 'Too many phone numbers',
    detail: ({ limit }) =>
      `More phone numbers use the integration than the ${limit} that one call can act on. Act on some of them first, by their ids.`,
  },
  too_many_to_verify: {
    status: 422,
    title: 'Too many phone numbers to verify',
    detail:
      'The account cannot be asked about so many phone numbers in one call. Nothing was done. Send fewer, or ?verify=false: then they stay unconfirmed.',
  },
  phone_number_assigned: {
    status: 409,
    title: 'Phone number is assigned',
    detail: ({ assigned_agent_id, phone_numbers }) =>
      phone_numbers
        ? `Phone numbers of the integration are assigned to agents. Unassign them first: set assigned_agent_id to null.${namesOf(phone_numbers)}`
        : `The phone number is assigned to agent '${assigned_agent_id}'. Unassign it first: set assigned_agent_id to null.`,
  },
  missing_operator_key: {
    status: 401,
    title: 'Operator key is missing',
    detail: 'Send your operator key in the Authorization header: Bearer bk_operator_…',
    headers: operatorChallenge,
  },
  invalid_operator_key: {
    status: 401,
    title: 'Operator key is not valid',
    detail: 'The operator key in the Authorization header is not valid.',
    headers: operatorChallenge,
  },
  operator_permission_denied: {
    status: 403,
    title: 'Permission denied',
    detail: ({ required_permission }) => `The operator key does not have the permission ${required_permission}.`,
  },
  organization_not_found: {
    status: 404,
    title: 'Organization not found',
    detail: 'There is no such organization.',
  },
  organization_exists: {
    status: 409,
    title: 'Organization exists',
    detail: ({ organization_id }) => `There is an organization ${organization_id} already.`,
  },
  organization_offboarded: {
    status: 409,
    title: 'Organization is offboarded',
    detail: 'The organization is offboarded, for good. Create another one.',
  },
  organization_not_suspended: {
    status: 409,
    title: 'Organization is not suspended',
    detail: 'Only a suspended organization can be offboarded. Suspend it first.',
  },
  phone_number_not_held: {
    status: 404,
    title: 'Phone number is not held',
    detail: 'No organization has this phone number, or not the one that organization_id names.',
  },
  api_key_not_found: {
    status: 404,
    title: 'API key not found',
    detail: 'There is no such API key in this organization.',
  },
  api_key_inactive: {
    status: 409,
    title: 'API key is not active',
    detail: 'The API key has been revoked or has expired. Create a new one.',
  },
  webhook_endpoint_not_found: {
    status: 404,
    title: 'Webhook endpoint not found',
    detail: 'There is no such webhook endpoint in this organization.',
  },
  webhook_delivery_not_found: {
    status: 404,
    title: 'Webhook delivery not found',
    detail: 'There is no such delivery of this webhook endpoint. Successes are not kept for long.',
  },
  quota_exceeded: {
    status: 409,
    title: 'Quota is exceeded',
    detail: ({ quota, limit }) =>
      `The organization has reached its limit of ${limit} ${quotaNames[quota]}. Deleting and revoking still work.`,
  },
  temporarily_unavailable: {
    status: 503,
    title: 'Temporarily unavailable',
    detail: ({ outcome }) =>
      outcome === 'not_done'
        ? 'The service is temporarily unavailable. Nothing was done. Try again.'
        : 'The service is temporarily unavailable. The outcome is unknown: the request was done completely, or not at all.',
    headers: () => ({ 'Retry-After': String(spread(UNAVAILABLE_SECONDS)) }),
  },
  internal_error: {
    status: 500,
    title: 'Internal error',
    detail: 'Something went wrong on our side.',
  },
};

/** The contract fixes this sentence to the character (docs/contract.md, DELETE /api/integrations/{integration_id}). */
function inUseDetail({
  references,
  reference_count,
  reference_count_exact,
}: ProblemMembers['integration_in_use']): string {
  const unnamed = reference_count - references.length;
  const more = unnamed > 0 ? ` and ${reference_count_exact ? '' : 'more than '}${unnamed} more` : '';
  return `Integration is still referenced by phone numbers: ${quoted(references)}${more}. Remove or reassign them first.`;
}

/** What is wrong, in a few words. */
export const titleOf = ({ code }: DomainError): string => answers[code].title;

/** What is wrong, as a sentence for people. */
export function detailOf<Code extends ProblemCode>({ code, members }: DomainError<Code>): string {
  const { detail } = answers[code];
  return typeof detail === 'string' ? detail : detail(members);
}

/** The status, headers and body of the answer to a domain error. */
export function problemAnswer<Code extends ProblemCode>(error: DomainError<Code>, request_id: string) {
  const { status, title, headers } = answers[error.code];
  const body = {
    type: `urn:patchbay:problem:${error.code}`,
    title,
    status,
    code: error.code,
    detail: detailOf(error),
    ...error.members,
    request_id,
  };
  return {
    status,
    headers: { ...headers?.(error.members), 'Content-Type': 'application/problem+json' },
    body,
  };
}
