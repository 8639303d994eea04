import { env } from 'cloudflare:workers';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { foldName } from '../../src/worker/core/folded-name.ts';
import { interceptedBindings } from '../bindings.ts';
import { createIntegration, emptyStorage, everythingKept, newClient, newOperator } from '../fixtures.ts';
import * as fixtures from '../fixtures.ts';
import type { Operator } from '../fixtures.ts';
import { createOrganization, setStatus } from '../operations.ts';

const PATH = '/operator/organizations';
const ROWS = 5000;
const MOST_COUNTED = 1001;

let operator: Operator;

/** These tests call more often than an operator key may. */
const unlimited: RateLimit = { limit: async () => ({ success: true }) };
const bindings = { ...env, OPERATOR_LIMIT: unlimited };

const call: typeof fixtures.call = (caller, method, path, options) =>
  fixtures.call(caller, method, path, { bindings, ...options });
const page: typeof fixtures.page = (caller, path, options) => fixtures.page(caller, path, { bindings, ...options });

const tiers = ['starter', 'pro', 'enterprise'] as const;
const statuses = ['active', 'suspended', 'offboarding', 'offboarded'] as const;

interface Seeded {
  organization_id: string;
  name: string | null;
  tier: (typeof tiers)[number];
  status: (typeof statuses)[number];
  created_at: number;
}

const firstNames = ['Acme', 'ACME West', 'Ácme', 'Äpfel', 'Straße', 'STRASSE 2', 'zebra', 'Acorn', null] as const;

/** Organizations of each tier and status, with names that fold alike; pairs of them are made in one second. */
const few: Seeded[] = tiers.flatMap((tier, first) =>
  statuses.flatMap((status, second) =>
    firstNames.map((name, third) => ({
      organization_id: `org_${(third * 7 + second * 3 + first) % 10}_${tier}_${status}_${third}`,
      name: name === null ? null : `${name}${second === 0 ? '' : ` ${tier}`}`,
      tier,
      status,
      created_at: 1_700_000_000 + Math.floor(((third * 11 + second * 5 + first) % 60) / 2),
    })),
  ),
);

const insert = `INSERT INTO organizations (organization_id, tier, created_at, status, name, name_folded, is_offboarding)`;

const store = (seeded: Seeded[]) =>
  env.DB.batch(
    seeded.map(({ organization_id, tier, created_at, status, name }) =>
      env.DB.prepare(`${insert} VALUES (?, ?, ?, ?, ?, ?, ?)`).bind(
        organization_id,
        tier,
        created_at,
        status === 'offboarding' ? 'offboarded' : status,
        name,
        name === null ? null : foldName(name),
        Number(status === 'offboarding'),
      ),
    ),
  );

const names = ['name_prefix', 'status', 'tier'] as const;
type Filter = (typeof names)[number];

const combinations = names.reduce<Filter[][]>(
  (subsets, name) => subsets.concat(subsets.map((subset) => [...subset, name])),
  [[]],
);

const valuesOf: Record<Filter, readonly string[]> = {
  name_prefix: ['acme', 'ÁC', 'strass', 'a', 'Z', 'nobody', 'Acme pro'],
  status: statuses,
  tier: tiers,
};

const queriesOf = (filters: Filter[]) =>
  filters.reduce<Partial<Record<Filter, string>>[]>(
    (queries, name) => queries.flatMap((query) => valuesOf[name].map((value) => ({ ...query, [name]: value }))),
    [{}],
  );

/** In the order of SQLite's bytes. */
const bytes = (text: string) =>
  Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join('');

const compare = (one: string, other: string) => (one < other ? -1 : Number(one > other));

