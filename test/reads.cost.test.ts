/** What reads cost, counted, among 30,000 rows of the organization and 3,000 of another. Never timed. */
import { env } from 'cloudflare:workers';
import { decodeBase64Url, encodeBase64Url } from 'hono/utils/encode';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { forgetKey } from '../src/worker/callers/caller.ts';
import { hashKey } from '../src/worker/callers/raw-key.ts';
import { countedBindings, interceptedBindings } from './bindings.ts';
import { call, newClient, page, start } from './fixtures.ts';
import type { Client } from './fixtures.ts';
import { accepted, lists, refused } from './lists.ts';

const ROWS = 30_000;
const OTHERS_ROWS = 3_000;
const MOST_COUNTED = 1001;
const SEEDING_MILLISECONDS = 300_000;
const FIRST_SECOND = 1_700_000_000;
const MIDDLE = ROWS / 2;
const NEAR_END = ROWS - 2_000;

let client: Client;
let other: Client;

/** Runs an `INSERT … SELECT … FROM n`, with `n.i` from 0 on and the owner as ?1. */
const seed = (owner: Client, insert: string) =>
  env.DB.prepare(
    `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ${owner === client ? ROWS : OTHERS_ROWS}) ${insert}`,
  )
    .bind(owner.organization_id)
    .run();

const secondsOf = (i: number) => FIRST_SECOND + i;
const hexOf = (i: number) => i.toString(16).padStart(8, '0');
const integrationOf = (i: number) => `intg_0000${hexOf(i)}`;
// Between the two halves of the organization's numbers lie all of the other's.
const numberOf = (i: number) => `+141${i < MIDDLE ? 5 : 7}${1_000_000 + i}`;
const endpointOf = (i: number) => `whep_0000${hexOf(i)}`;
const keyOf = (i: number) => `apikey_0000${hexOf(i)}`;
const iso = (i: number) => new Date(secondsOf(i) * 1000).toISOString().replace('.000Z', 'Z');

// Of each filter's rows, some are rare: a statement that reads the list and drops what does not match is dear there.
// Of two filters, each has many rows and both together have few: so is one that seeks by one of them and drops by the other.
const COMMON_NUMBERS = integrationOf(ROWS - 1);
const RARE_NUMBERS = integrationOf(ROWS - 2);
const COMMON_AGENT = 'agent_000000000001';
const RARE_AGENT = 'agent_000000000002';
const RARE_TARGET = integrationOf(7);
const RARE_ACTOR = keyOf(7);

// The cache refreshes a key as it ages: it stays as old as it is.
beforeAll(() => {
  vi.useFakeTimers({ toFake: ['Date'] });
  return () => vi.useRealTimers();
});

