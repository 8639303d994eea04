/** Domain errors. They have codes and know nothing of HTTP; http/problem.ts turns them into answers. */
import type { OperatorPermission, Permission } from './permissions.ts';
import type { Quota } from './vocabulary.ts';

/** What is wrong with a value. */
export interface Fault {
  /** A dotted path to the member, or the name of a parameter. Empty for the value as a whole. */
  path: string;
  /** What is wrong with what is at the path; or a sentence of its own, about unknown members. */
  message: string;
}

/** A phone number that keeps an integration from being deleted. */
export interface Reference {
  phone_number_id: string;
  phone_number: string;
}

/** A phone number that an agent holds. */
export interface AssignedReference extends Reference {
  assigned_agent_id: string;
}

/**
 * Why an integration cannot get the phone numbers of another: there is none in the organization, it is the same one, it is
 * of another provider, or its account does not hold all of them.
 */
export const targetFaults = [
  'integration_not_found',
  'same_integration',
  'other_provider',
  'phone_number_not_in_account',
] as const;
export type TargetFault = (typeof targetFaults)[number];

/** What a call may demand of the stored state: by its header or its parameter. */
export const preconditions = ['If-Match', 'expect_references'] as const;
export type Precondition = (typeof preconditions)[number];

/** What came of one number of a call that imports several. */
export interface NumberResult {
  phone_number: string;
  status: 'imported' | 'failed';
  /** Null if it failed. */
  phone_number_id: string | null;
  /** Why it failed: the code and the detail of the error. Null if it was imported. */
  code: ProblemCode | null;
  detail: string | null;
}

/** What came of one number of a call that acts on all its numbers, or on none. */
export interface ActResult {
  phone_number_id: string;
  /** Null if there is no such number. */
  phone_number: string | null;
  /** `not_done`: nothing stands against it, but something does against another number. */
  status: 'updated' | 'deleted' | 'failed' | 'not_done';
  /** Why it failed: the code and the detail of the error. Null if it did not. */
  code: ProblemCode | null;
  detail: string | null;
}

/** The members that each code adds to the body of its answer. */
export interface ProblemMembers {
  missing_api_key: object;
  invalid_api_key: object;
  missing_organization_id: object;
  invalid_organization_id: object;
  organization_mismatch: object;
  /** `exceeds`: the role has the permission, but the call asks for more than the key's own role, expiry or user. */
  permission_denied: { required_permission: Permission; exceeds?: 'role' | 'expires_at' | 'user' };
  rate_limited: { retry_after_seconds: number };
  malformed_json: object;
  payload_too_large: object;
  unsupported_media_type: object;
  validation_failed: { errors: Fault[] };
  idempotency_key_reused: object;
  not_found: object;
  method_not_allowed: { allowed_methods: string[] };
  integration_not_found: object;
  /** The provider answered 401, perhaps with a code of its own. */
  credentials_refused: { provider_status: number | null; provider_code: string | null };
  /** The provider knows the credentials, and does not permit the call. */
  credentials_limited: { provider_status: number | null; provider_code: string | null };
  /** The provider did not answer, or with something that says nothing. */
  provider_unavailable: object;
  /** The hint of the account that the integration has. */
  provider_account_differs: { account_hint: string | null };
  /** Too many credentials of this organization were refused by their providers. */
  verification_limited: { retry_after_seconds: number };
  /** A restore of the database could not bring the credentials back. */
  credentials_missing: object;
  integration_in_use: {
    references: Reference[];
    reference_count: number;
    reference_count_exact: boolean;
    /** The path of the list of all of them. */
    references_url: string;
  };
  /** The phone numbers are those that do not fit, at most 100. */
  invalid_reassign_target: { reason: TargetFault; phone_numbers: Reference[] };
  /** One call can act on so many phone numbers. */
  too_many_references: { limit: number };
  /** Calls to the provider are limited, and so many phone numbers would take more of them. */
  too_many_to_verify: object;
  /** What the request demanded of the stored state, and is not so. */
  precondition_failed: { precondition: Precondition };
  phone_number_not_found: object;
  phone_number_exists: object;
  /** The account of the integration does not hold the number. */
  phone_number_not_in_account: object;
  /** Of all numbers of a call, none was imported. */
  phone_numbers_not_imported: { data: { results: NumberResult[] } };
  /** Of all numbers of a call, none was changed, because of some of them. */
  phone_numbers_not_updated: { data: { results: ActResult[] } };
  phone_numbers_not_deleted: { data: { results: ActResult[] } };
  /** `phone_numbers`: of several, those that agents hold, at most 100. The agent is that of the first. */
  phone_number_assigned: { assigned_agent_id: string; phone_numbers?: AssignedReference[] };
  missing_operator_key: object;
  invalid_operator_key: object;
  operator_permission_denied: { required_permission: OperatorPermission };
  organization_not_found: object;
  organization_exists: { organization_id: string };
  /** It is offboarded, or being offboarded, for good. */
  organization_offboarded: object;
  /** Only a suspended organization can be offboarded. */
  organization_not_suspended: object;
  /** In the whole system. */
  phone_number_not_held: object;
  api_key_not_found: object;
  /** The key is revoked or expired, so it cannot be rotated. */
  api_key_inactive: object;
  webhook_endpoint_not_found: object;
  webhook_delivery_not_found: object;
  quota_exceeded: { quota: Quota | 'webhook_endpoints'; limit: number };
  /** `not_done`: nothing was done. `unknown`: the request was done completely, or not at all. */
  temporarily_unavailable: { outcome: 'not_done' | 'unknown' };
  internal_error: object;
}

export type ProblemCode = keyof ProblemMembers;

/** An error whose code the client sees. */
export class DomainError<Code extends ProblemCode = ProblemCode> extends Error {
  readonly code: Code;
  readonly members: ProblemMembers[Code];

  constructor(code: Code, members: ProblemMembers[Code], options?: ErrorOptions) {
    super(code, options);
    this.name = 'DomainError';
    this.code = code;
    this.members = members;
  }
}

/** Whether an error has this code, and so its members. */
export const isProblem = <Codes extends ProblemCode, Code extends Codes>(
  error: DomainError<Codes>,
  code: Code,
): error is DomainError<Code> => error.code === code;

/** The error for one value that is not valid. */
export function invalid(path: string, message: string): DomainError {
  return new DomainError('validation_failed', { errors: [{ path, message }] });
}
