/** What the simulated providers answer: to the check of an account, to a list of its numbers, and to a look at one. */
import { providerNames } from '../worker/core/vocabulary.ts';
import type { Provider } from '../worker/core/vocabulary.ts';

export const WORDS = 'words of the provider';

const MOST_NUMBERS = 5000;

/** @returns nothing where the account has no such thing */
type Good = (url: URL, numbers: string[]) => object | undefined;

export interface SimulatedProvider {
  calls: { path: RegExp; good: Good }[];
  refused: object;
  restricted: object;
  limited: object;
  missing?: object;
}

/** The numbers of an account that was given none. */
export function numbersByWord(secret: string): string[] {
  const [, count] = /holds-(\d+)/.exec(secret) ?? [];
  const first = count === undefined ? 14155550100 : 14155560000;
  const length = Math.min(Number(count ?? 3), MOST_NUMBERS);
  return Array.from({ length }, (_, index) => `+${first + index}`);
}

interface Bounds {
  absent: number;
  least?: number;
  most?: number;
}

/** A parameter of the query string that is a number. What is too large counts as the largest. */
function numberIn({ searchParams }: URL, name: string, { absent, least = 1, most = Infinity }: Bounds): number {
  const given = Number(searchParams.get(name) ?? absent);
  return Number.isInteger(given) ? Math.min(Math.max(given, least), most) : absent;
}

/** All, or those that have what is asked for in them: a part of a number is enough. */
const matching = (numbers: string[], asked: string | null) => numbers.filter((number) => number.includes(asked ?? ''));

const digitsOf = (number: string) => number.replace('+', '');

const twilioNumber = (phone_number: string) => ({
  sid: `PN${digitsOf(phone_number).padStart(32, '0')}`,
  phone_number,
  friendly_name: WORDS,
  capabilities: { voice: true, sms: true, mms: false, fax: false },
  voice_url: null,
  trunk_sid: null,
  status: 'in-use',
});

/** A page begins behind the last number of the page before, whether or not the account still has that. */
const twilioNumbers: Good = (url, numbers) => {
  const filter = url.searchParams.get('PhoneNumber');
  const page = numberIn(url, 'Page', { absent: 0, least: 0 });
  const page_size = numberIn(url, 'PageSize', { absent: 50, most: 1000 });
  const last = url.searchParams.get('PageToken')?.replace(/^PA/, '') ?? '';
  const left = matching(numbers, filter)
    .map(twilioNumber)
    .toSorted((one, other) => (one.sid < other.sid ? -1 : 1))
    .filter(({ sid }) => sid > last);
  const incoming_phone_numbers = left.slice(0, page_size);
  const next = new URLSearchParams({
    ...(filter !== null && { PhoneNumber: filter }),
    PageSize: String(page_size),
    Page: String(page + 1),
    PageToken: `PA${incoming_phone_numbers.at(-1)?.sid}`,
  });
  const start = page * page_size;
  return {
    incoming_phone_numbers,
    next_page_uri: left.length > page_size ? `${url.pathname}?${next.toString()}` : null,
    page,
    page_size,
    start,
    end: start + Math.max(incoming_phone_numbers.length - 1, 0),
  };
};

const telnyxNumbers: Good = (url, numbers) => {
  const found = matching(numbers, url.searchParams.get('filter[phone_number]'));
  const page_number = numberIn(url, 'page[number]', { absent: 1 });
  const page_size = numberIn(url, 'page[size]', { absent: 20, most: 250 });
  return {
    data: found.slice((page_number - 1) * page_size, page_number * page_size).map((phone_number) => ({
      id: digitsOf(phone_number),
      phone_number,
      status: 'active',
      connection_id: null,
      messaging_profile_id: null,
    })),
    meta: { total_pages: Math.ceil(found.length / page_size), total_results: found.length, page_number, page_size },
  };
};