beforeAll(async () => {
  [client, other] = [await newClient(), await newClient()];
  for (const owner of [client, other]) {
    const ours = owner === client;
    const id = (prefix: string) => `'${prefix}_${ours ? '0000' : 'ffff'}' || printf('%08x', i)`;
    const by = (rare: string, common: string, most: string) =>
      `iif(i % 100 = 7, '${rare}', iif(i % 100 = 0 OR i % 10 = 3, '${common}', '${most}'))`;
    // Half of the list was made in one second.
    await seed(
      owner,
      `INSERT INTO integrations (organization_id, integration_id, name, provider, category, status, credentials_version,
         data_key, kek_id, created_at, updated_at, verification_status, name_folded)
       SELECT ?1, ${id('intg')}, 'Seeded ' || printf('%05d', i), ${by('vonage', 'plivo', 'twilio')}, 'telephony',
         iif(i % 10 = 0, 'credentials_missing', 'active'), 'v', 'k', 'k1', max(i, ${MIDDLE}) + ${FIRST_SECOND}, 0,
         ${by('refused', 'limited', 'verified')}, 'seeded ' || printf('%05d', i) FROM n`,
    );
    await seed(
      owner,
      `INSERT INTO phone_numbers (phone_number_id, organization_id, integration_id, phone_number, provider, status,
         assigned_agent_id, supports_inbound, supports_outbound, created_at, updated_at, ownership)
       SELECT ${id('phon')}, ?1, ${ours ? by(RARE_NUMBERS, COMMON_NUMBERS, integrationOf(1)) : 'NULL'},
         '+141' || ${ours ? `iif(i < ${MIDDLE}, 5, 7)` : '6'} || (1000000 + i), ${ours ? by('vonage', 'plivo', 'twilio') : `'sip'`},
         iif(i % 10 = 0, 'assigned', 'free'), iif(i % 10 = 0, iif(i % 1000 = 0, '${RARE_AGENT}', '${COMMON_AGENT}'), NULL), 0, 0, 0, 0,
         iif(i % 100 IN (7, 50), 'unconfirmed', 'confirmed') FROM n`,
    );
    await seed(
      owner,
      `INSERT INTO api_keys (key_id, organization_id, user_id, name, role, key_hash, prefix, status, created_at,
         last_used_at, expires_at)
       SELECT ${id('apikey')}, ?1, 'user_seeded', 'Seeded', 'user', '${ours}' || i, 'bk_live_aaaa',
         'revoked', max(i, ${MIDDLE}) + ${FIRST_SECOND}, NULL, NULL FROM n`,
    );
    // More than any organization can have.
    await seed(
      owner,
      `INSERT INTO webhook_endpoints (organization_id, endpoint_id, url, events, enabled, created_at, updated_at,
         cursor_at, cursor_sequence)
       SELECT ?1, ${id('whep')}, 'https://hooks.example.com/', '["*"]', 0, max(i, ${MIDDLE}) + ${FIRST_SECOND}, 0, 0, 0
       FROM n`,
    );
    await seed(
      owner,
      `INSERT INTO audit_events (organization_id, event_id, action, target_id, actor_key_id, request_id, state, created_at, sequence) SELECT ?1, printf('018d0cab-c440-7abc-9def-${ours ? '0000' : 'ffff'}%08x', i),
         iif(i % 100 = 7, 'integration.deleted', 'integration.created'), iif(i % 100 = 7, '${RARE_TARGET}', ${id('intg')}),
         iif(i % 100 = 7, '${RARE_ACTOR}', '${keyOf(1)}'), 'request',
         json_object('integration_id', ${id('intg')}, 'organization_id', ?1, 'name', 'Seeded', 'provider', 'twilio',
           'category', 'telephony', 'status', 'active', 'credentials_version', 'v', 'created_at', 0, 'updated_at', 0),
         ${FIRST_SECOND} + i, i + 1 FROM n`,
    );
  }
}, SEEDING_MILLISECONDS);

/** One page, and the rows that all statements of its batches read. */
async function counted(path: string) {
  let rowsRead = 0;
  const bindings = interceptedBindings(async (name, carryOut) => {
    const result = await carryOut();
    if (name === 'DB.batch' && Array.isArray(result)) for (const { meta } of result) rowsRead += meta.rows_read;
    return result;
  });
  return { ...(await page(client, path, { bindings })), rowsRead };
}

/** A cursor like this one, further on. */
function moved(cursor: string, after: (string | number)[]): string {
  const content: object = JSON.parse(new TextDecoder().decode(decodeBase64Url(cursor)));
  return encodeBase64Url(new TextEncoder().encode(JSON.stringify({ ...content, after })).buffer);
}

/** How deep a page lies: the key of the row before it. */
const keysOf: Record<string, (i: number, names: string[]) => (string | number)[]> = {
  '/api/integrations': (i, names) => [
    names.includes('name_prefix') ? `seeded ${String(i).padStart(5, '0')}` : secondsOf(Math.max(i, MIDDLE)),
    integrationOf(i),
  ],
  '/api/phone-numbers': (i) => [numberOf(i)],
  '/api/api-keys': (i) => [secondsOf(Math.max(i, MIDDLE)), keyOf(i)],
  '/api/audit-events': (i) => [secondsOf(i), i + 1],
  '/api/webhook-endpoints': (i) => [secondsOf(Math.max(i, MIDDLE)), endpointOf(i)],
};

