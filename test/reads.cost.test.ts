/** What reads cost, counted, among 100,000 rows of the organization and as many of another. Never timed. */
import { env } from 'cloudflare:workers';
import { decodeBase64Url, encodeBase64Url } from 'hono/utils/encode';
import { beforeAll, describe, expect, it } from 'vitest';
import { hashKey } from '../src/auth/api-key.ts';
import { forgetKey } from '../src/auth/key-cache.ts';
import { eventIdsFrom } from '../src/ids.ts';
import { countedBindings, interceptedBindings } from './bindings.ts';
import { call, newClient, page, start } from './fixtures.ts';
import type { Client } from './fixtures.ts';

const ROWS = 100_000;
const MOST_COUNTED = 10_001;
const SEEDING_MILLISECONDS = 300_000;
const FIRST_SECOND = 1_700_000_000;
const MIDDLE = ROWS / 2;
const NEAR_END = ROWS - 2_000;

let client: Client;
let other: Client;

/** Runs an `INSERT … SELECT … FROM n`, with `n.i` from 0 on and the owner as ?1. */
const seed = (owner: Client, insert: string) =>
  env.DB.prepare(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ${ROWS}) ${insert}`)
    .bind(owner.organization_id)
    .run();

const secondsOf = (i: number) => FIRST_SECOND + i;
const hexOf = (i: number) => i.toString(16).padStart(8, '0');
const integrationOf = (i: number) => `intg_0000${hexOf(i)}`;
// Between the two halves of the organization's numbers lie all of the other's.
const numberOf = (i: number) => `+141${i < MIDDLE ? 5 : 7}${1_000_000 + i}`;
const keyOf = (i: number) => `apikey_0000${hexOf(i)}`;
const eventOf = (i: number) => `${eventIdsFrom(secondsOf(i))}-7000-8000-0000${hexOf(i)}`;
const iso = (i: number) => new Date(secondsOf(i) * 1000).toISOString().replace('.000Z', 'Z');

// Of each filter's rows, some are rare: a statement that reads the list and drops what does not match is dear there.
// Of two filters, each has many rows and both together have few: so is one that seeks by one of them and drops by the other.
const COMMON_NUMBERS = integrationOf(ROWS - 1);
const RARE_NUMBERS = integrationOf(ROWS - 2);
const RARE_TARGET = integrationOf(7);
const RARE_ACTOR = keyOf(7);

const filterOfTarget = (name: 'actor_key_id' | 'action') =>
  `target_id=${RARE_TARGET}&${name}=${name === 'action' ? 'integration.created' : keyOf(1)}`;

beforeAll(async () => {
  [client, other] = [await newClient(), await newClient()];
  for (const owner of [client, other]) {
    const ours = owner === client;
    const id = (prefix: string) => `'${prefix}_${ours ? '0000' : 'ffff'}' || printf('%08x', i)`;
    const by = (rare: string, common: string, most: string) =>
      `iif(i % 1000 = 7, '${rare}', iif(i % 1000 = 0 OR i % 10 = 3, '${common}', '${most}'))`;
    // Half of the list was made in one second.
    await seed(
      owner,
      `INSERT INTO integrations (organization_id, integration_id, name, provider, category, status, credentials_version,
         data_key, kek_id, created_at, updated_at)
       SELECT ?1, ${id('intg')}, 'Seeded', ${by('vonage', 'plivo', 'twilio')}, 'telephony',
         iif(i % 10 = 0, 'credentials_missing', 'active'), 'v', 'k', 'k1', max(i, ${MIDDLE}) + ${FIRST_SECOND}, 0 FROM n`,
    );
    await seed(
      owner,
      `INSERT INTO phone_numbers (phone_number_id, organization_id, integration_id, phone_number, provider, status,
         assigned_agent_id, supports_inbound, supports_outbound, created_at, updated_at)
       SELECT ${id('phon')}, ?1, ${ours ? by(RARE_NUMBERS, COMMON_NUMBERS, integrationOf(1)) : 'NULL'},
         '+141' || ${ours ? `iif(i < ${MIDDLE}, 5, 7)` : '6'} || (1000000 + i), '${ours ? 'twilio' : 'sip'}',
         iif(i % 10 = 0, 'assigned', 'free'), iif(i % 10 = 0, 'agent_000000000001', NULL), 0, 0, 0, 0 FROM n`,
    );
    await seed(
      owner,
      `INSERT INTO api_keys (key_id, organization_id, user_id, name, role, key_hash, prefix, status, created_at,
         last_used_at, expires_at)
       SELECT ${id('apikey')}, ?1, 'user_seeded', 'Seeded', 'user', '${ours}' || i, 'bk_live_aaaa',
         'revoked', max(i, ${MIDDLE}) + ${FIRST_SECOND}, NULL, NULL FROM n`,
    );
    await seed(
      owner,
      `INSERT INTO audit_events SELECT ?1, printf('%08x-%04x-7000-8000-0000%08x', ms >> 16, ms & 65535, i),
         iif(i % 1000 = 7, 'integration.deleted', 'integration.created'), iif(i % 1000 = 7, '${RARE_TARGET}', ${id('intg')}),
         iif(i % 1000 = 7, '${RARE_ACTOR}', '${keyOf(1)}'), 'request',
         json_object('integration_id', ${id('intg')}, 'organization_id', ?1, 'name', 'Seeded', 'provider', 'twilio',
           'category', 'telephony', 'status', 'active', 'credentials_version', 'v', 'created_at', 0, 'updated_at', 0),
         ${FIRST_SECOND} + i FROM (SELECT i, (${FIRST_SECOND} + i) * 1000 AS ms FROM n)`,
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

interface List {
  path: string;
  key: (i: number) => (string | number)[];
  filters: string[];
}

const lists: List[] = [
  {
    path: '/api/integrations',
    key: (i) => [secondsOf(Math.max(i, MIDDLE)), integrationOf(i)],
    filters: ['provider=vonage', 'provider=plivo', 'status=active', 'status=credentials_missing']
      .concat('provider=plivo&status=credentials_missing', 'provider=vonage&status=active')
      .flatMap((filter) => [filter, `${filter}&category=telephony`])
      .concat('', 'category=telephony'),
  },
  {
    path: '/api/phone-numbers',
    key: (i) => [numberOf(i)],
    filters: [
      '',
      'status=free',
      'status=assigned',
      `integration_id=${COMMON_NUMBERS}`,
      `integration_id=${RARE_NUMBERS}`,
      `integration_id=${COMMON_NUMBERS}&status=assigned`,
      `integration_id=${RARE_NUMBERS}&status=free`,
    ],
  },
  {
    path: '/api/api-keys',
    key: (i) => [secondsOf(Math.max(i, MIDDLE)), keyOf(i)],
    filters: [''],
  },
  {
    path: '/api/audit-events',
    key: (i) => [eventOf(i)],
    filters: [
      '',
      'action=integration.created',
      'action=integration.deleted',
      `target_id=${RARE_TARGET}`,
      `actor_key_id=${keyOf(1)}`,
      `actor_key_id=${RARE_ACTOR}`,
      `since=${iso(1)}`,
      `until=${iso(ROWS - 1)}`,
      `since=${iso(1)}&until=${iso(ROWS - 1)}`,
      `target_id=${RARE_TARGET}&actor_key_id=${RARE_ACTOR}`,
      `action=integration.deleted&target_id=${RARE_TARGET}`,
      `action=integration.created&actor_key_id=${keyOf(1)}`,
      `action=integration.deleted&actor_key_id=${RARE_ACTOR}`,
      `action=integration.deleted&target_id=${RARE_TARGET}&actor_key_id=${RARE_ACTOR}`,
    ],
  },
];

const pageBound = (size: number) => 3 * size + 10;

describe.each(lists)('the rows that a page of $path reads', ({ path, key, filters }) => {
  describe.each(filters)('with ?%s', (filter) => {
    it.each([20, 100])('are few where it has %i rows, at every depth; the first page counts besides', async (size) => {
      const pageOf = (...query: string[]) => counted(`${path}?${[filter, ...query].filter(Boolean).join('&')}`);

      const first = await pageOf(`page_size=${size}`);
      expect(first.data).toHaveLength(size);
      expect(first.rowsRead).toBeLessThanOrEqual(pageBound(size) + MOST_COUNTED);

      const { next_cursor } = await pageOf('page_size=1');
      for (const place of [key(1), key(MIDDLE - 10), key(NEAR_END)]) {
        const next = await pageOf(`page_size=${size}`, `cursor=${moved(String(next_cursor), place)}`);
        expect(next.data).not.toEqual([]);
        expect(next.rowsRead).toBeLessThanOrEqual(pageBound(size));
      }
    });
  });
});

describe('the rows that a page of audit events reads', () => {
  it.each([
    ['from a second near the end', `since=${iso(NEAR_END)}`, 2_000],
    ['before a second near the beginning', `until=${iso(2_000)}`, 2_000],
    ['of a window', `since=${iso(MIDDLE)}&until=${iso(MIDDLE + 2_000)}`, 2_000],
  ])('are those %s, and no others', async (_, filter, count) => {
    const first = await counted(`/api/audit-events?page_size=20&${filter}`);

    expect(first.total_count).toBeGreaterThanOrEqual(count);
    expect(first.total_count).toBeLessThan(count + 10);
    expect(first.rowsRead).toBeLessThanOrEqual(pageBound(20) + count + 10);
    const next = await counted(`/api/audit-events?page_size=20&${filter}&cursor=${first.next_cursor}`);
    expect(next.data).toHaveLength(20);
    expect(next.rowsRead).toBeLessThanOrEqual(pageBound(20));
  });
});

describe('the rows that audit events under two filters read, each of which many events pass, and none both', () => {
  it.each([
    ['of an action and an actor, are none', `action=integration.deleted&actor_key_id=${keyOf(1)}`, 5],
    ['of a target and an actor, are the target’s, once to list and once to count', filterOfTarget('actor_key_id'), 205],
    ['of a target and an action, are the target’s, once to list and once to count', filterOfTarget('action'), 205],
  ])('%s', async (_, filter, most) => {
    const first = await counted(`/api/audit-events?${filter}`);

    expect(first.total_count).toBe(0);
    expect(first.rowsRead).toBeLessThanOrEqual(most);
  });
});

describe('the round trips of a read', () => {
  const coolIsolate = async () => forgetKey(hashKey(client.raw_key));

  const paths = [
    ...lists.map(({ path }) => path),
    `/api/integrations/${integrationOf(1)}`,
    '/api/phone-numbers/phon_000000000001',
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

  it.each(['/api/integrations/intg_ffffffffffff', '/api/phone-numbers/phon_ffffffffffff'])(
    '%s are no fewer for what is not there',
    async (path) => {
      expect(await trips(path)).toEqual({ status: 404, calls: ['DB.batch'] });
    },
  );

  it.each(paths)('%s are none where the query or the path is not valid', async (path) => {
    const wrong = path.includes('_') ? `${path}x` : `${path}?unknown=1`;

    expect(await trips(wrong)).toEqual({ status: 422, calls: [] });
  });
});

describe('the rows that one resource costs', () => {
  it.each([`/api/integrations/${integrationOf(MIDDLE)}`, '/api/phone-numbers/phon_0000000000ff'])(
    '%s are 1',
    async (path) => {
      let rowsRead = 0;
      const bindings = interceptedBindings(async (_, carryOut) => {
        const result = await carryOut();
        if (Array.isArray(result)) for (const { meta } of result) rowsRead += meta.rows_read;
        return result;
      });

      const { status } = await start(client, 'GET', path, { bindings });

      expect(status).toBe(200);
      expect(rowsRead).toBe(1);
    },
  );
});
