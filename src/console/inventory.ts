/** What an organization has, how much of its quotas that is, and what of it needs attention. */
import { entries, unwrap } from 'patchbay-client';
import type { VerificationStatus } from '../worker/core/vocabulary.ts';
import type { ListedIntegration } from './integrations.ts';
import { hasEnded, stateOf } from './key-state.ts';
import type { ApiKey } from './key-state.ts';
import type { ReadOptions } from './load.ts';
import { hrefOf } from './route.ts';
import type { Api, Session } from './session.ts';

const PAGE_SIZE = 100;

export interface FoundIntegrations {
  count: number;
  phone_number_count: number;
  by_verification: Record<VerificationStatus, number>;
  credentials_missing: number;
  /** Those that need attention. */
  by_concern: Record<Concern, ListedIntegration[]>;
}

/** The worst first. */
export const concerns = ['missing', 'refused', 'limited', 'overdue', 'never_checked'] as const;
export type Concern = (typeof concerns)[number];

const OVERDUE_MS = 48 * 3_600_000;

function concernOf({ status, verification }: ListedIntegration): Concern | undefined {
  if (status === 'credentials_missing') return 'missing';
  if (verification.status === 'refused' || verification.status === 'limited') return verification.status;
  if (verification.checked_at === null) return 'never_checked';
  return Date.now() - Date.parse(verification.checked_at) > OVERDUE_MS ? 'overdue' : undefined;
}

/** @param onRead is told how many were read so far */
export async function readIntegrations(api: Api, options: ReadOptions, onRead: (count: number) => void) {
  const found: FoundIntegrations = {
    count: 0,
    phone_number_count: 0,
    by_verification: { unverified: 0, verified: 0, limited: 0, refused: 0, unreachable: 0 },
    credentials_missing: 0,
    by_concern: { missing: [], refused: [], limited: [], overdue: [], never_checked: [] },
  };
  for await (const integration of entries(api.integrations.$get, { page_size: PAGE_SIZE }, options)) {
    found.count += 1;
    found.phone_number_count += integration.phone_number_count;
    found.by_verification[integration.verification.status] += 1;
    if (integration.status === 'credentials_missing') found.credentials_missing += 1;
    const concern = concernOf(integration);
    if (concern) found.by_concern[concern].push(integration);
    if (found.count % PAGE_SIZE === 0) onRead(found.count);
  }
  return found;
}

export interface Count {
  count: number;
  /** If not, there are more. */
  isExact: boolean;
}

/** Those that no integration counts, and those that have a quota of their own. */
export async function countNumbers(api: Api, options: ReadOptions) {
  const count = async (filter: { provider: 'sip' } | { ownership: 'unconfirmed' }): Promise<Count> => {
    const { pagination } = await unwrap(api['phone-numbers'].$get({ query: { ...filter, page_size: 1 } }, options));
    return { count: pagination.total_count, isExact: pagination.total_count_exact };
  };
  const [sip, unconfirmed] = await Promise.all([count({ provider: 'sip' }), count({ ownership: 'unconfirmed' })]);
  return { sip, unconfirmed };
}

export async function readKeys(api: Api, options: ReadOptions) {
  const found: { count: number; ending: ApiKey[] } = { count: 0, ending: [] };
  for await (const key of entries(api['api-keys'].$get, { page_size: PAGE_SIZE }, options)) {
    if (hasEnded(key)) continue;
    found.count += 1;
    if (stateOf(key) === 'ends soon') found.ending.push(key);
  }
  return found;
}

export type FoundNumbers = Awaited<ReturnType<typeof countNumbers>>;
export type FoundKeys = Awaited<ReturnType<typeof readKeys>>;

export interface Quota {
  name: string;
  href: string;
  has: Count;
  limit: number;
}

const exactly = ({ count }: { count: number }): Count => ({ count, isExact: true });

/** Of what is known so far. */
export function quotasOf(
  { who }: Session,
  integrations: FoundIntegrations | undefined,
  numbers: FoundNumbers | undefined,
  keys: FoundKeys | undefined,
): Quota[] {
  const { limits } = who.organization;
  const quotas = [
    {
      name: 'Integrations',
      href: hrefOf(['integrations']),
      has: integrations && exactly(integrations),
      limit: limits.integrations,
    },
    {
      name: 'Numbers',
      href: hrefOf(['numbers']),
      has: integrations && numbers && { ...numbers.sip, count: integrations.phone_number_count + numbers.sip.count },
      limit: limits.phone_numbers,
    },
    {
      name: 'Unconfirmed numbers',
      href: hrefOf(['numbers'], { ownership: 'unconfirmed' }),
      has: numbers?.unconfirmed,
      limit: limits.unconfirmed_numbers,
    },
    { name: 'Keys', href: hrefOf(['keys']), has: keys && exactly(keys), limit: limits.api_keys },
  ];
  return quotas.flatMap(({ has, ...quota }) => (has ? [{ ...quota, has }] : []));
}

const NEARLY_FULL = 0.8;

export const isNearlyFull = ({ has, limit }: Quota) => has.count >= limit * NEARLY_FULL;

export const fullness = ({ has, limit }: Quota) => (has.count >= limit ? 'full' : 'nearly full');

export const countText = ({ count, isExact }: Count) => `${isExact ? '' : 'more than '}${count.toLocaleString()}`;