/** Of each filter: values of most rows, of few among them, and of none. */
const valuesOf: Record<string, string[]> = {
  'provider of /api/integrations': ['twilio', 'plivo', 'vonage', 'telnyx'],
  'provider of /api/phone-numbers': ['twilio', 'plivo', 'vonage', 'sip'],
  name_prefix: ['Seeded', 'seeded%200', 'SEEDED%2012345', 'none'],
  phone_number: [numberOf(MIDDLE), '+14161000001', '+19995550100'].map(encodeURIComponent),
  phone_number_prefix: ['+1', '+1415', '+14171029', '+1416', numberOf(MIDDLE)].map(encodeURIComponent),
  assigned_agent_id: [COMMON_AGENT, RARE_AGENT, 'agent_nobody'],
  category: ['telephony'],
  'status of /api/integrations': ['active', 'credentials_missing'],
  verification: ['verified', 'limited', 'refused', 'unreachable'],
  'status of /api/phone-numbers': ['free', 'assigned'],
  ownership: ['confirmed', 'unconfirmed'],
  integration_id: [integrationOf(1), COMMON_NUMBERS, RARE_NUMBERS, 'intg_ffffffffffff'],
  action: ['integration.created', 'integration.deleted', 'phone_number.released'],
  target_id: [RARE_TARGET, integrationOf(1), 'intg_ffffffffffff'],
  actor_key_id: [keyOf(1), RARE_ACTOR, 'apikey_ffffffffffff'],
  since: [iso(0), iso(MIDDLE), iso(NEAR_END), iso(ROWS)],
  until: [iso(ROWS), iso(MIDDLE + 100), iso(2_000), iso(0)],
};

/** Query strings of these filters, with each value beside each of the others. */
const queriesOf = (path: string, filters: string[]): string[] =>
  filters.reduce(
    (queries, name) => {
      const values = valuesOf[name] ?? valuesOf[`${name} of ${path}`];
      if (!values) throw new Error(`no values for ${name}`);
      // Beside a number, which is one row at most, one value of each is enough.
      const tried = filters.includes('phone_number') && name !== 'phone_number' ? values.slice(0, 1) : values;
      return queries.flatMap((query) => tried.map((value) => `${query}&${name}=${value}`));
    },
    [''],
  );

const pageBound = (size: number) => 3 * size + 10;

describe('the lists', () => {
  it('are all here, each with more rows than are counted', async () => {
    expect(lists.map(({ path }) => path).toSorted()).toEqual(Object.keys(keysOf).toSorted());
    for (const { path } of lists) {
      expect(await page(client, path)).toMatchObject({ total_count: MOST_COUNTED - 1, total_count_exact: false });
    }
  });
});

describe.each(accepted)('the rows that $path reads under $filtered', ({ path, names }) => {
  it.each([1, 20, 100])('are as few as a page of %i has; the first page counts besides', async (size) => {
    const key = keysOf[path] ?? (() => []);
    const queries = queriesOf(path, names).flatMap((query) => [`&order=asc${query}`, `&order=desc${query}`]);
    for (const query of queries) {
      const pageOf = async (cursor = '') => ({
        query: `${query}${cursor}`,
        ...(await counted(`${path}?page_size=${size}${query}${cursor}`)),
      });

      const first = await pageOf();
      const most = pageBound(size) + Math.min(first.total_count + 1, MOST_COUNTED);
      expect(first, query).toSatisfy(({ rowsRead }) => rowsRead <= most);

      const { next_cursor } = first;
      if (next_cursor === null) continue;
      const places = [1, MIDDLE - 10, NEAR_END].map((i) => key(i, names)).map((place) => moved(next_cursor, place));
      for (const cursor of [next_cursor, ...places]) {
        const next = await pageOf(`&cursor=${cursor}`);
        expect(next, query).toSatisfy(({ rowsRead }) => rowsRead <= pageBound(size));
      }
    }
  });
});

