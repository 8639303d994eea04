/** Who is signed in. The key is in the memory of this tab, and in its `sessionStorage` only if the user chose that. */
import { PatchbayError, patchbayClient, unwrap } from 'patchbay-client';
import { fetchWhenConnected } from './connection.ts';
import { store } from './store.ts';

/** With thousands of numbers an answer takes up to 45 seconds. */
const ANSWER_LIMIT_MS = 60_000;
const IDLE_LIMIT_MS = 15 * 60_000;
const IDLE_CHECK_MS = 5_000;
const STORAGE_KEY = 'patchbay.session';

export type Api = ReturnType<typeof patchbayClient>['api'];

const whoIs = async (api: Api) => (await unwrap(api.whoami.$get())).data;
export type Who = Awaited<ReturnType<typeof whoIs>>;
export type Permission = Who['key']['permissions'][number];

export interface Session {
  api: Api;
  who: Who;
  /** Whether the key's role has the permission. What it has not is not offered. */
  can: (permission: Permission) => boolean;
}

/** Why nobody is signed in any more. */
export type SignOutReason = 'asked' | 'idle' | 'key_ended' | 'no_answer';

interface SessionState {
  session: Session | undefined;
  /** Undefined if nobody was signed in before. */
  ended: SignOutReason | undefined;
}

export const sessionState = store<SessionState>({ session: undefined, ended: undefined });

export interface Credentials {
  organizationId: string;
  apiKey: string;
}

let current: Credentials | undefined;
let isKept = false;
let lastUsed = 0;

/**
 * Signs in, if the API knows the key.
 *
 * @param keep keeps the key for this tab, so that a reload does not sign out
 * @throws PatchbayError, and TypeError for what cannot be sent in a header
 */
export async function signIn(credentials: Credentials, keep: boolean): Promise<void> {
  const { api } = patchbayClient(location.origin, {
    ...credentials,
    timeout: ANSWER_LIMIT_MS,
    async fetch(input, init) {
      const response = await fetchWhenConnected(input, init);
      if (response.status === 401 && current === credentials) signOut('key_ended');
      return response;
    },
  });
  const who = await whoIs(api);
  current = credentials;
  isKept = keep;
  noteUse();
  save();
  const permissions = new Set(who.key.permissions);
  sessionState.set({ session: { api, who, can: (permission) => permissions.has(permission) }, ended: undefined });
}

/** Forgets the key, and with it all that was shown. */
export function signOut(ended: SignOutReason): void {
  current = undefined;
  isKept = false;
  sessionStorage.removeItem(STORAGE_KEY);
  sessionState.set({ session: undefined, ended });
}

/** Signs in with what this tab keeps, and begins to look for use of the page. */
export async function restoreSession(): Promise<void> {
  for (const event of ['pointerdown', 'keydown', 'wheel', 'touchmove']) {
    window.addEventListener(event, noteUse, { passive: true, capture: true });
  }
  setInterval(endIfIdle, IDLE_CHECK_MS);
  document.addEventListener('visibilitychange', endIfIdle);
  window.addEventListener('pagehide', save);

  const kept = readKept();
  if (!kept) return;
  ({ lastUsed } = kept);
  if (isIdle()) return signOut('idle');
  await signIn(kept.credentials, true).catch((error: unknown) => {
    if (error instanceof PatchbayError && [401, 403].includes(error.status)) signOut('key_ended');
    // The tab still has the key: a reload tries again.
    else sessionState.set({ session: undefined, ended: 'no_answer' });
  });
}

function noteUse(): void {
  // What wakes a page that was left for too long must not make it fresh again.
  endIfIdle();
  lastUsed = Date.now();
}

const isIdle = () => Date.now() - lastUsed >= IDLE_LIMIT_MS;

function endIfIdle(): void {
  if (current === undefined) return;
  if (isIdle()) signOut('idle');
  else save();
}

function save(): void {
  if (isKept) sessionStorage.setItem(STORAGE_KEY, JSON.stringify({ ...current, lastUsed }));
}

function readKept(): { credentials: Credentials; lastUsed: number } | undefined {
  const kept: unknown = JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? 'null');
  if (typeof kept !== 'object' || kept === null) return undefined;
  const { organizationId, apiKey, lastUsed: used }: Partial<Record<string, unknown>> = { ...kept };
  return typeof organizationId === 'string' && typeof apiKey === 'string' && typeof used === 'number'
    ? { credentials: { organizationId, apiKey }, lastUsed: used }
    : undefined;
}
