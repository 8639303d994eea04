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
export type SignOutReason = 'asked' | 'left' | 'idle' | 'key_ended' | 'no_answer';

interface SessionState {
  session: Session | undefined;
  /** Undefined if nobody was signed in before. */
  ended: SignOutReason | undefined;
  /** Whether the key that this tab has kept is being tried. */
  isRestoring: boolean;
}

const nobody: SessionState = { session: undefined, ended: undefined, isRestoring: false };

export const sessionState = store(nobody);

export interface Credentials {
  organizationId: string;
  apiKey: string;
}

let current: Credentials | undefined;
/** Aborts what is under way for the user who was signed in. */
let end = new AbortController();
let isKept = false;
let lastUsed = 0;

/**
 * Signs in, if the API knows the key.
 *
 * @param keep keeps the key for this tab, so that a reload does not sign out
 * @throws PatchbayError, and TypeError for what cannot be sent in a header
 */
export async function signIn(credentials: Credentials, keep: boolean): Promise<void> {
  const ended = new AbortController();
  const { api } = patchbayClient(location.origin, {
    ...credentials,
    timeout: ANSWER_LIMIT_MS,
    async fetch(input, init) {
      const signal = AbortSignal.any([ended.signal, ...(init?.signal ? [init.signal] : [])]);
      const response = await fetchWhenConnected(input, { ...init, signal });
      if (response.status === 401 && current === credentials) signOut('key_ended');
      return response;
    },
  });
  const who = await whoIs(api);
  current = credentials;
  end = ended;
  isKept = keep;
  lastUsed = Date.now();
  // What another user has kept must not sign in again.
  sessionStorage.removeItem(STORAGE_KEY);
  save();
  const permissions = new Set(who.key.permissions);
  sessionState.set({
    session: { api, who, can: (permission) => permissions.has(permission) },
    ended: undefined,
    isRestoring: false,
  });
}

/** Forgets the key, and with it all that was shown. */
export function signOut(ended: SignOutReason): void {
  current = undefined;
  isKept = false;
  end.abort();
  sessionStorage.removeItem(STORAGE_KEY);
  sessionState.set({ ...nobody, ended });
}

/** Signs in with what this tab keeps, and begins to watch whether the page is used. */
export async function restoreSession(): Promise<void> {
  for (const event of ['pointerdown', 'keydown', 'wheel', 'touchmove']) {
    window.addEventListener(event, noteUse, { passive: true, capture: true });
  }
  setInterval(endIfIdle, IDLE_CHECK_MS);
  document.addEventListener('visibilitychange', endIfIdle);
  window.addEventListener('pagehide', save);
  // The browser may keep a page that is left, and show it again as it was.
  window.addEventListener('pageshow', ({ persisted }) => {
    if (persisted && current !== undefined && !isKept) signOut('left');
  });

  const kept = readKept();
  if (!kept) return;
  ({ lastUsed } = kept);
  if (isIdle()) return signOut('idle');
  sessionState.set({ ...nobody, isRestoring: true });
  await signIn(kept.credentials, true).catch((error: unknown) => {
    if (error instanceof PatchbayError && [401, 403].includes(error.status)) signOut('key_ended');
    // The tab still has the key: a reload tries again.
    else sessionState.set({ ...nobody, ended: 'no_answer' });
  });
}

function noteUse(): void {
  // What wakes a page that was left for too long must not make it fresh again.
  endIfIdle();
  lastUsed = Date.now();
}

const isIdle = (since = lastUsed) => Date.now() - since >= IDLE_LIMIT_MS;

function endIfIdle(): void {
  if (current === undefined) return forgetIfIdle();
  if (isIdle()) signOut('idle');
  else save();
}

/** Of a key that is kept while nobody is signed in: the API did not answer. */
function forgetIfIdle(): void {
  const kept = readKept();
  if (kept && isIdle(kept.lastUsed)) sessionStorage.removeItem(STORAGE_KEY);
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
