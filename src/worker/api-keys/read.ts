import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { AFTER_ALL, keysetList, listParameters } from '../d1/list.ts';
import type { ListDefinition, Page } from '../d1/list.ts';
import { nearest } from '../d1/replica-session.ts';
import type { ReadingCall, SessionCall } from '../d1/replica-session.ts';
import { api_keys } from '../d1/schema.ts';
import { findStatus } from '../organizations/organization.ts';
import { apiKeyColumns, findApiKey, presentApiKey } from './api-key.ts';
import type { ApiKey, ApiKeyState } from './api-key.ts';

/** @throws DomainError `api_key_not_found`, `temporarily_unavailable` */
export async function readApiKey(call: ReadingCall, key_id: string): Promise<ApiKey> {
  const { organization_id } = call;
  const {
    found: [found],
  } = await nearest(call, { found: findApiKey.bind({ organization_id, key_id }) });
  if (!found) throw new DomainError('api_key_not_found', {});
  return presentApiKey(found);
}

export const apiKeysQuery = z.lazy(() => z.strictObject(listParameters()));

const definition: ListDefinition<never, ApiKeyState> = {
  table: api_keys,
  key: [api_keys.created_at, api_keys.key_id],
  keyOf: ({ created_at, key_id }) => [created_at, key_id],
  range: () => [
    [0, ''],
    [AFTER_ALL, ''],
  ],
  predicates: {},
  page: (db, isListed, order, limit) =>
    db
      .select(apiKeyColumns())
      .from(api_keys)
      .where(isListed)
      .orderBy(...order)
      .limit(limit),
};

/** The API keys, oldest first, including revoked and expired ones. */
export const listApiKeys = keysetList('api_keys', definition);

const listOf = keysetList('api_keys', { ...definition, owner: findStatus });

/**
 * The API keys of an organization, for an operator.
 *
 * @throws DomainError `organization_not_found`, `validation_failed`, `temporarily_unavailable`
 */
export async function listApiKeysOf(
  call: SessionCall,
  organization_id: string,
  request: z.output<typeof apiKeysQuery>,
): Promise<Page<ApiKeyState>> {
  const { hasOwner, ...page } = await listOf({ ...call, organization_id }, request);
  if (!hasOwner) throw new DomainError('organization_not_found', {});
  return page;
}
