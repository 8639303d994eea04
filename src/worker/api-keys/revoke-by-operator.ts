import { and, eq } from 'drizzle-orm';
import { dropKeys } from '../callers/caller.ts';
import { DomainError } from '../core/errors.ts';
import { api_keys } from '../d1/schema.ts';
import type { OperatorCall } from '../decision/call.ts';
import { eventRecorder } from '../decision/event.ts';
import { mayOperate, operatorMutation, operatorParameters } from '../decision/operator.ts';
import type { OperatorParameters } from '../decision/operator.ts';
import { findStatus } from '../organizations/organization.ts';
import { findApiKey, isApiKey, presentApiKey } from './api-key.ts';
import type { ApiKey } from './api-key.ts';
import { revokeRecorded } from './revoke.ts';

interface RevokeParameters extends OperatorParameters {
  key_id: string;
}

const recordRevocation = eventRecorder<RevokeParameters>({
  table: api_keys,
  target_id: api_keys.key_id,
  action: 'api_key.revoked',
  where: (db, parameters) =>
    and(isApiKey(parameters), eq(api_keys.status, 'active'), mayOperate('keys:mint', db, parameters)),
});

const found = { organization: findStatus, key: findApiKey };

const decide = operatorMutation<RevokeParameters, typeof found>('keys:mint', {
  statements: [recordRevocation, revokeRecorded],
  found,
});

/**
 * Revokes an API key of an organization, whatever its role (docs/contract.md, Operators). From the commit on it can change
 * nothing. It can read until the caches have forgotten it, at most 60 s. Revoking a key again has no effect.
 *
 * @throws DomainError `organization_not_found`, `api_key_not_found`, and the errors of every operator's mutation
 *   (decision/operator.ts)
 */
export async function revokeApiKeyOf(call: OperatorCall, organization_id: string, key_id: string): Promise<ApiKey> {
  const answer = await decide(call, { ...operatorParameters(call, organization_id), key_id });
  const [key] = answer.found.key;
  if (!key)
    throw new DomainError(answer.found.organization.length > 0 ? 'api_key_not_found' : 'organization_not_found', {});
  dropKeys(call, [key.key_hash]);
  return presentApiKey(key);
}