/** What a list has, by the contract: oldest first, or by the folded name. */
function expected(query: Partial<Record<Filter, string>>, order: 'asc' | 'desc') {
  const { name_prefix, status, tier } = query;
  const folded = ({ name }: Seeded) => foldName(name ?? '');
  const place = (one: Seeded) =>
    `${name_prefix === undefined ? String(one.created_at).padStart(12, '0') : bytes(folded(one))}\0${one.organization_id}`;
  const found = few.filter(
    (one) =>
      (status === undefined || one.status === status) &&
      (tier === undefined || one.tier === tier) &&
      (name_prefix === undefined || (one.name !== null && folded(one).startsWith(foldName(name_prefix)))),
  );
  const sorted = found.toSorted((one, other) => compare(place(one), place(other)));
  return (order === 'asc' ? sorted : sorted.toReversed()).map(({ organization_id }) => organization_id);
}

const asString = (query: object) => new URLSearchParams(Object.entries(query)).toString();

const idsOf = (data: Record<string, unknown>[]) => data.map(({ organization_id }) => organization_id);

describe('the list of organizations', () => {
  beforeAll(async () => {
    await emptyStorage();
    operator = await newOperator();
    await store(few);
  });

  it('has all of them, oldest first, each as it is', async () => {
    const { data, total_count, total_count_exact } = await page(operator, `${PATH}?page_size=100`);

    expect([total_count, total_count_exact]).toEqual([few.length, true]);
    expect(idsOf(data)).toEqual(expected({}, 'asc').slice(0, 100));
    const [first] = data;
    const stored = few.find(({ organization_id }) => organization_id === first?.['organization_id']);
    expect(first).toEqual({
      organization_id: stored?.organization_id,
      name: stored?.name,
      tier: stored?.tier,
      status: stored?.status,
      metadata: {},
      created_at: new Date(Number(stored?.created_at) * 1000).toISOString().replace('.000Z', 'Z'),
    });
  });

  it('changes nothing that is stored', async () => {
    const before = await everythingKept();

    await page(operator, `${PATH}?name_prefix=a&status=active`);

    expect((await everythingKept()).d1).toMatchObject({ organizations: before.d1['organizations'] });
  });

  describe.each(combinations.map((filters) => ({ filters, filtered: filters.join(' and ') || 'no filter' })))(
    'by $filtered',
    ({ filters }) => {
      it.each(['asc', 'desc'] as const)('has exactly those that meet it, in the order %s', async (order) => {
        for (const query of queriesOf(filters)) {
          const { data, total_count } = await page(operator, `${PATH}?page_size=100&order=${order}&${asString(query)}`);
          const all = expected(query, order);
          expect(idsOf(data), asString(query)).toEqual(all.slice(0, 100));
          expect(total_count, asString(query)).toBe(all.length);
        }
      });

      it.each(['asc', 'desc'] as const)('comes by pages that make the whole, in the order %s', async (order) => {
        const [query = {}] = queriesOf(filters);
        const ids: unknown[] = [];
        let cursor = '';
        do {
          const part = await page(operator, `${PATH}?page_size=4&order=${order}&${asString(query)}${cursor}`);
          ids.push(...idsOf(part.data));
          expect(part.data.length).toBeLessThanOrEqual(4);
          expect(part.has_more).toBe(part.next_cursor !== null);
          expect(part.total_count).toBe(expected(query, order).length);
          cursor = part.next_cursor === null ? '' : `&cursor=${part.next_cursor}`;
        } while (cursor !== '');

        expect(ids).toEqual(expected(query, order));
      });
    },
  );

  it.each([
    ['of another order', 'order=desc', ''],
    ['of another filter', 'status=active', 'status=suspended'],
    ['of a filter, without it', 'tier=pro', ''],
    ['of the list by names', 'name_prefix=a', ''],
    ['of another prefix', 'name_prefix=a', 'name_prefix=b'],
  ])('does not take a cursor %s', async (_, one, other) => {
    const { next_cursor } = await page(operator, `${PATH}?page_size=2&${one}`);
    expect(next_cursor).not.toBeNull();

    expect(await call(operator, 'GET', `${PATH}?page_size=2&cursor=${next_cursor}&${other}`)).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'cursor' }] },
    });
  });

  it('does not take a cursor of an organization’s list', async () => {
    const client = await newClient();
    for (const _ of [1, 2]) await createIntegration(client, undefined, '?verify=false');
    const { next_cursor } = await page(client, '/api/integrations?page_size=1');

    expect((await call(operator, 'GET', `${PATH}?cursor=${next_cursor}`)).status).toBe(422);
  });

  it.each([
    ['status=ended', 'status', 'must be one of active, suspended, offboarding, offboarded'],
    ['status=', 'status', 'must be one of active, suspended, offboarding, offboarded'],
    ['status=active&status=suspended', 'status', 'must be given once'],
    ['tier=gold', 'tier', 'must be one of starter, pro, enterprise'],
    ['name_prefix=', 'name_prefix', 'must be 1 to 100 characters long, without control characters'],
    [`name_prefix=${'n'.repeat(101)}`, 'name_prefix', 'must be 1 to 100 characters long, without control characters'],
    ['name=Acme', 'name', '`name` is not a known parameter'],
    ['prefix=Acme', 'prefix', '`prefix` is not a known parameter'],
    ['page_size=0', 'page_size', 'must be an integer from 1 to 100, given once'],
    ['page_size=101', 'page_size', 'must be an integer from 1 to 100, given once'],
    ['order=name', 'order', 'must be one of asc, desc'],
  ])('is a 422 by %s, and says what to mend', async (query, path, message) => {
    expect(await call(operator, 'GET', `${PATH}?${query}`)).toMatchObject({
      status: 422,
      body: { code: 'validation_failed', errors: [{ path, message }] },
    });
  });
});

