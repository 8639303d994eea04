/** The simulated providers, over real HTTP: each answers as it is documented to. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { startSimulation } from '../../src/dev/simulation.ts';

let simulation: Awaited<ReturnType<typeof startSimulation>>;

beforeAll(async () => {
  simulation = await startSimulation();
});

afterAll(() => simulation.close());

const basic = (secret: string) => `Basic ${btoa(`account:${secret}`)}`;
const bearer = (secret: string) => `Bearer ${secret}`;
const twilioNumbers = `/2010-04-01/Accounts/AC${'0'.repeat(32)}/IncomingPhoneNumbers.json`;
const plivoAccount = `/v1/Account/MA${'0'.repeat(18)}/`;
const simulatedCalls = [
  ['twilio', `${twilioNumbers}?PageSize=1`, basic],
  ['telnyx', '/v2/balance', bearer],
  ['telnyx', '/v2/phone_numbers?page[size]=250', bearer],
  ['vonage', '/account/get-balance', basic],
  ['vonage', '/account/numbers?size=100', basic],
  ['plivo', plivoAccount, basic],
  ['plivo', `${plivoAccount}Number/?limit=20`, basic],
  ['plivo', `${plivoAccount}Number/14155550100/`, basic],
] as const;

/** The form of a provider's own refusals. */
const errorOf = {
  twilio: { code: expect.any(Number), message: expect.any(String), more_info: expect.any(String) },
  telnyx: { errors: [{ code: expect.any(String), title: expect.any(String), detail: expect.any(String) }] },
  vonage: { 'error-code': expect.any(String), 'error-code-label': expect.any(String) },
  plivo: { error: expect.any(String) },
};

const ask = (path: string, Authorization: string, request: RequestInit = {}) =>
  fetch(`${simulation.origin}${path}`, { redirect: 'manual', headers: { Authorization }, ...request });

const put = (path: string, body: object) =>
  fetch(`${simulation.origin}${path}`, { method: 'PUT', body: JSON.stringify(body) });

const callsWith = async (secret: string): Promise<unknown> =>
  (await fetch(`${simulation.origin}/simulation/calls?secret=${secret}`)).json();

describe.each(simulatedCalls)('%s, %s', (provider, path, authorization) => {
  it.each([
    ['good', 200],
    ['refused', 401],
    ['refused-in-plain-text', 401],
    ['restricted', 403],
    ['rate-limited', 429],
    ['broken', 500],
    ['redirects', 302],
    ['plain-text', 200],
    ['another-shape', 200],
    ['endless', 200],
  ])('answers a secret with %j in it with a %i', async (word, status) => {
    const response = await ask(path, authorization(`my-${word}-secret`));

    expect(response.status).toBe(status);
    const { length } = await response.text();
    expect(length > 10 * 1024 * 1024).toBe(word === 'endless');
  });

  it.each(['refused', 'restricted', 'rate-limited'])('says in its own form that a call is %s', async (word) => {
    const response = await ask(path, authorization(word));

    expect(await response.json()).toMatchObject(errorOf[provider]);
  });

  it('accepts any other secret', async () => {
    expect((await ask(path, authorization('0123456789abcdef'))).status).toBe(200);
  });

  it('closes the connection for "disconnects"', async () => {
    await expect(ask(path, authorization('disconnects'))).rejects.toThrow('fetch failed');
  });

  it('never answers for "stalls", and notes the call', async () => {
    const gone = new AbortController();
    const secret = `stalls-${crypto.randomUUID()}`;
    const stalled = ask(path, authorization(secret), { signal: gone.signal });
    await expect.poll(() => callsWith(secret), { timeout: 240_000 }).toMatchObject({ calls: [{ provider, path }] });
    gone.abort();

    await expect(stalled).rejects.toThrow('aborted');
  });

  it('refuses a call without credentials', async () => {
    expect((await ask(path, '')).status).toBe(401);
  });

  it('answers a secret as it was told, in order, the last answer for good', async () => {
    const secret = `${provider}-in-order`;
    await put('/simulation/answers', { secret, answers: ['refused', 'good'] });

    const statuses = [];
    for (let calls = 0; calls < 3; calls += 1) statuses.push((await ask(path, authorization(secret))).status);

    expect(statuses).toEqual([401, 200, 200]);
  });
});

