import type { Hono } from 'hono';
/**
 * The typed client, `patchbay/client`: Hono's `hc` with the types of the app. The published files import only Hono.
 */
import { hc } from 'hono/client';
import type { ClientRequestOptions } from 'hono/client';
import type { BlankEnv, ExtractSchema } from 'hono/types';
import type { app } from '../worker/app.ts';

/** A problem (RFC 9457): first the members that all problems have, then those of single codes. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  /** Stable. If several errors apply, it is the first in the order of docs/contract.md. */
  code:
    | 'missing_api_key'
    | 'invalid_api_key'
    | 'missing_organization_id'
    | 'invalid_organization_id'
    | 'organization_mismatch'
    | 'permission_denied'
    | 'rate_limited'
    | 'malformed_json'
    | 'payload_too_large'
    | 'unsupported_media_type'
    | 'validation_failed'
    | 'idempotency_key_reused'
    | 'not_found'
    | 'method_not_allowed'
    | 'integration_not_found'
    | 'integration_in_use'
    | 'phone_number_not_found'
    | 'phone_number_exists'
    | 'phone_number_assigned'
    | 'api_key_not_found'
    | 'api_key_inactive'
    | 'quota_exceeded'
    | 'temporarily_unavailable'
    | 'internal_error';
  /** A sentence for people. */
  detail: string;
  request_id: string;
  /** Of `permission_denied`. */
  required_permission?: string;
  exceeds?: 'role' | 'expires_at' | 'user';
  /** Of `rate_limited`. */
  retry_after_seconds?: number;
  /** Of `validation_failed`. */
  errors?: { path: string; message: string }[];
  /** Of `method_not_allowed`. */
  allowed_methods?: string[];
  /** Of `integration_in_use`: the first 100 phone numbers, and how many there are. */
  references?: { phone_number_id: string; phone_number: string }[];
  reference_count?: number;
  reference_count_exact?: boolean;
  /** Of `phone_number_assigned`. */
  assigned_agent_id?: string;
  /** Of `quota_exceeded`: which quota was reached, and its limit. */
  quota?: 'integrations' | 'phone_numbers' | 'sip_numbers' | 'api_keys' | 'audit_events';
  limit?: number;
  /** Of `temporarily_unavailable`. `not_done`: nothing was done. `unknown`: done completely, or not at all. */
  outcome?: 'not_done' | 'unknown';
}

type ProblemStatus = 400 | 401 | 403 | 404 | 409 | 413 | 415 | 422 | 429 | 500 | 503;

/** Hono derives a route's answers from its handler only. Any route may answer with a problem too. */
type OrProblem<Endpoint> = Endpoint extends { input: infer Input }
  ? Endpoint | { input: Input; output: Problem; outputFormat: 'json'; status: ProblemStatus }
  : never;

type WithProblems<Routes> = {
  [Path in keyof Routes]: { [Method in keyof Routes[Path]]: OrProblem<Routes[Path][Method]> };
};

type App = Hono<BlankEnv, WithProblems<ExtractSchema<typeof app>>>;

export interface Credentials {
  apiKey: string;
  organizationId: string;
}

/**
 * A client of the API at this address, with one method for each call:
 *
 * ```ts
 * const patchbay = patchbayClient('https://patchbay.example.com', { apiKey, organizationId });
 * const answer = await patchbay.api.integrations[':integration_id'].$delete({ param: { integration_id } });
 * if (answer.ok) console.log((await answer.json()).data.name);
 * else console.error((await answer.json()).detail);
 * ```
 */
export function patchbayClient(
  url: string,
  { apiKey, organizationId }: Credentials,
  options: Omit<ClientRequestOptions, 'headers'> = {},
) {
  return hc<App>(url, { ...options, headers: { 'X-API-Key': apiKey, 'X-Organization-Id': organizationId } });
}
