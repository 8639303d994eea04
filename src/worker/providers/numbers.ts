/**
 * The phone numbers of an account: how each provider lists them, and how it is asked about one. A new provider needs one
 * row here.
 */
import * as z from 'zod/mini';
import { phoneNumberPattern } from '../core/ids.ts';
import { shownText } from '../core/text.ts';
import type { Provider } from '../core/vocabulary.ts';
import type { Credentials } from '../credentials/envelope.ts';

/** A number as its account has it. */
export interface AccountNumber {
  /** Whether the account surely holds it: not while it is being ported, nor as a number that another carrier provides. */
  isSure: boolean;
  phone_number: string;
  /** The provider's own name for the number; of Vonage and Plivo its digits. */
  provider_number_id: string;
  friendly_name: string | null;
  capabilities: { voice: boolean; sms: boolean };
}

/** Where a page is in the provider's list. */
export interface Place {
  /** From 0. */
  page: number;
  /** Twilio's, of every page but the first. */
  token?: string | undefined;
}

export interface NumbersPage {
  numbers: AccountNumber[];
  /** Null: this is the last page. */
  next: Place | null;
  /** How many pages there are in all; null if the provider does not tell. */
  pages: number | null;
}

interface NumbersRow {
  /** The most numbers that a page is asked for. */
  pageSize: number;
  pathOf: (credentials: Credentials, place: Place, size: number) => string;
  pageOf: (place: Place, size: number) => z.ZodMiniType<NumbersPage>;
  /** The first that finds the number counts. */
  onePathsOf: (credentials: Credentials, phone_number: string) => string[];
  one: z.ZodMiniType<AccountNumber[]>;
}

const MAX_NAME = 64;

/**
 * Makes the schema of a list. If an item lacks what tells which number it is, the list says nothing; what else it lacks
 * does no harm. What is no telephone number is left out, as short codes are.
 */
const list = <Item>(item: z.ZodMiniType<Item>, numberOf: (item: Item) => AccountNumber) =>
  z.pipe(
    z.array(item),
    z.transform((items) => items.map(numberOf).filter(({ phone_number }) => phoneNumberPattern.test(phone_number))),
  );

const id = z.string().check(z.regex(/^[\w:+-]{1,64}$/));
const name = z.pipe(
  z.optional(z.unknown()),
  z.transform((value) => (typeof value === 'string' ? shownText(value, MAX_NAME) : null)),
);
const flag = z.pipe(
  z.optional(z.unknown()),
  z.transform((value) => value === true),
);
const isMore = (place: Place, pages: number): Place | null =>
  place.page + 1 < pages ? { page: place.page + 1 } : null;

const twilioNumbers = list(
  z.object({
    sid: id,
    phone_number: z.string(),
    friendly_name: name,
    capabilities: z.optional(z.object({ voice: flag, sms: flag })),
  }),
  ({ sid, phone_number, friendly_name, capabilities = { voice: false, sms: false } }) => ({
    isSure: true,
    phone_number,
    provider_number_id: sid,
    friendly_name,
    capabilities,
  }),
);

