/** Pages of lists: what stays whole while rows come and go, what a cursor is good for, and what is counted. */
import { env } from 'cloudflare:workers';
import { decodeBase64Url, encodeBase64Url } from 'hono/utils/encode';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { call, createIntegration, fillNumbers, newClient, page } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { accepted } from '../lists.ts';

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

const integrations = '/api/integrations';
const numbers = '/api/phone-numbers';

let lastId = 0;

/** Creates integrations at once, at these times; no call of the API would be quick enough. */
async function fillIntegrations(times: number[], of = client): Promise<string[]> {
  const first = lastId;
  lastId += times.length;
  // Ids that ascend in no order of time.
  const ids = times.map(
    (_, index) => `intg_${(((first + index) * 2_654_435_761) % 2 ** 32).toString(16).padStart(12, '0')}`,
  );
  await env.DB.prepare(
    `INSERT INTO integrations (organization_id, integration_id, name, provider, category, status, credentials_version,
       data_key, kek_id, created_at, updated_at)
     SELECT ?1, value ->> 0, 'Filled', 'twilio', 'telephony', 'active', 'v', 'k', 'k1',
       value ->> 1, value ->> 1 FROM json_each(?2)`,
  )
    .bind(of.organization_id, JSON.stringify(ids.map((id, index) => [id, times[index]])))
    .run();
  return ids;
}

const remove = (ids: string[]) =>
  env.DB.prepare('DELETE FROM integrations WHERE integration_id IN (SELECT value FROM json_each(?))')
    .bind(JSON.stringify(ids))
    .run();

/** The pages from the first to the last; `between` is called after each. */
async function pages(
  path: string,
  between: (seen: string[], index: number) => Promise<void> | void = () => {},
  by = client,
) {
  const found: Awaited<ReturnType<typeof page>>[] = [];
  for (let cursor = ''; ;) {
    const current = await page(by, cursor ? `${path}&cursor=${cursor}` : path);
    found.push(current);
    if (!current.next_cursor) return found;
    cursor = current.next_cursor;
    await between(
      current.data.map(({ integration_id }) => String(integration_id)),
      found.length,
    );
  }
}

const idsOf = (found: Awaited<ReturnType<typeof pages>>) =>
  found.flatMap(({ data }) => data.map(({ integration_id }) => String(integration_id)));

describe('250 integrations by 20', () => {
  // Runs of seven share a second, so that pages end within one.
  const times = Array.from({ length: 250 }, (_, index) => 1_700_000_000 + Math.floor(index / 7));

  it('are each shown once, in their order, the last page being the rest', async () => {
    await fillIntegrations(times);

    const found = await pages(`${integrations}?page_size=20`);

    const { results } = await env.DB.prepare(
      'SELECT integration_id FROM integrations WHERE organization_id = ? ORDER BY created_at, integration_id',
    )
      .bind(client.organization_id)
      .all();
    expect(idsOf(found)).toEqual(results.map(({ integration_id }) => integration_id));
    expect(found.map(({ data }) => data.length)).toEqual([...Array.from({ length: 12 }, () => 20), 10]);
    expect(found.map(({ has_more }) => has_more)).toEqual([...Array.from({ length: 12 }, () => true), false]);
    expect(new Set(found.map(({ page_size, total_count }) => `${page_size} ${total_count}`))).toEqual(
      new Set(['20 250']),
    );
  });

  it('are each shown once, and none is lost that was there throughout, while others come and go', async () => {
    const ids = await fillIntegrations(times);
    const removed = new Set<string>();
    const seen = new Set<string>();
    const removeAlso = async (victims: string[]) => {
      for (const victim of victims) removed.add(victim);
      await remove(victims);
    };

    const found = await pages(`${integrations}?page_size=20`, async (shown, index) => {
      for (const id of shown) seen.add(id);
      const unseen = ids.filter((id) => !seen.has(id) && !removed.has(id));
      // The row that the cursor stands on, one before it, and two that are yet to come.
      await removeAlso([...shown.slice(-1), ...shown.slice(3, 4), ...unseen.slice(0, 1), ...unseen.slice(-1)]);
      // Before all, in the second at which the page ended, further on, and after all.
      const now = 1_700_000_000 + Math.floor((index * 20) / 7);
      await fillIntegrations([0, now, now, now + 1, 1_800_000_000].slice(0, index < 15 ? 5 : 0));
    });

    const shown = idsOf(found);
    expect(new Set(shown).size).toBe(shown.length);
    const throughout = ids.filter((id) => !removed.has(id));
    expect(throughout.length).toBeGreaterThan(180);
    expect(shown).toEqual(expect.arrayContaining(throughout));
    expect(shown.length).toBeGreaterThan(250);
  });

  it('may be taken by pages of changing size', async () => {
    const ids = await fillIntegrations(times);
    const sizes = [1, 100, 7, 20, 99, 50];
    const found: Awaited<ReturnType<typeof pages>> = [];
    let cursor = '';
    for (const size of sizes) {
      const current = await page(client, `${integrations}?page_size=${size}${cursor}`);
      found.push(current);
      cursor = `&cursor=${current.next_cursor}`;
    }

    expect(found.map(({ data }) => data.length)).toEqual([1, 100, 7, 20, 99, 23]);
    expect(found.map(({ page_size }) => page_size)).toEqual(sizes);
    expect(idsOf(found).toSorted()).toEqual(ids.toSorted());
  });

  it('are paged within a filter alike', async () => {
    const ids = await fillIntegrations(times);
    const filtered = ids.filter((_, index) => index % 3 === 0);
    await env.DB.prepare(
      `UPDATE integrations SET status = 'credentials_missing' WHERE integration_id IN (SELECT value FROM json_each(?))`,
    )
      .bind(JSON.stringify(filtered))
      .run();

    const found = await pages(`${integrations}?status=credentials_missing&page_size=20`);

    expect(idsOf(found).toSorted()).toEqual(filtered.toSorted());
    expect(found.map(({ total_count }) => total_count)).toEqual([84, 84, 84, 84, 84]);
  });
});