describe.each(refused)('$path under $filtered', ({ path, names, faults }) => {
  it('reads nothing: it is refused, and told what may go together', async () => {
    for (const query of queriesOf(path, names).slice(0, 4)) {
      const { bindings, calls } = countedBindings();

      const { status, body } = await call(client, 'GET', `${path}?page_size=1${query}`, { bindings });

      expect(status).toBe(422);
      expect(body).toMatchObject({ code: 'validation_failed', errors: faults });
      expect(calls).toEqual([]);
    }
  });
});

describe('the round trips of a read', () => {
  const coolIsolate = async () => forgetKey(await hashKey(client.raw_key));

  const paths = [
    ...lists.map(({ path }) => path),
    `/api/integrations/${integrationOf(1)}`,
    '/api/phone-numbers/phon_000000000001',
    `/api/api-keys/${keyOf(1)}`,
    `/api/webhook-endpoints/${endpointOf(1)}`,
    `/api/webhook-endpoints/${endpointOf(1)}/deliveries`,
  ];

  async function trips(path: string) {
    const { bindings, calls } = countedBindings();
    const answer = await start(client, 'GET', path, { bindings });
    const beforeAnswer = [...calls];
    await answer.settle();
    expect(calls).toEqual(beforeAnswer);
    return { status: answer.status, calls };
  }

  it.each(paths)(
    '%s are one D1 batch in a warm isolate, and one KV read more where only KV knows the key',
    async (path) => {
      // KV forgets a key after a minute, and the tests before may have taken longer.
      await coolIsolate();
      await call(client, 'GET', '/api/nothing');
      expect(await trips(path)).toEqual({ status: 200, calls: ['DB.batch'] });

      await coolIsolate();
      expect(await trips(path)).toEqual({ status: 200, calls: ['KEY_CACHE.get', 'DB.batch'] });
    },
  );

  it.each(lists.map(({ path }) => path))('%s are no more for a page that follows', async (path) => {
    const { next_cursor } = await page(client, path);

    expect(await trips(`${path}?cursor=${next_cursor}`)).toEqual({ status: 200, calls: ['DB.batch'] });
  });

  it.each([
    '/api/integrations/intg_ffffffffffff',
    '/api/phone-numbers/phon_ffffffffffff',
    '/api/api-keys/apikey_ffffffffffff',
    '/api/webhook-endpoints/whep_fffffffffffe',
    '/api/webhook-endpoints/whep_fffffffffffe/deliveries',
  ])('%s are no fewer for what is not there', async (path) => {
    expect(await trips(path)).toEqual({ status: 404, calls: ['DB.batch'] });
  });

  it.each(paths)('%s are none where the query or the path is not valid', async (path) => {
    const wrong = /_\w+$/.test(path) ? `${path}x` : `${path}?unknown=1`;

    expect(await trips(wrong)).toEqual({ status: 422, calls: [] });
  });
});

describe('the rows that one resource costs', () => {
  it.each([
    `/api/integrations/${integrationOf(MIDDLE)}`,
    '/api/phone-numbers/phon_0000000000ff',
    `/api/api-keys/${keyOf(MIDDLE)}`,
    `/api/webhook-endpoints/${endpointOf(MIDDLE)}`,
  ])('%s are 1', async (path) => {
    let rowsRead = 0;
    const bindings = interceptedBindings(async (_, carryOut) => {
      const result = await carryOut();
      if (Array.isArray(result)) for (const { meta } of result) rowsRead += meta.rows_read;
      return result;
    });

    const { status } = await start(client, 'GET', path, { bindings });

    expect(status).toBe(200);
    expect(rowsRead).toBe(1);
  });
});