const holdNow = (secret: string, numbers: string[]) => put('/simulation/numbers', { secret, numbers });

async function secretHolding(...numbers: string[]): Promise<string> {
  const secret = crypto.randomUUID();
  await holdNow(secret, numbers);
  return secret;
}

async function read(path: string, authorization: string): Promise<unknown> {
  const response = await ask(path, authorization);
  expect(response.status).toBe(200);
  return response.json();
}

const [A, B, C, D] = ['+14155550001', '+14155550002', '+14155550003', '+14155550004'] as const;

describe('an account', () => {
  const telnyx = (secret: string, query = '') => read(`/v2/phone_numbers${query}`, bearer(secret));

  it('has three numbers where nothing says otherwise', async () => {
    expect(await telnyx('any')).toMatchObject({
      data: [{ phone_number: '+14155550100' }, { phone_number: '+14155550101' }, { phone_number: '+14155550102' }],
      meta: { total_results: 3 },
    });
  });

  it.each([
    ['holds-0', 0],
    ['it-holds-1200-numbers', 1200],
    ['holds-5001', 5000],
  ])('of the secret %j has %i', async (secret, total_results) => {
    expect(await telnyx(secret)).toMatchObject({ meta: { total_results } });
  });

  it('has, where its secret says how many, those from +14155560000 on', async () => {
    expect(await telnyx('holds-2')).toMatchObject({
      data: [{ phone_number: '+14155560000' }, { phone_number: '+14155560001' }],
    });
  });

  it('has the numbers that it was given last, in that order', async () => {
    const secret = await secretHolding(A, B);
    await holdNow(secret, [C, A]);

    expect(await telnyx(secret)).toMatchObject({ data: [{ phone_number: C }, { phone_number: A }] });
  });

  it('may have none', async () => {
    const secret = await secretHolding();

    expect(await read(twilioNumbers, basic(secret))).toMatchObject({ incoming_phone_numbers: [], next_page_uri: null });
    expect(await telnyx(secret)).toMatchObject({ data: [], meta: { total_pages: 0, total_results: 0 } });
    expect(await read('/account/numbers', basic(secret))).toEqual({});
    expect(await read(`${plivoAccount}Number/`, basic(secret))).toMatchObject({
      objects: [],
      meta: { total_count: 0 },
    });
  });

  it('is asked once for each page, as the calls tell', async () => {
    const secret = await secretHolding(A);
    const paths = ['/v2/phone_numbers?page[number]=1', '/v2/phone_numbers?page[number]=2'];
    for (const path of paths) await read(path, bearer(secret));

    expect(await callsWith(secret)).toMatchObject({ calls: paths.map((path) => ({ provider: 'telnyx', path })) });
  });

  it('answers its pages as it was told, in order', async () => {
    const secret = await secretHolding(A);
    await put('/simulation/answers', { secret, answers: ['good', 'rate-limited'] });

    const statuses = [];
    for (const page of [1, 2]) {
      statuses.push((await ask(`/v2/phone_numbers?page[number]=${page}`, bearer(secret))).status);
    }

    expect(statuses).toEqual([200, 429]);
  });
});

