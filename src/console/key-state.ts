/** What a key's role and times mean for it. */
import type { InferResponseType } from 'hono/client';
import { isAbove } from '../worker/core/permissions.ts';
import type { Api, Session } from './session.ts';

export type ApiKey = InferResponseType<Api['api-keys']['$get'], 200>['data'][number];

const SOON_MS = 14 * 86_400_000;

export type KeyState = 'active' | 'ends soon' | 'expired' | 'revoked';

/** An expired key still has the status `active`. */
export function stateOf({ status, expires_at }: Pick<ApiKey, 'status' | 'expires_at'>): KeyState {
  if (status === 'revoked') return 'revoked';
  const left = expires_at === null ? Infinity : Date.parse(expires_at) - Date.now();
  if (left <= 0) return 'expired';
  return left <= SOON_MS ? 'ends soon' : 'active';
}

export const hasEnded = (key: ApiKey): boolean => ['revoked', 'expired'].includes(stateOf(key));

/** Whether somebody with this key may change the other one. */
export const mayChange = ({ who }: Session, { role }: ApiKey): boolean => !isAbove(role, who.key.role);

/** A key can rotate itself, and the keys of its user that end no later than itself; an admin those of all users. */
export function mayRotate(session: Session, key: ApiKey): boolean {
  const own = session.who.key;
  if (hasEnded(key) || !mayChange(session, key)) return false;
  if (key.key_id === own.key_id) return true;
  if (key.user_id !== own.user_id && own.role !== 'admin') return false;
  return isNoLater(key.expires_at, own.expires_at);
}

/** Null is never. */
export const isNoLater = (time: string | null, limit: string | null): boolean =>
  limit === null || (time !== null && Date.parse(time) <= Date.parse(limit));

export const roleText = (role: string) => role.replace('_', ' ');