describe('the order desc', () => {
  const values: Record<string, string> = {
    provider: 'twilio',
    category: 'telephony',
    'status of /api/integrations': 'active',
    'status of /api/phone-numbers': 'free',
    verification: 'verified',
    name_prefix: 'twilio',
    ownership: 'unconfirmed',
    phone_number_prefix: '%2B1415',
    action: 'integration.created',
    since: '2020-01-01T00:00:00Z',
    until: '2100-01-01T00:00:00Z',
  };

  let filled: Client;
  let own: Record<string, string>;

  beforeAll(async () => {
    filled = await newClient();
    const integration_id = await createIntegration(filled);
    for (let count = 0; count < 6; count += 1) await createIntegration(filled);
    for (let count = 0; count < 6; count += 1) await newClient({ organization_id: filled.organization_id });
    const [phone_number = ''] = await fillNumbers(filled, integration_id, 7);
    await env.DB.prepare(
      `UPDATE phone_numbers SET assigned_agent_id = 'agent_1', status = 'assigned'
       WHERE organization_id = ? AND phone_number > ?`,
    )
      .bind(filled.organization_id, phone_number.replace(/.$/, '4'))
      .run();
    own = {
      integration_id,
      phone_number: encodeURIComponent(phone_number),
      assigned_agent_id: 'agent_1',
      target_id: integration_id,
      actor_key_id: filled.key_id,
    };
  });

  /** The ids of all entries, page after page. */
  async function walk(query: string): Promise<unknown[]> {
    const ids: unknown[] = [];
    let cursor: string | null | undefined;
    while (cursor !== null) {
      const current = await page(filled, `${query}${cursor === undefined ? '' : `&cursor=${cursor}`}`);
      ids.push(...current.data.map((entry) => Object.values(entry)[0]));
      cursor = current.next_cursor;
    }
    return ids;
  }

  it.each(accepted)('of $path under $filtered is the list from its end', async ({ path, names }) => {
    const filters = names
      .map((name) => `&${name}=${own[name] ?? values[name] ?? values[`${name} of ${path}`]}`)
      .join('');

    const forwards = await walk(`${path}?page_size=100${filters}`);

    expect(new Set(forwards).size).toBe(forwards.length);
    expect(await walk(`${path}?page_size=3&order=asc${filters}`)).toEqual(forwards);
    for (const size of [1, 3, 100]) {
      expect(await walk(`${path}?page_size=${size}&order=desc${filters}`)).toEqual(forwards.toReversed());
    }
  });

  it('is of more than one page for most of these filters', async () => {
    const counts = await Promise.all(
      [integrations, `${integrations}?name_prefix=t`, `${numbers}?provider=twilio`, `${numbers}?status=free`].map(
        async (path) => (await page(filled, path)).total_count,
      ),
    );

    expect(counts.every((count) => count >= 4)).toBe(true);
  });

  it('of a window of audit events begins before until, and ends at since', async () => {
    await env.DB.prepare('UPDATE audit_events SET created_at = created_at + sequence * 10 WHERE organization_id = ?')
      .bind(filled.organization_id)
      .run();
    const events = (await page(filled, '/api/audit-events?page_size=100')).data;
    const [since, until] = [events.at(2), events.at(-2)].map((event) => String(event?.['created_at']));

    const window = await page(filled, `/api/audit-events?order=desc&page_size=100&since=${since}&until=${until}`);

    expect(window.data.map(({ event_id }) => event_id)).toEqual(
      events
        .slice(2, -2)
        .map(({ event_id }) => event_id)
        .toReversed(),
    );
  });

  it('shows none that came after its first page', async () => {
    const [oldest = '', newer = ''] = await fillIntegrations([1_700_000_000, 1_700_000_001]);
    const first = await page(client, `${integrations}?order=desc&page_size=1`);
    await fillIntegrations([1_700_000_002]);

    const second = await page(client, `${integrations}?order=desc&page_size=1&cursor=${first.next_cursor}`);

    expect(idsOf([first, second])).toEqual([newer, oldest]);
    expect(second.next_cursor).toBeNull();
  });
});