/** Only the place is taken from the provider's address, so that it cannot send us anywhere. */
const twilioPlace = z.pipe(
  z.nullable(z.string().check(z.regex(/^\/[^?#]*\?[^#]*$/))),
  z.transform((uri, context): Place | null => {
    if (uri === null) return null;
    const parameters = new URLSearchParams(uri.replace(/^[^?]*/, ''));
    const [page, token] = [parameters.get('Page') ?? '', parameters.get('PageToken') ?? undefined];
    if (/^\d{1,6}$/.test(page) && (token === undefined || tokenPattern.test(token))) {
      return { page: Number(page), token };
    }
    context.issues.push({ code: 'custom', input: uri });
    return z.NEVER;
  }),
);

/** A page's token as we keep it and send it. */
export const tokenPattern = /^[\w-]{1,128}$/;

const twilioPath = ({ account_sid = '' }: Credentials, query: string) =>
  `/2010-04-01/Accounts/${encodeURIComponent(account_sid)}/IncomingPhoneNumbers.json?${query}`;

const telnyxNumbers = list(
  z.object({ id, phone_number: z.string(), status: z.optional(z.string()), messaging_profile_id: name }),
  ({ status = 'active', ...number }) => ({
    isSure: status === 'active',
    phone_number: number.phone_number,
    provider_number_id: number.id,
    friendly_name: null,
    // Every number can be called. It can have messages once it has a profile for them.
    capabilities: { voice: true, sms: number.messaging_profile_id !== null },
  }),
);

const digits = z.string().check(z.regex(/^\d{1,20}$/));

const vonageNumbers = list(
  z.object({ msisdn: digits, features: z.optional(z.array(z.string())) }),
  ({ msisdn, features = [] }) => ({
    isSure: true,
    phone_number: `+${msisdn}`,
    provider_number_id: msisdn,
    friendly_name: null,
    capabilities: { voice: features.includes('VOICE'), sms: features.includes('SMS') },
  }),
);

/** An account without numbers answers `{}`. */
const vonagePage = z.union([
  z.object({ count: z.int(), numbers: vonageNumbers }),
  z.pipe(
    z.strictObject({}),
    z.transform(() => ({ count: 0, numbers: [] })),
  ),
]);

const plivoNumber = z.object({
  number: digits,
  /** Plivo itself, or another carrier that the customer named. */
  carrier: z.optional(z.string()),
  alias: name,
  voice_enabled: flag,
  sms_enabled: flag,
});

const plivoNumberOf = ({
  number,
  carrier = 'Plivo',
  alias,
  voice_enabled,
  sms_enabled,
}: z.output<typeof plivoNumber>): AccountNumber => ({
  isSure: carrier.toLowerCase() === 'plivo',
  phone_number: `+${number}`,
  provider_number_id: number,
  friendly_name: alias,
  capabilities: { voice: voice_enabled, sms: sms_enabled },
});

const plivoPath = ({ auth_id = '' }: Credentials, rest: string) =>
  `/v1/Account/${encodeURIComponent(auth_id)}/Number/${rest}`;

export const numbersOf: Record<Provider, NumbersRow> = {
  twilio: {
    // It would give 1,000, but these may be more than the 1 MiB that is read of an answer.
    pageSize: 500,
    pathOf: (credentials, { page, token }, size) => {
      const from = [page > 0 ? `&Page=${page}` : '', token === undefined ? '' : `&PageToken=${token}`].join('');
      return twilioPath(credentials, `PageSize=${size}${from}`);
    },
    pageOf: () =>
      z.pipe(
        z.object({ incoming_phone_numbers: twilioNumbers, next_page_uri: twilioPlace }),
        z.transform(({ incoming_phone_numbers: numbers, next_page_uri: next }) => ({ numbers, next, pages: null })),
      ),
    onePathsOf: (credentials, phone_number) => [
      twilioPath(credentials, `PhoneNumber=${encodeURIComponent(phone_number)}`),
    ],
    one: z.pipe(
      z.object({ incoming_phone_numbers: twilioNumbers }),
      z.transform((body) => body.incoming_phone_numbers),
    ),
  },
  telnyx: {
    pageSize: 250,
    pathOf: (_, { page }, size) => `/v2/phone_numbers?page[number]=${page + 1}&page[size]=${size}`,
    pageOf: (place) =>
      z.pipe(
        z.object({ data: telnyxNumbers, meta: z.object({ total_pages: z.int() }) }),
        z.transform(({ data, meta: { total_pages } }) => ({
          numbers: data,
          next: isMore(place, total_pages),
          pages: total_pages,
        })),
      ),
    onePathsOf: (_, phone_number) =>
      [phone_number, phone_number.slice(1)].map(
        // Its documents say both that the filter takes the +, and that it finds nothing with one.
        (filter) => `/v2/phone_numbers?page[size]=250&filter[phone_number]=${encodeURIComponent(filter)}`,
      ),
    one: z.pipe(
      z.object({ data: telnyxNumbers }),
      z.transform(({ data }) => data),
    ),
  },
  vonage: {
    pageSize: 100,
    pathOf: (_, { page }, size) => `/account/numbers?index=${page + 1}&size=${size}`,
    pageOf: (place, size) =>
      z.pipe(
        vonagePage,
        z.transform(({ count, numbers }) => {
          const pages = Math.ceil(count / size);
          return { numbers, next: isMore(place, pages), pages };
        }),
      ),
    onePathsOf: (_, phone_number) => [`/account/numbers?pattern=${phone_number.slice(1)}&search_pattern=1&size=100`],
    one: z.pipe(
      vonagePage,
      z.transform(({ numbers }) => numbers),
    ),
  },
  plivo: {
    pageSize: 20,
    pathOf: (credentials, { page }, size) => plivoPath(credentials, `?limit=${size}&offset=${page * size}`),
    pageOf: (place, size) =>
      z.pipe(
        z.object({
          meta: z.object({ next: z.nullable(z.string()), total_count: z.int() }),
          objects: list(plivoNumber, plivoNumberOf),
        }),
        z.transform(({ meta: { next, total_count }, objects }) => ({
          numbers: objects,
          next: next === null ? null : { page: place.page + 1 },
          pages: Math.ceil(total_count / size),
        })),
      ),
    onePathsOf: (credentials, phone_number) => [plivoPath(credentials, `${phone_number.slice(1)}/`)],
    one: z.pipe(
      plivoNumber,
      z.transform((number) => [plivoNumberOf(number)]),
    ),
  },
};