describe('one organization', () => {
  beforeEach(async () => {
    await emptyStorage();
    operator = await newOperator();
  });

  it('is shown with how much it has, and how many of its credentials are refused', async () => {
    const client = await newClient({ tier: 'pro' });
    for (const _ of [1, 2, 3]) await createIntegration(client, undefined, '?verify=false');
    await createIntegration(await newClient(), undefined, '?verify=false');
    await env.DB.prepare(
      `UPDATE integrations SET verification_status = 'refused' WHERE integration_id IN
       (SELECT integration_id FROM integrations WHERE organization_id = ? LIMIT 2)`,
    )
      .bind(client.organization_id)
      .run();
    const { organization_id } = client;
    const second = await newClient({ organization_id, tier: 'pro', role: 'user' });
    await call(client, 'DELETE', `/api/api-keys/${second.key_id}`);

    const { status, body } = await call(operator, 'GET', `${PATH}/${organization_id}`);

    expect(status).toBe(200);
    expect(body).toEqual({
      success: true,
      data: {
        organization_id,
        name: null,
        tier: 'pro',
        status: 'active',
        metadata: {},
        created_at: expect.any(String),
        counts: { integrations: 3, phone_numbers: 0, api_keys: 1, refused_verifications: 2 },
      },
    });
  });

  it('is found as it was made', async () => {
    const organization_id = await createOrganization(operator, { name: 'Acme', metadata: { crm: '4711' } });

    expect((await call(operator, 'GET', `${PATH}/${organization_id}`)).body).toMatchObject({
      data: { organization_id, name: 'Acme', metadata: { crm: '4711' } },
    });
  });

  it.each([
    ['offboarded', 1, 'offboarding'],
    ['offboarded', 0, 'offboarded'],
    ['suspended', 0, 'suspended'],
  ] as const)('that is %s (is_offboarding %i) has the status %s', async (stored, isOffboarding, status) => {
    const organization_id = await createOrganization(operator);
    await setStatus(organization_id, stored, isOffboarding);

    expect((await call(operator, 'GET', `${PATH}/${organization_id}`)).body).toMatchObject({ data: { status } });
    expect(idsOf((await page(operator, `${PATH}?status=${status}`)).data)).toEqual([organization_id]);
  });

  it('is a 404 if there is none, and a 422 by an id of another form', async () => {
    expect(await call(operator, 'GET', `${PATH}/org_nobody`)).toMatchObject({
      status: 404,
      body: { code: 'organization_not_found' },
    });
    expect(await call(operator, 'GET', `${PATH}/acme`)).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'organization_id', message: expect.stringContaining('must be org_ followed by') }] },
    });
  });

  it('is seen as it was just left by who sends the bookmark of that', async () => {
    const { headers, text } = await call(operator, 'POST', PATH, { body: { name: 'Acme' } });
    const bookmark = headers.get('X-D1-Bookmark');
    const { organization_id } = JSON.parse(text).data;

    const answer = await call(operator, 'GET', `${PATH}/${organization_id}`, {
      headers: { 'X-D1-Bookmark': bookmark },
    });

    expect(bookmark).not.toBeNull();
    expect(answer.status).toBe(200);
  });
});