const vonageNumbers: Good = (url, numbers) => {
  const msisdns = matching(numbers.map(digitsOf), url.searchParams.get('pattern'));
  const index = numberIn(url, 'index', { absent: 1 });
  const size = numberIn(url, 'size', { absent: 10, most: 100 });
  if (msisdns.length === 0) return {};
  return {
    count: msisdns.length,
    numbers: msisdns
      .slice((index - 1) * size, index * size)
      .map((msisdn) => ({ country: 'US', msisdn, type: 'mobile-lvn', features: ['VOICE', 'SMS'] })),
  };
};

const plivoNumber = (number: string) => ({
  number: digitsOf(number),
  alias: WORDS,
  voice_enabled: true,
  sms_enabled: true,
  active: true,
});

const plivoNumbers: Good = (url, numbers) => {
  const limit = numberIn(url, 'limit', { absent: 20, most: 20 });
  const offset = numberIn(url, 'offset', { absent: 0, least: 0 });
  const end = offset + limit;
  return {
    meta: {
      limit,
      offset,
      next: end < numbers.length ? `${url.pathname}?limit=${limit}&offset=${end}` : null,
      total_count: numbers.length,
    },
    objects: numbers.slice(offset, end).map(plivoNumber),
  };
};

const twilioError = (code: number, status: number) => ({
  code,
  message: WORDS,
  more_info: `https://www.twilio.com/docs/errors/${code}`,
  status,
});
const telnyxError = (code: string) => ({ errors: [{ code, title: WORDS, detail: WORDS }] });

const simulated: Record<Provider, SimulatedProvider> = {
  twilio: {
    calls: [{ path: /^\/2010-04-01\/Accounts\/AC[^/]+\/IncomingPhoneNumbers\.json$/, good: twilioNumbers }],
    refused: twilioError(20003, 401),
    restricted: twilioError(20003, 403),
    limited: twilioError(20429, 429),
  },
  telnyx: {
    calls: [
      {
        path: /^\/v2\/balance$/,
        good: () => ({ data: { record_type: 'balance', balance: '300.00', currency: 'USD' } }),
      },
      { path: /^\/v2\/phone_numbers$/, good: telnyxNumbers },
    ],
    refused: telnyxError('10009'),
    restricted: telnyxError('10010'),
    limited: telnyxError('10011'),
  },
  vonage: {
    calls: [
      { path: /^\/account\/get-balance$/, good: () => ({ value: 10.28, autoReload: false }) },
      { path: /^\/account\/numbers$/, good: vonageNumbers },
    ],
    refused: { 'error-code': '401', 'error-code-label': WORDS },
    restricted: { 'error-code': '403', 'error-code-label': WORDS },
    limited: { 'error-code': '429', 'error-code-label': WORDS },
  },
  plivo: {
    calls: [
      {
        path: /^\/v1\/Account\/[^/]+\/$/,
        good: () => ({
          account_type: 'standard',
          auth_id: 'MA0123456789ABCDEFGH',
          name: WORDS,
          cash_credits: '10',
          api_id: 'x',
        }),
      },
      { path: /^\/v1\/Account\/[^/]+\/Number\/$/, good: plivoNumbers },
      {
        path: /^\/v1\/Account\/[^/]+\/Number\/[^/]+\/$/,
        good: ({ pathname }, numbers) =>
          numbers.map(plivoNumber).find(({ number }) => pathname.endsWith(`/${number}/`)),
      },
    ],
    refused: { error: WORDS },
    restricted: { error: WORDS },
    limited: { error: WORDS },
    missing: { error: WORDS },
  },
};

/** Whose call it is, by its path, because all providers have one origin here. */
export function simulatedCall({ pathname }: URL) {
  for (const name of providerNames) {
    const call = simulated[name].calls.find(({ path }) => path.test(pathname));
    if (call) return { name, provider: simulated[name], good: call.good };
  }
  return undefined;
}
