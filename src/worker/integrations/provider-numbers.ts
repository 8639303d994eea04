/** Lists the phone numbers of an integration's account, as the provider has them now. */
import { eq, sql } from 'drizzle-orm';
import * as z from 'zod/mini';
import { readCursor, writeCursor } from '../core/cursor.ts';
import { DomainError } from '../core/errors.ts';
import type { Ownership } from '../core/vocabulary.ts';
import type { OpenedCredentials } from '../credentials/envelope.ts';
import { beginAgain } from '../credentials/store.ts';
import { pageParameters } from '../d1/list.ts';
import type { PageRequest, Pagination } from '../d1/list.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { nearest } from '../d1/replica-session.ts';
import { phone_numbers } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { confirmAndRead } from '../decision/caller.ts';
import { mutationParameters } from '../decision/mutation.ts';
import { listPage } from '../providers/account-numbers.ts';
import { exchange } from '../providers/exchange.ts';
import { numbersOf, tokenPattern } from '../providers/numbers.ts';
import type { AccountNumber, Place } from '../providers/numbers.ts';
import { findAccount, noteRefusal, openCredentials, refusalBy } from './account.ts';
import type { AccountRow } from './account.ts';
import { takeFromBudget } from './verification.ts';

export const providerNumbersQuery = z.lazy(() => z.strictObject(pageParameters()));

/** The most numbers of one page of the provider. It is read again for the next page of ours. */
const MAX_PROVIDER_PAGE = 100;
/** A page of 100 takes six pages of 20, if the first was begun before. */
const MAX_CALLS = 6;
/**
 * How many of the numbers shown last the cursor names. The next page begins after the last of them that is still there, so
 * that a number which vanishes in between does not shift another out of sight.
 */
const REMEMBERED = 5;

const cursorContent = z.lazy(() =>
  z.strictObject({
    /** JSON of this list's name, the organization and the integration. */
    list: z.string(),
    page: z.int().check(z.minimum(0), z.maximum(1_000_000)),
    token: z.optional(z.string().check(z.regex(tokenPattern))),
    after: z.array(z.string()),
  }),
);

interface FoundNumber {
  phone_number: string;
  /** Null if the number is another organization's. */
  phone_number_id: string | null;
  ownership: Ownership;
}

/** Who has these numbers, in the whole system. Of another organization's number, only its ownership is read. */
const findImported = query((db, parameters: Placeholders<{ organization_id: string; numbers: string }>) =>
  db
    .select({
      phone_number: phone_numbers.phone_number,
      phone_number_id: sql<
        string | null
      >`iif(${eq(phone_numbers.organization_id, parameters.organization_id)}, ${phone_numbers.phone_number_id}, NULL)`.as(
        'phone_number_id',
      ),
      ownership: phone_numbers.ownership,
    })
    .from(phone_numbers)
    .where(sql`${phone_numbers.phone_number} IN (SELECT value FROM json_each(${parameters.numbers}))`),
);

/**
 * One page of the numbers that the account holds, each with whether it can be imported (docs/contract.md, Integrations).
 *
 * D1 confirms the caller before the provider is asked.
 *
 * @throws DomainError `integration_not_found`, `credentials_missing`, `credentials_refused`, `credentials_limited`,
 *   `provider_unavailable`, `verification_limited`, `rate_limited`, `invalid_api_key`, `permission_denied`,
 *   `temporarily_unavailable`, and `validation_failed` for a cursor of another list
 */
export async function listProviderNumbers(call: ApiCall, integration_id: string, request: PageRequest) {
  const { organization_id } = call;
  const list = JSON.stringify(['provider_numbers', organization_id, integration_id]);
  const start =
    request.cursor === undefined
      ? { page: 0, after: [] }
      : readCursor(request.cursor, cursorContent, (content) => content.list === list);
  const { numbers, next } = await beginAgain(async () => {
    const { row, credentials } = await openAccount(call, integration_id);
    return readNumbers(call, row, credentials, start, request.page_size);
  });

  const parameters = { organization_id, numbers: JSON.stringify(numbers.map((number) => number.phone_number)) };
  const { found } = await nearest(call, { found: findImported.bind(parameters) });
  const imported = new Map(found.map((number) => [number.phone_number, number]));
  const pagination: Omit<Pagination, 'total_count' | 'total_count_exact'> = {
    next_cursor: next && writeCursor({ list, ...next }),
    has_more: next !== null,
    page_size: request.page_size,
  };
  return {
    data: numbers.map((number) => presentProviderNumber(number, imported.get(number.phone_number))),
    pagination,
  };
}

async function openAccount(call: ApiCall, integration_id: string) {
  const parameters = { ...mutationParameters(call), integration_id };
  const {
    row: [row],
  } = await confirmAndRead('phone_numbers:create', call, parameters, { row: findAccount.bind(parameters) });
  if (!row) throw new DomainError('integration_not_found', {});
  return { row, credentials: await openCredentials(call, row) };
}

type Position = Place & { after: string[] };

/** The numbers after a position in the provider's list, and the position after them; null at the end. */
async function readNumbers(
  call: ApiCall,
  row: AccountRow,
  credentials: OpenedCredentials,
  start: Position,
  count: number,
): Promise<{ numbers: AccountNumber[]; next: Position | null }> {
  const { provider } = row;
  const account = { provider, credentials, ask: exchange.bind(null, call.env, provider) };
  const size = Math.min(numbersOf[provider].pageSize, MAX_PROVIDER_PAGE);
  const numbers: AccountNumber[] = [];
  let { after, ...place } = start;
  for (let calls = 0; calls < MAX_CALLS && numbers.length < count; calls += 1) {
    await takeFromBudget(call, 1);
    const { outcome, page } = await listPage(account, place, size);
    if (!page) {
      await noteRefusal(call, row, credentials, outcome);
      throw refusalBy(outcome);
    }
    const shown = page.numbers.findLastIndex(({ phone_number }) => after.includes(phone_number)) + 1;
    const taken = page.numbers.slice(shown, shown + count - numbers.length);
    numbers.push(...taken);
    after = [...after, ...taken.map(({ phone_number }) => phone_number)].slice(-REMEMBERED);
    const isRead = shown + taken.length === page.numbers.length;
    if (isRead && page.next === null) return { numbers, next: null };
    if (numbers.length < count && page.next !== null) place = page.next;
  }
  return { numbers, next: { ...place, after } };
}

/** A number of the account as clients see it. */
export function presentProviderNumber(number: AccountNumber, imported: FoundNumber | undefined) {
  return {
    phone_number: number.phone_number,
    provider_number_id: number.provider_number_id,
    friendly_name: number.friendly_name,
    capabilities: number.capabilities,
    import_status: statusOf(imported),
    phone_number_id: imported?.phone_number_id ?? null,
  };
}

/** Another organization's unconfirmed number can be imported, because the account shows that it is not theirs. */
function statusOf(imported: FoundNumber | undefined): 'available' | 'imported' | 'taken' {
  if (imported && imported.phone_number_id !== null) return 'imported';
  return imported?.ownership === 'confirmed' ? 'taken' : 'available';
}

export type ProviderNumber = ReturnType<typeof presentProviderNumber>;
