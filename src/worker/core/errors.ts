/** Domain errors: they know codes, and nothing of HTTP (http/problem.ts does). */
import type { Permission } from './permissions.ts';
import type { Quota } from './vocabulary.ts';

/** A phone number that keeps an integration from being deleted. */
export interface Reference {
  phone_number_id: string;
  phone_number: string;
}

/** What each code tells beside its sentence: members of the answer's body. */
export interface ProblemMembers {
  missing_api_key: object;
  invalid_api_key: object;
  missing_organization_id: object;
  organization_mismatch: object;
  /** `exceeds`: what was asked for is above the key's own, whatever its permissions. */
  permission_denied: { required_permission: Permission; exceeds?: 'role' | 'expires_at' | 'user' };
  rate_limited: { retry_after_seconds: number };
  malformed_json: object;
  payload_too_large: object;
  unsupported_media_type: object;
  validation_failed: { errors: { path: string; message: string }[] };
  idempotency_key_reused: object;
  not_found: object;
  method_not_allowed: { allowed_methods: string[] };
  integration_not_found: object;
  integration_in_use: { references: Reference[]; reference_count: number; reference_count_exact: boolean };
  phone_number_not_found: object;
  phone_number_exists: object;
  /** An agent holds it. */
  phone_number_assigned: { assigned_agent_id: string };
  api_key_not_found: object;
  /** Revoked or expired: there is nothing to rotate. */
  api_key_inactive: object;
  /** The organization holds as much as it may. */
  quota_exceeded: { quota: Quota; limit: number };
  /** `not_done`: nothing of it happened. `unknown`: wholly done or not at all. */
  temporarily_unavailable: { outcome: 'not_done' | 'unknown' };
  internal_error: object;
}

export type ProblemCode = keyof ProblemMembers;

/** An error that the client is told about, by its code. */
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

/** One value that is not valid, and why. */
export function invalid(path: string, message: string): DomainError {
  return new DomainError('validation_failed', { errors: [{ path, message }] });
}