describe('the rows that the list reads', () => {
  beforeAll(async () => {
    await emptyStorage();
    operator = await newOperator();
    // Most are active and of one tier; of the others, each has few, and both together fewer.
    await env.DB.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ${ROWS})
       ${insert} SELECT printf('org_%06d', i), iif(i % 100 = 7, 'pro', iif(i % 100 = 0 OR i % 10 = 3, 'enterprise', 'starter')),
         1700000000 + max(i, ${ROWS / 2}),
         iif(i % 100 IN (7, 9), 'offboarded', iif(i % 10 = 0, 'suspended', 'active')),
         'Seeded ' || printf('%06d', i), 'seeded ' || printf('%06d', i), i % 100 = 7 FROM n`,
    ).run();
    await call(operator, 'GET', '/operator/nothing');
  });

  async function counted(query: string) {
    let rowsRead = 0;
    const counting = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'DB.batch' && Array.isArray(result)) for (const { meta } of result) rowsRead += meta.rows_read;
      return result;
    });
    return {
      ...(await page(operator, `${PATH}?${query}`, { bindings: { ...counting, OPERATOR_LIMIT: unlimited } })),
      rowsRead,
    };
  }

  const prefixes = ['Seeded', 'seeded 0000', 'SEEDED 002500', 'none'];
  const seededValues: Record<Filter, readonly string[]> = { name_prefix: prefixes, status: statuses, tier: tiers };

  it.each(combinations.map((filters) => ({ filters, filtered: filters.join(' and ') || 'no filter' })))(
    'under $filtered are as few as a page has, in both orders; the first page counts besides',
    async ({ filters }) => {
      const queries = filters.reduce<string[]>(
        (all, name) =>
          all.flatMap((query) => seededValues[name].map((value) => `${query}&${name}=${encodeURIComponent(value)}`)),
        [''],
      );
      for (const query of queries.flatMap((one) => [`order=asc${one}`, `order=desc${one}`])) {
        for (const size of [1, 20]) {
          const first = await counted(`page_size=${size}&${query}`);
          const bound = 3 * size + 10;
          const toCount = Math.min(first.total_count + 1, MOST_COUNTED);
          expect(first.rowsRead, query).toBeLessThanOrEqual(bound + toCount);

          let { next_cursor } = first;
          for (let pages = 0; next_cursor !== null && pages < 3; pages += 1) {
            const next = await counted(`page_size=${size}&${query}&cursor=${next_cursor}`);
            expect(next.rowsRead, query).toBeLessThanOrEqual(bound);
            ({ next_cursor } = next);
          }
        }
      }
    },
  );

  it('are one for one organization, and those of its refused credentials', async () => {
    let rowsRead = 0;
    const counting = interceptedBindings(async (_, carryOut) => {
      const result = await carryOut();
      if (Array.isArray(result)) for (const { meta } of result) rowsRead += meta.rows_read;
      return result;
    });

    const { status } = await call(operator, 'GET', `${PATH}/org_000001`, { bindings: counting });

    expect(status).toBe(200);
    expect(rowsRead).toBeLessThanOrEqual(2);
  });
});
