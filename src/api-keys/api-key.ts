import type { api_keys } from '../schema.ts';
import { toIso } from '../time.ts';

type ApiKeyState = Omit<typeof api_keys.$inferSelect, 'key_hash'>;

/** An API key as clients see it (contract.md, API keys). */
export function presentApiKey(state: ApiKeyState) {
  return {
    key_id: state.key_id,
    name: state.name,
    role: state.role,
    prefix: state.prefix,
    client_id: state.organization_id,
    user_id: state.user_id,
    status: state.status,
    created_at: toIso(state.created_at),
    last_used_at: state.last_used_at === null ? null : toIso(state.last_used_at),
    expires_at: state.expires_at === null ? null : toIso(state.expires_at),
  };
}

export type ApiKey = ReturnType<typeof presentApiKey>;
