import * as z from 'zod/mini';
import { AFTER_ALL, keysetList, listParameters } from '../d1/list.ts';
import { api_keys } from '../d1/schema.ts';
import { apiKeyColumns } from './api-key.ts';
import type { ApiKeyState } from './api-key.ts';

export const apiKeysQuery = z.lazy(() => z.strictObject(listParameters()));

/** The API keys, oldest first, including revoked and expired ones. */
export const listApiKeys = keysetList<never, ApiKeyState>('api_keys', {
  table: api_keys,
  key: [api_keys.created_at, api_keys.key_id],
  keyOf: ({ created_at, key_id }) => [created_at, key_id],
  range: () => [
    [0, ''],
    [AFTER_ALL.number, ''],
  ],
  predicates: {},
  page: (db, isListed, order, limit) =>
    db
      .select(apiKeyColumns())
      .from(api_keys)
      .where(isListed)
      .orderBy(...order)
      .limit(limit),
});