describe('whether there is more', () => {
  it.each([
    [0, [0]],
    [1, [1]],
    [19, [19]],
    [20, [20]],
    [21, [20, 1]],
    [40, [20, 20]],
    [41, [20, 20, 1]],
  ])('of %i is told on every page, and the last has no cursor', async (count, lengths) => {
    await fillIntegrations(Array.from({ length: count }, () => 1_700_000_000));

    const found = await pages(`${integrations}?page_size=20`);

    expect(found.map(({ data }) => data.length)).toEqual(lengths);
    expect(found.map(({ has_more, next_cursor }) => [has_more, next_cursor !== null])).toEqual(
      lengths.map((_, index) => (index === lengths.length - 1 ? [false, false] : [true, true])),
    );
  });

  it('is no where all that followed went away meanwhile', async () => {
    const ids = await fillIntegrations(Array.from({ length: 30 }, () => 1_700_000_000));
    const { next_cursor } = await page(client, integrations);
    await remove(ids);

    expect(await page(client, `${integrations}?cursor=${next_cursor}`)).toMatchObject({
      data: [],
      has_more: false,
      next_cursor: null,
      total_count: 30,
    });
  });
});

describe('a page size', () => {
  it.each(['0', '-1', '101', '1000000000', 'abc', '1.5', '', ' ', '1e3', 'NaN', 'Infinity', '5,5', 'null', 'true'])(
    'is a 422 as %j',
    async (size) => {
      const { status, body } = await call(client, 'GET', `${integrations}?page_size=${encodeURIComponent(size)}`);

      expect(status).toBe(422);
      expect(body).toMatchObject({ code: 'validation_failed', errors: [{ path: 'page_size' }] });
    },
  );

  it.each([1, 20, 100])('may be %i', async (size) => {
    await fillIntegrations(Array.from({ length: 101 }, () => 1_700_000_000));

    const { data, page_size } = await page(client, `${integrations}?page_size=${size}`);

    expect([data.length, page_size]).toEqual([size, size]);
  });

  it('is 20 where none is given', async () => {
    await fillIntegrations(Array.from({ length: 21 }, () => 1_700_000_000));

    expect(await page(client, integrations)).toMatchObject({ page_size: 20, data: { length: 20 } });
  });
});