describe('Twilio', () => {
  const list = (secret: string, query = '') => read(`${twilioNumbers}${query}`, basic(secret));
  const sid = (number: string) => `PN${number.slice(1).padStart(32, '0')}`;
  const withNext = z.object({ next_page_uri: z.string() });

  it('tells what a number is called and can do', async () => {
    expect(await list(await secretHolding(A))).toEqual({
      incoming_phone_numbers: [
        {
          sid: sid(A),
          phone_number: A,
          friendly_name: 'words of the provider',
          capabilities: { voice: true, sms: true, mms: false, fax: false },
          voice_url: null,
          trunk_sid: null,
          status: 'in-use',
        },
      ],
      next_page_uri: null,
      page: 0,
      page_size: 50,
      start: 0,
      end: 0,
    });
  });

  it('lists the numbers by their sid, and on each page names the next', async () => {
    const secret = await secretHolding(C, A, B);

    const first = await list(secret, '?PageSize=2');
    const { next_page_uri } = withNext.parse(first);
    const second = await read(next_page_uri, basic(secret));

    expect(first).toMatchObject({ incoming_phone_numbers: [{ sid: sid(A) }, { sid: sid(B) }], start: 0, end: 1 });
    expect(next_page_uri).toBe(`${twilioNumbers}?PageSize=2&Page=1&PageToken=PA${sid(B)}`);
    expect(second).toMatchObject({
      incoming_phone_numbers: [{ sid: sid(C) }],
      next_page_uri: null,
      page: 1,
      page_size: 2,
      start: 2,
      end: 2,
    });
  });

  it('goes on behind the last number of a page, though that has gone since', async () => {
    const secret = await secretHolding(A, B, C);
    const { next_page_uri } = withNext.parse(await list(secret, '?PageSize=2'));
    await holdNow(secret, [A, C]);

    expect(await read(next_page_uri, basic(secret))).toMatchObject({ incoming_phone_numbers: [{ phone_number: C }] });
  });

  it('has 50 numbers on a page, or as many as are asked for, up to 1000', async () => {
    for (const [query, page_size] of [
      ['', 50],
      ['?PageSize=7', 7],
      ['?PageSize=1001', 1000],
      ['?PageSize=0', 1],
    ] as const) {
      const page = z.object({ incoming_phone_numbers: z.array(z.unknown()), page_size: z.number() });
      const { incoming_phone_numbers, ...rest } = page.parse(await list('holds-1200', query));
      expect([incoming_phone_numbers.length, rest.page_size]).toEqual([page_size, page_size]);
    }
  });

  it('finds one number, or those with a part of it', async () => {
    const secret = await secretHolding(A, B);

    expect(await list(secret, `?PhoneNumber=${encodeURIComponent(B)}`)).toMatchObject({
      incoming_phone_numbers: [{ phone_number: B }],
    });
    expect(await list(secret, `?PhoneNumber=${encodeURIComponent(C)}`)).toMatchObject({ incoming_phone_numbers: [] });
    expect(await list(secret, '?PhoneNumber=5550&PageSize=1')).toMatchObject({
      next_page_uri: `${twilioNumbers}?PhoneNumber=5550&PageSize=1&Page=1&PageToken=PA${sid(A)}`,
    });
  });
});

describe('Telnyx', () => {
  const list = (secret: string, query: string) => read(`/v2/phone_numbers${query}`, bearer(secret));

  it('lists the numbers by pages', async () => {
    const secret = await secretHolding(A, B, C);

    expect(await list(secret, '?page[number]=2&page[size]=2')).toEqual({
      data: [{ id: '14155550003', phone_number: C, status: 'active', connection_id: null, messaging_profile_id: null }],
      meta: { total_pages: 2, total_results: 3, page_number: 2, page_size: 2 },
    });
  });

  it('moves the rest up where a number has gone between two pages', async () => {
    const secret = await secretHolding(A, B, C, D);
    await list(secret, '?page[number]=1&page[size]=2');
    await holdNow(secret, [B, C, D]);

    expect(await list(secret, '?page[number]=2&page[size]=2')).toMatchObject({ data: [{ phone_number: D }] });
  });

  it.each([
    ['', 20],
    ['?page[size]=250', 250],
    ['?page[size]=251', 250],
  ])('has as many numbers on a page as %j asks for: %i', async (query, page_size) => {
    const { data } = z.object({ data: z.array(z.unknown()) }).parse(await list('holds-300', query));

    expect(data).toHaveLength(page_size);
  });

  it('finds one number', async () => {
    const secret = await secretHolding(A, B);

    expect(await list(secret, `?filter[phone_number]=${encodeURIComponent(B)}`)).toMatchObject({
      data: [{ phone_number: B }],
      meta: { total_results: 1 },
    });
  });
});

