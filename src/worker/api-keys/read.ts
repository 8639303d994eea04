import { asc } from 'drizzle-orm';
import * as z from 'zod/mini';
import { keysetList, pageParameters } from '../d1/list.ts';
import { api_keys } from '../d1/schema.ts';
import { apiKeyColumns } from './api-key.ts';
import type { ApiKeyState } from './api-key.ts';

export const apiKeysQuery = z.lazy(() => z.strictObject(pageParameters()));

/** The API keys, oldest first, including revoked and expired ones. */
export const listApiKeys = keysetList<never, ApiKeyState>('api_keys', {
  table: api_keys,
  key: [api_keys.created_at, api_keys.key_id],
  keyOf: ({ created_at, key_id }) => [created_at, key_id],
  start: () => [-1, ''],
  predicates: {},
  page: (db, isListed, limit) =>
    db
      .select(apiKeyColumns())
      .from(api_keys)
      .where(isListed)
      .orderBy(asc(api_keys.created_at), asc(api_keys.key_id))
      .limit(limit),
});