describe('a cursor', () => {
  let cursor: string;
  let content: Record<string, unknown>;

  beforeEach(async () => {
    await fillIntegrations(Array.from({ length: 5 }, (_, index) => 1_700_000_000 + index));
    cursor = String((await page(client, `${integrations}?page_size=2`)).next_cursor);
    content = JSON.parse(new TextDecoder().decode(decodeBase64Url(cursor)));
  });

  const without = (given: object, name: string) =>
    Object.fromEntries(Object.entries(given).filter(([member]) => member !== name));

  const encode = (value: unknown) => encodeBase64Url(new TextEncoder().encode(JSON.stringify(value)).buffer);

  const read = (path: string, by = client) => call(by, 'GET', path);

  const refusal = {
    status: 422,
    body: {
      code: 'validation_failed',
      errors: [{ path: 'cursor', message: 'must be a next_cursor of this list, sent with the same filters and order' }],
    },
  };

  it('is good for as long as it is asked with', async () => {
    const [one, other] = [
      await page(client, `${integrations}?cursor=${cursor}`),
      await page(client, `${integrations}?cursor=${cursor}`),
    ];

    expect(one.data).toHaveLength(3);
    expect(other).toEqual(one);
  });

  it('is safe in a query as it is', () => {
    expect(cursor).toMatch(/^[A-Za-z0-9_-]+$/);
  });

  it.each(['', 'x', '!', 'null', 'bnVsbA', 'e30', 'W10', '%F0%9F%93%9E', '%00', 'a'.repeat(4000)])(
    'is refused where it is malformed: %j',
    async (malformed) => {
      expect(await read(`${integrations}?cursor=${malformed}`)).toMatchObject(refusal);
    },
  );

  it('is refused where a character of it is missing, or one is too many', async () => {
    expect(await read(`${integrations}?cursor=${cursor.slice(1)}`)).toMatchObject(refusal);
    expect(await read(`${integrations}?cursor=${cursor.slice(0, -8)}`)).toMatchObject(refusal);
    expect(await read(`${integrations}?cursor=${cursor}AAAA`)).toMatchObject(refusal);
  });

  it.each<[string, (given: Record<string, unknown>) => unknown]>([
    ['without its place', (given) => without(given, 'after')],
    ['at no place', (given) => ({ ...given, after: [] })],
    ['at a place that is no list', (given) => ({ ...given, after: 'x' })],
    ['at a place of fewer columns', (given) => ({ ...given, after: [1_700_000_001] })],
    ['at a place of more columns', (given) => ({ ...given, after: [1_700_000_001, 'intg_', 'x'] })],
    ['at a place of other types', (given) => ({ ...given, after: ['1700000001', 'intg_'] })],
    ['at a place in another order', (given) => ({ ...given, after: ['intg_', 1_700_000_001] })],
    ['at a place that is null', (given) => ({ ...given, after: [null, null] })],
    ['at a place that is nested', (given) => ({ ...given, after: [[1_700_000_001], 'intg_'] })],
    ['without its count', (given) => without(given, 'count')],
    ['with a negative count', (given) => ({ ...given, count: -1 })],
    ['with a broken count', (given) => ({ ...given, count: 1.5 })],
    ['with a count that is text', (given) => ({ ...given, count: '5' })],
    ['with a surplus member', (given) => ({ ...given, extra: 1 })],
    ['of a list by another name', (given) => ({ ...given, list: 'integrations' })],
    ['of no list', (given) => without(given, 'list')],
  ])('is refused where it was tampered with: %s', async (_, tamper) => {
    expect(await read(`${integrations}?cursor=${encode(tamper(content))}`)).toMatchObject(refusal);
  });

  it.each([[[0, '\0']], [[-1e308, '']], [[1.5, "'; DROP TABLE integrations;--"]], [[9e15, '\ud83d']]])(
    'at a made-up place, %j, shows what follows it in this organization and nothing else',
    async (after) => {
      await fillIntegrations([1_700_000_000], await newClient());

      const { data } = await page(client, `${integrations}?cursor=${encode({ ...content, after })}`);

      expect(data).toHaveLength(Number(after[0]) < 1e10 ? 5 : 0);
      expect(data.filter(({ client_id }) => client_id !== client.organization_id)).toEqual([]);
    },
  );

  it.each([
    ['none', '', 'provider=twilio'],
    ['a filter', 'provider=twilio', ''],
    ['a filter', 'provider=twilio', 'provider=telnyx'],
    ['a filter', 'provider=twilio', 'status=active'],
    ['a filter', 'provider=twilio', 'provider=twilio&status=active'],
    ['two filters', 'provider=twilio&status=active', 'provider=twilio'],
    ['an order', 'order=desc', 'order=asc'],
    ['no order', '', 'order=desc'],
  ])('that was given with %s, ?%s, is refused with ?%s', async (_, given, other) => {
    const { next_cursor } = await page(client, `${integrations}?page_size=2&${given}`);

    expect((await page(client, `${integrations}?page_size=2&${given}&cursor=${next_cursor}`)).data).toHaveLength(2);
    expect(await read(`${integrations}?page_size=2&${other}&cursor=${next_cursor}`)).toMatchObject(refusal);
  });

  it('that was given without an order is good with order=asc, and is as it was before there were orders', async () => {
    expect((await page(client, `${integrations}?order=asc&cursor=${cursor}`)).data).toHaveLength(3);
    expect(content['list']).toBe(JSON.stringify(['integrations', client.organization_id, []]));
  });

  it('is good with the same filters in another order', async () => {
    const { next_cursor } = await page(client, `${integrations}?page_size=2&provider=twilio&status=active`);

    const { data } = await page(client, `${integrations}?status=active&cursor=${next_cursor}&provider=twilio`);

    expect(data).toHaveLength(3);
  });

  it('of a window of audit events is refused with another window', async () => {
    const since = 'since=2020-01-01T00:00:00Z';
    await createIntegration(client);
    const { next_cursor } = await page(client, `/api/audit-events?page_size=1&${since}`);

    expect((await page(client, `/api/audit-events?${since}&cursor=${next_cursor}`)).data).toHaveLength(1);
    expect(await read(`/api/audit-events?cursor=${next_cursor}`)).toMatchObject(refusal);
    expect(await read(`/api/audit-events?since=2020-01-01T00:00:01Z&cursor=${next_cursor}`)).toMatchObject(refusal);
    expect(await read(`/api/audit-events?until=2020-01-01T00:00:00Z&cursor=${next_cursor}`)).toMatchObject(refusal);
  });

  it('of another list is refused, whatever the list', async () => {
    await fillNumbers(client, null, 3);
    await newClient({ organization_id: client.organization_id });
    const paths = [integrations, numbers, '/api/api-keys', '/api/audit-events'];
    const cursors = await Promise.all(paths.map((path) => page(client, `${path}?page_size=1`)));

    const answers = cursors.map(({ next_cursor }) =>
      Promise.all(paths.map(async (path) => (await read(`${path}?cursor=${next_cursor}`)).status)),
    );

    expect(await Promise.all(answers)).toEqual(paths.map((of) => paths.map((on) => (of === on ? 200 : 422))));
  });

  it('of another organization is refused', async () => {
    const stranger = await newClient();
    await fillIntegrations([1_700_000_000, 1_700_000_000, 1_700_000_000], stranger);

    expect(await read(`${integrations}?cursor=${cursor}`, stranger)).toMatchObject(refusal);
  });

  it('is good for every key of its organization', async () => {
    const colleague = await newClient({ organization_id: client.organization_id, role: 'user' });

    expect((await page(colleague, `${integrations}?cursor=${cursor}`)).data).toHaveLength(3);
  });
});