describe('Vonage', () => {
  const list = (secret: string, query: string) => read(`/account/numbers${query}`, basic(secret));

  it('lists the numbers by pages, without their +, and counts all', async () => {
    expect(await list(await secretHolding(A, B, C), '?index=2&size=2')).toEqual({
      count: 3,
      numbers: [{ country: 'US', msisdn: '14155550003', type: 'mobile-lvn', features: ['VOICE', 'SMS'] }],
    });
  });

  it('moves the rest up where a number has gone between two pages', async () => {
    const secret = await secretHolding(A, B, C, D);
    await list(secret, '?index=1&size=2');
    await holdNow(secret, [B, C, D]);

    expect(await list(secret, '?index=2&size=2')).toMatchObject({ numbers: [{ msisdn: '14155550004' }] });
  });

  it.each([
    ['', 10],
    ['?size=100', 100],
    ['?size=101', 100],
  ])('has as many numbers on a page as %j asks for: %i', async (query, size) => {
    const { numbers } = z.object({ numbers: z.array(z.unknown()) }).parse(await list('holds-300', query));

    expect(numbers).toHaveLength(size);
  });

  it('finds one number, and those that only have it in them, or answers an empty object', async () => {
    const secret = await secretHolding(A, `${A}9`, B);

    expect(await list(secret, '?pattern=14155550001&search_pattern=1')).toMatchObject({
      count: 2,
      numbers: [{ msisdn: '14155550001' }, { msisdn: '141555500019' }],
    });
    expect(await list(secret, '?pattern=14155550009&search_pattern=1')).toEqual({});
  });
});

describe('Plivo', () => {
  const numbers = `${plivoAccount}Number/`;
  const list = (secret: string, query: string) => read(`${numbers}${query}`, basic(secret));
  const told = (number: string) => ({
    number,
    alias: 'words of the provider',
    voice_enabled: true,
    sms_enabled: true,
    active: true,
  });

  it('lists the numbers from an offset on, without their +, and names the next page', async () => {
    const secret = await secretHolding(A, B, C);

    expect(await list(secret, '?limit=1&offset=1')).toEqual({
      meta: { limit: 1, offset: 1, next: `${numbers}?limit=1&offset=2`, total_count: 3 },
      objects: [told('14155550002')],
    });
    expect(await list(secret, '?limit=1&offset=2')).toMatchObject({ meta: { next: null } });
  });

  it('moves the rest up where a number has gone between two pages', async () => {
    const secret = await secretHolding(A, B, C, D);
    await list(secret, '?limit=2&offset=0');
    await holdNow(secret, [B, C, D]);

    expect(await list(secret, '?limit=2&offset=2')).toMatchObject({ objects: [{ number: '14155550004' }] });
  });

  it.each([
    ['', 20],
    ['?limit=5', 5],
    ['?limit=21', 20],
  ])('has as many numbers on a page as %j asks for: %i', async (query, limit) => {
    const { objects } = z.object({ objects: z.array(z.unknown()) }).parse(await list('holds-300', query));

    expect(objects).toHaveLength(limit);
  });

  it('answers with one number itself, or with a 404 where the account has it not', async () => {
    const secret = await secretHolding(A);

    expect(await list(secret, '14155550001/')).toEqual(told('14155550001'));
    const missing = await ask(`${numbers}14155550002/`, basic(secret));
    expect(missing.status).toBe(404);
    expect(await missing.json()).toEqual(errorOf.plivo);
  });
});
