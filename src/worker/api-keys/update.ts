import { and, lte, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { dropKeys } from '../callers/caller.ts';
import { DomainError } from '../core/errors.ts';
import { isAbove } from '../core/permissions.ts';
import { visibleName } from '../core/text.ts';
import type { Quota } from '../core/vocabulary.ts';
import { newValues } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { api_keys } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { fromCallersKey, rankOf } from '../decision/caller.ts';
import { changesOf, decisionSaw, eventRecorder } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { isUnanswered } from '../decision/remembered-answers.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { apiKeyState, findApiKey, isApiKey, presentApiKey } from './api-key.ts';
import type { ApiKey } from './api-key.ts';

export const apiKeyChanges = z.lazy(() => z.strictObject({ name: visibleName(100) }));

interface UpdateParameters extends MutationParameters {
  key_id: string;
  name: string;
}

const quotas: Quota[] = ['audit_events'];

const newName = (parameters: Placeholders<UpdateParameters>) => newValues<keyof UpdateParameters>(parameters, ['name']);

/** The key's role must not be higher than the caller's. */
const recordRenaming = eventRecorder<UpdateParameters>({
  table: api_keys,
  target_id: api_keys.key_id,
  action: 'api_key.updated',
  where: (db, parameters) =>
    and(
      isApiKey(parameters),
      lte(rankOf(api_keys.role), fromCallersKey(rankOf(api_keys.role), 'api_keys:update', db, parameters)),
      isUnanswered(db, parameters),
      hasRoomFor(quotas),
    ),
  changes: newName,
});

const rename = query((db, parameters: Placeholders<UpdateParameters>) =>
  db
    .update(api_keys)
    .set({ ...newName(parameters), revision: sql`${api_keys.revision} + 1` })
    .where(and(isApiKey(parameters), decisionSaw(db, parameters, api_keys.revision))),
);

const decide = mutation('api_keys:update', {
  statements: [recordRenaming, rename],
  found: { key: findApiKey, full: fullQuota(quotas) },
});

/**
 * Renames an API key, also one that is revoked or expired (docs/contract.md, API keys). Caches may know the old name for 60 s.
 *
 * @returns the key after the update
 * @throws DomainError `api_key_not_found`, `permission_denied` for a key with a higher role than the caller's,
 *   `quota_exceeded`, and the errors of every mutation (decision/mutation.ts)
 */
export async function updateApiKey(
  call: ApiCall,
  key_id: string,
  { name }: z.output<typeof apiKeyChanges>,
): Promise<ApiKey> {
  const answer = await decide(call, { ...mutationParameters(call), key_id, name });
  const [key] = answer.found.key;
  if (answer.outcome === 'undecided') {
    if (!key) throw new DomainError('api_key_not_found', {});
    if (isAbove(key.role, answer.caller.role)) {
      throw new DomainError('permission_denied', { required_permission: 'api_keys:update', exceeds: 'role' });
    }
    assertRoom(answer.found.full);
    throw new DomainError('temporarily_unavailable', { outcome: 'not_done' });
  }
  if (key) dropKeys(call, [key.key_hash]);
  return presentApiKey(apiKeyState.parse({ ...JSON.parse(answer.event.state), ...changesOf(answer.event) }));
}