describe('the count', () => {
  it.each([
    [999, 999, true],
    [1000, 1000, true],
    [1001, 1000, false],
    [1200, 1000, false],
  ])(
    'of %i is told as %i, exact: %s, with the first page and with all that follow',
    async (count, total_count, exact) => {
      await fillNumbers(client, null, count);

      const first = await page(client, `${numbers}?page_size=1`);
      const second = await page(client, `${numbers}?page_size=1&cursor=${first.next_cursor}`);
      const third = await page(client, `${numbers}?page_size=1&cursor=${second.next_cursor}`);

      const told = { total_count, total_count_exact: exact };
      expect([first, second, third]).toMatchObject([told, told, told]);
    },
  );

  it('stays what the first page counted, whatever comes and goes', async () => {
    const ids = await fillIntegrations(Array.from({ length: 50 }, () => 1_700_000_000));

    const found = await pages(`${integrations}?page_size=20`, async (shown, index) => {
      await remove(shown);
      if (index === 1) await fillIntegrations([0, 1_800_000_000]);
    });

    expect(found.map(({ total_count }) => total_count)).toEqual([50, 50, 50]);
    expect(idsOf(found)).toEqual(expect.arrayContaining(ids));
    expect((await page(client, integrations)).total_count).toBe(12);
  });

  it('is of the filter alone, and of this organization alone', async () => {
    const integration_id = await createIntegration(client);
    await fillNumbers(client, integration_id, 3);
    await fillNumbers(client, null, 4);
    await fillNumbers(await newClient(), null, 5);

    expect((await page(client, numbers)).total_count).toBe(7);
    expect((await page(client, `${numbers}?integration_id=${integration_id}`)).total_count).toBe(3);
    expect((await page(client, `${numbers}?integration_id=${integration_id}&status=assigned`)).total_count).toBe(0);
  });
});
