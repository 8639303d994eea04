/** `GET /api/integrations/{integration_id}/provider-numbers`: the account's own numbers, as the provider has them now. */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { providerNames } from '../../src/worker/core/vocabulary.ts';
import type { Provider } from '../../src/worker/core/vocabulary.ts';
import { newAccount } from '../accounts.ts';
import { countedBindings } from '../bindings.ts';
import { call, changeKey, importNumber, keyChanges, newClient, rowOf, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { callsWith, holdNow } from '../simulation.ts';

const page = z.object({
  data: z.array(
    z.strictObject({
      phone_number: z.string(),
      provider_number_id: z.string(),
      friendly_name: z.string().nullable(),
      capabilities: z.strictObject({ voice: z.boolean(), sms: z.boolean() }),
      import_status: z.string(),
      phone_number_id: z.string().nullable(),
    }),
  ),
  pagination: z.strictObject({ next_cursor: z.string().nullable(), has_more: z.boolean(), page_size: z.number() }),
});

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

const pathOf = (integration_id: string) => `/api/integrations/${integration_id}/provider-numbers`;

async function read(integration_id: string, query = '', by = client) {
  const { status, text } = await call(by, 'GET', `${pathOf(integration_id)}${query}`);
  if (status !== 200) throw new Error(`${status} ${text}`);
  return page.parse(JSON.parse(text));
}

/** All pages, one after the other; `between` runs after the first. */
async function listAll(integration_id: string, page_size: number, between = async () => {}): Promise<string[]> {
  const first = await read(integration_id, `?page_size=${page_size}`);
  await between();
  const listed = [...first.data];
  let { next_cursor: cursor, has_more } = first.pagination;
  while (cursor !== null) {
    expect(has_more).toBe(true);
    const { data, pagination } = await read(integration_id, `?page_size=${page_size}&cursor=${cursor}`);
    expect(data.length).toBeLessThanOrEqual(page_size);
    listed.push(...data);
    ({ next_cursor: cursor, has_more } = pagination);
  }
  expect(has_more).toBe(false);
  return listed.map(({ phone_number }) => phone_number);
}

const numbersFrom = (first: number, count: number) => Array.from({ length: count }, (_, index) => `+${first + index}`);

const MANY = numbersFrom(14_155_700_000, 1200);

describe.each(providerNames)('an account of %s with 1,200 numbers', (provider) => {
  it.each([7, 20, 100])('is listed whole, each number once, in pages of %i', async (page_size) => {
    const { integration_id } = await newAccount(client, MANY, { provider });

    expect(await listAll(integration_id, page_size)).toEqual(MANY);
  });

  it.each(
    [1, 19, 20, 21, 99, 100].flatMap((page_size) => [0, page_size - 1, page_size].map((gone) => [gone, page_size])),
  )('hides no other number where number %i vanishes after the first page of %i', async (gone, page_size) => {
    const held = MANY.slice(0, 230);
    const left = held.filter((_, index) => index !== gone);
    const { integration_id, secret } = await newAccount(client, held, { provider });
    const step = page_size < 19 ? 100 : page_size;

    const first = await read(integration_id, `?page_size=${page_size}`);
    await holdNow(secret, left);
    const listed = first.data.map(({ phone_number }) => phone_number);
    let cursor = first.pagination.next_cursor;
    while (cursor !== null) {
      const next = await read(integration_id, `?page_size=${step}&cursor=${cursor}`);
      listed.push(...next.data.map(({ phone_number }) => phone_number));
      cursor = next.pagination.next_cursor;
    }

    expect(listed).toEqual(gone < page_size ? held : left);
  });

  it('is asked with the credentials in the header alone, and for no more numbers than are shown soon', async () => {
    const { integration_id, secret } = await newAccount(client, MANY, { provider });

    await read(integration_id, '?page_size=100');

    const calls = await callsWith(secret);
    expect(calls.length).toBeLessThanOrEqual(6);
    for (const { path, headers } of calls) {
      expect(path).not.toContain(secret);
      expect(headers['authorization']).toMatch(/^(?:Basic|Bearer) /);
    }
  });
});

describe('a number of the account', () => {
  const [ours, others, free, squatted] = Array.from({ length: 4 }, unusedNumber);

  it.each([
    ['twilio', /^PN[0-9a-f]{32}$/, 'words of the provider'],
    ['telnyx', /^\d+$/, null],
    ['vonage', /^\d+$/, null],
    ['plivo', /^\d+$/, 'words of the provider'],
  ] as const)('of %s has the provider’s id, its name and what it can do', async (provider, id, friendly_name) => {
    const number = unusedNumber();
    const { integration_id } = await newAccount(client, [number], { provider });

    expect(await read(integration_id)).toEqual({
      data: [
        {
          phone_number: number,
          provider_number_id: expect.stringMatching(id),
          friendly_name,
          capabilities: { voice: true, sms: provider !== 'telnyx' },
          import_status: 'available',
          phone_number_id: null,
        },
      ],
      pagination: { next_cursor: null, has_more: false, page_size: 20 },
    });
  });

  it('is imported, taken or available, and names nobody else’s id', async () => {
    const holder = await newClient();
    const numbers = [ours, others, free, squatted].map(String);
    const { integration_id } = await newAccount(client, numbers);
    const theirs = await newAccount(holder, numbers);
    const phone_number_id = await importNumber(client, integration_id, String(ours));
    await call(holder, 'POST', '/api/phone-numbers', {
      body: { phone_number: others, provider: 'twilio', integration_id: theirs.integration_id },
    });
    await importNumber(holder, theirs.integration_id, String(squatted));

    const { data } = await read(integration_id);

    const statuses = Object.fromEntries(data.map((number) => [number.phone_number, number]));
    expect(statuses).toMatchObject({
      [String(ours)]: { import_status: 'imported', phone_number_id },
      [String(others)]: { import_status: 'taken', phone_number_id: null },
      [String(free)]: { import_status: 'available', phone_number_id: null },
      [String(squatted)]: { import_status: 'available', phone_number_id: null },
    });
  });

  /** From now on a provider answers so, in place of the simulation. */
  function answerWith(body: unknown) {
    const asked = vi.fn<typeof fetch>(async () => Response.json(body));
    vi.stubGlobal('fetch', asked);
    return asked;
  }

  const listed = async (body: unknown) => {
    const { integration_id } = await newAccount(client, []);
    const asked = answerWith(body);
    const answer = await call(client, 'GET', pathOf(integration_id));
    expect(asked).toHaveBeenCalled();
    return answer;
  };

  const twilioNumber = (fields: object) => ({
    sid: 'PN0123456789abcdef0123456789abcdef',
    phone_number: '+14155550199',
    friendly_name: 'x',
    capabilities: { voice: true, sms: true },
    ...fields,
  });

  it.each([
    ['x'.repeat(65), 'x'.repeat(64)],
    ['😀'.repeat(65), '😀'.repeat(64)],
    ['a\u0000b\u001b[31mc\u2028d\u202Ee\u2066f\u200Fg\u061Ch', 'ab[31mcdefgh'],
    ['  spaced  ', 'spaced'],
    ['\u202E\u0007', null],
    ['', null],
    [null, null],
    [{ text: 'x' }, null],
    ['<b>bold</b>', '<b>bold</b>'],
  ])('that is called %j is called %j', async (friendly_name, shown) => {
    const { body } = await listed({ incoming_phone_numbers: [twilioNumber({ friendly_name })], next_page_uri: null });

    expect(page.parse(body).data[0]?.friendly_name).toBe(shown);
  });

  it('is left out where it is no telephone number', async () => {
    const numbers = ['12345', '+123', '+0123456789', 'sip:x@example.com', "+1415'; DROP"];
    const { body } = await listed({
      incoming_phone_numbers: [...numbers, '+14155550199'].map((phone_number) => twilioNumber({ phone_number })),
      next_page_uri: null,
    });

    expect(page.parse(body).data.map(({ phone_number }) => phone_number)).toEqual(['+14155550199']);
  });

  it.each([
    ['a number without its number', { incoming_phone_numbers: [{ sid: 'PN1' }], next_page_uri: null }],
    ['an id of another form', { incoming_phone_numbers: [twilioNumber({ sid: '<b>' })], next_page_uri: null }],
    ['no list', { incoming_phone_numbers: 'none', next_page_uri: null }],
    ['another host as the next page', { incoming_phone_numbers: [], next_page_uri: 'https://example.com/?Page=1' }],
    ['a next page without a number', { incoming_phone_numbers: [], next_page_uri: '/x?PageToken=PA1' }],
    ['a token of other characters', { incoming_phone_numbers: [], next_page_uri: '/x?Page=1&PageToken=a/../b' }],
    ['a page beyond all', { incoming_phone_numbers: [], next_page_uri: '/x?Page=99999999&PageToken=PA1' }],
  ])('is not read out of %s: a 502, with none of the provider’s words', async (_, body) => {
    const answer = await listed(body);

    expect(answer).toMatchObject({ status: 502, body: { code: 'provider_unavailable' } });
    expect(answer.text).not.toContain('example.com');
  });

  it('is looked for in at most six pages of a list that has no end', async () => {
    const { integration_id } = await newAccount(client, []);
    const asked = answerWith({ incoming_phone_numbers: [], next_page_uri: '/x?Page=1&PageToken=PA1' });

    const { status, body } = await call(client, 'GET', pathOf(integration_id));

    expect(status).toBe(200);
    expect(page.parse(body)).toMatchObject({ data: [], pagination: { has_more: true } });
    expect(asked).toHaveBeenCalledTimes(6);
  });
});

describe('an account that cannot be listed', () => {
  beforeEach(() => {
    for (const method of ['warn', 'error'] as const) vi.spyOn(console, method).mockImplementation(() => {});
  });

  it.each(
    providerNames.flatMap((provider) =>
      (
        [
          ['refused', 422, 'credentials_refused'],
          ['rate-limited', 502, 'provider_unavailable'],
          ['broken', 502, 'provider_unavailable'],
          ['redirects', 502, 'provider_unavailable'],
          ['plain-text', 502, 'provider_unavailable'],
          ['another-shape', 502, 'provider_unavailable'],
          ['endless', 502, 'provider_unavailable'],
          ['disconnects', 502, 'provider_unavailable'],
        ] as const
      ).map(([answer, status, code]) => [provider, answer, status, code] as const),
    ),
  )('of %s, which is %s, is a %i %s', async (provider, word, status, code) => {
    const { integration_id } = await newAccount(client, MANY.slice(0, 3), { provider, answers: [word] });

    const answer = await call(client, 'GET', pathOf(integration_id));

    expect(answer).toMatchObject({ status, body: { code } });
    expect(answer.text).not.toContain('words of the provider');
  });

  it.each<[Provider, string]>([
    ['twilio', 'credentials_limited'],
    ['telnyx', 'credentials_limited'],
    ['vonage', 'provider_unavailable'],
    ['plivo', 'provider_unavailable'],
  ])('of %s, which restricts the key, is %s', async (provider, code) => {
    const { integration_id } = await newAccount(client, [], { provider, answers: ['restricted'] });

    expect(await call(client, 'GET', pathOf(integration_id))).toMatchObject({ body: { code } });
  });

  it('counts as refused credentials where no provider had accepted them, and once for each', async () => {
    const { integration_id } = await newAccount(client, [], { answers: ['refused'] });

    await call(client, 'GET', pathOf(integration_id));
    await call(client, 'GET', pathOf(integration_id));

    expect(await rowOf('integrations', integration_id)).toMatchObject({
      verification_status: 'refused',
      last_verdict: 'refused',
    });
    const { results } = await env.DB.prepare(
      'SELECT refused_check_count AS n FROM organizations WHERE organization_id = ?',
    )
      .bind(client.organization_id)
      .all();
    expect(results).toEqual([{ n: 1 }]);
  });

  it('is only doubted where the provider had accepted the credentials', async () => {
    const { integration_id } = await newAccount(client, [], { answers: ['good', 'refused'] });
    await call(client, 'POST', `/api/integrations/${integration_id}/verify`);

    expect(await call(client, 'GET', pathOf(integration_id))).toMatchObject({ status: 422 });

    expect(await rowOf('integrations', integration_id)).toMatchObject({
      verification_status: 'verified',
      last_verdict: 'doubted',
    });
  });

  it('is not asked once 20 credentials were refused in an hour', async () => {
    const { integration_id, secret } = await newAccount(client, []);
    await env.DB.prepare('UPDATE organizations SET checks_stopped_until = unixepoch() + 60 WHERE organization_id = ?')
      .bind(client.organization_id)
      .run();

    expect(await call(client, 'GET', pathOf(integration_id))).toMatchObject({
      status: 429,
      body: { code: 'verification_limited' },
    });
    expect(await callsWith(secret)).toEqual([]);
  });

  it('is not asked beyond the organization’s budget, of which each call to the provider takes one', async () => {
    const starter = await newClient({ tier: 'starter' });
    const { integration_id, secret } = await newAccount(starter, MANY, { provider: 'plivo' });

    let query = '?page_size=100';
    let answer = await call(starter, 'GET', `${pathOf(integration_id)}${query}`);
    while (answer.status === 200) {
      query = `?page_size=100&cursor=${page.parse(answer.body).pagination.next_cursor}`;
      answer = await call(starter, 'GET', `${pathOf(integration_id)}${query}`);
    }

    expect(answer).toMatchObject({ status: 429, body: { code: 'rate_limited' } });
    expect(answer.headers.get('RateLimit')).toBe('"starter_provider";r=0');
    expect((await callsWith(secret)).length).toBeLessThanOrEqual(30);
  });

  it.each(keyChanges)('is not asked for a key that %s', async (_, assignment, status, code) => {
    const { integration_id, secret } = await newAccount(client, []);
    await call(client, 'GET', '/api/integrations');
    await changeKey(client, assignment);

    expect(await call(client, 'GET', pathOf(integration_id))).toMatchObject({ status, body: { code } });
    expect(await callsWith(secret)).toEqual([]);
  });

  it('is not asked for another organization, nor for a role that may not import', async () => {
    const { integration_id, secret } = await newAccount(client, []);
    const stranger = await newClient();
    const user = await newClient({ organization_id: client.organization_id, role: 'user' });

    expect(await call(stranger, 'GET', pathOf(integration_id))).toMatchObject({
      status: 404,
      body: { code: 'integration_not_found' },
    });
    expect(await call(user, 'GET', pathOf(integration_id))).toMatchObject({
      status: 403,
      body: { required_permission: 'phone_numbers:create' },
    });
    expect(await callsWith(secret)).toEqual([]);
  });

  it('is a 409 where a restore of the database lost its credentials', async () => {
    const { integration_id } = await newAccount(client, []);
    await env.DB.prepare(`UPDATE integrations SET status = 'credentials_missing' WHERE integration_id = ?`)
      .bind(integration_id)
      .run();

    expect(await call(client, 'GET', pathOf(integration_id))).toMatchObject({
      status: 409,
      body: { code: 'credentials_missing' },
    });
  });
});

describe('a cursor', () => {
  it('is of one integration alone', async () => {
    const [one, other] = [await newAccount(client, MANY), await newAccount(client, MANY)];
    const { pagination } = await read(one.integration_id, '?page_size=1');

    const answer = await call(client, 'GET', `${pathOf(other.integration_id)}?cursor=${pagination.next_cursor}`);

    expect(answer).toMatchObject({ status: 422, body: { errors: [{ path: 'cursor' }] } });
    expect(await callsWith(other.secret)).toEqual([]);
  });

  it.each([
    [{ page: -1 }],
    [{ page: 1.5 }],
    [{ page: 1e9 }],
    [{ token: '../../x' }],
    [{ token: 'a&PageSize=1' }],
    [{ path: '/v2/balance' }],
    [{ after: 'x' }],
  ])('with %j in it is refused before the provider is asked', async (change) => {
    const { integration_id, secret } = await newAccount(client, MANY);
    const { pagination } = await read(integration_id, '?page_size=1');
    const before = await callsWith(secret);
    const content: object = JSON.parse(atob(String(pagination.next_cursor)));
    const cursor = btoa(JSON.stringify({ ...content, ...change }));

    const answer = await call(client, 'GET', `${pathOf(integration_id)}?cursor=${encodeURIComponent(cursor)}`);

    expect(answer).toMatchObject({ status: 422, body: { errors: [{ path: 'cursor' }] } });
    expect(await callsWith(secret)).toEqual(before);
  });

  it('holds no path, no address and no credential', async () => {
    const { integration_id, secret } = await newAccount(client, MANY);
    const first = await read(integration_id, '?page_size=100');
    const { pagination } = await read(integration_id, `?page_size=100&cursor=${first.pagination.next_cursor}`);

    const content = atob(String(pagination.next_cursor));

    expect(content).not.toMatch(/\/|http|AC[0-9a-f]/);
    expect(content).not.toContain(secret);
  });
});

it('asks D1, KV, the provider and D1 again', async () => {
  const { integration_id } = await newAccount(client, MANY);
  const { bindings, calls } = countedBindings();

  await call(client, 'GET', pathOf(integration_id), { bindings });

  expect(calls).toEqual(['DB.batch', 'CREDENTIALS.get', 'provider.fetch', 'DB.batch']);
});
