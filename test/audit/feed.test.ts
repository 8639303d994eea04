import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { call, newClient } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const page = z.object({
  data: z.array(z.object({ event_id: z.string(), action: z.string() })),
  pagination: z.object({ next_cursor: z.string().nullable(), has_more: z.boolean(), total_count: z.number() }),
});

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

const rename = (name: string) => call(client, 'PUT', `/api/api-keys/${client.key_id}`, { body: { name } });

async function follow(after: string, query = '') {
  const path = `/api/audit-events?after=${encodeURIComponent(after)}&order=asc${query}`;
  return page.parse((await call(client, 'GET', path)).body);
}

describe('the feed of audit events', () => {
  it('has a cursor on every page, also on the last one, from which it goes on', async () => {
    for (const name of ['One', 'Two', 'Three', 'Four']) await rename(name);
    const actions: string[] = [];
    let after = '';
    for (const length of [2, 2, 1, 0, 0]) {
      const { data, pagination } = await follow(after, '&page_size=2');
      expect(data).toHaveLength(length);
      actions.push(...data.map(({ action }) => action));
      expect(pagination).toMatchObject({ next_cursor: expect.any(String), has_more: actions.length < 5 });
      after = pagination.next_cursor ?? '';
    }
    expect(actions).toEqual(['api_key.created', ...Array.from({ length: 4 }, () => 'api_key.updated')]);

    await rename('Five');
    const { data, pagination } = await follow(after);
    expect(data.map(({ action }) => action)).toEqual(['api_key.updated']);
    expect((await follow(pagination.next_cursor ?? '')).data).toEqual([]);
  });

  it('has each event once, whoever adds some between two pages, in the order of the commits', async () => {
    const seen: string[] = [];
    let after = '';
    for (let round = 0; round < 6; round += 1) {
      await Promise.all([rename(`A ${round}`), rename(`B ${round}`), rename(`C ${round}`)]);
      const { data, pagination } = await follow(after, '&page_size=2');
      seen.push(...data.map(({ event_id }) => event_id));
      after = pagination.next_cursor ?? '';
    }
    for (let rest = await follow(after); rest.data.length > 0; rest = await follow(after)) {
      seen.push(...rest.data.map(({ event_id }) => event_id));
      after = rest.pagination.next_cursor ?? '';
    }
    const { body } = await call(client, 'GET', '/api/audit-events?page_size=100');
    expect(seen).toEqual(page.parse(body).data.map(({ event_id }) => event_id));
    expect(seen).toHaveLength(19);
  });

  it('begins for an organization without events, too', async () => {
    const { pagination } = await follow('', '&action=integration.deleted');
    expect(pagination).toMatchObject({ next_cursor: expect.any(String), has_more: false, total_count: 0 });
    const next = await follow(pagination.next_cursor ?? '', '&action=integration.deleted');
    expect(next).toMatchObject({ data: [], pagination: { next_cursor: pagination.next_cursor } });
  });

  it('goes on from a cursor of the list, and counts what is left', async () => {
    for (const name of ['One', 'Two', 'Three']) await rename(name);
    const first = page.parse((await call(client, 'GET', '/api/audit-events?page_size=1')).body);
    const rest = await follow(first.pagination.next_cursor ?? '');
    expect(rest.data).toHaveLength(3);
    expect(rest.pagination.total_count).toBe(3);
    const last = page.parse((await call(client, 'GET', '/api/audit-events?page_size=100')).body);
    expect(last.pagination.next_cursor).toBeNull();
  });

  it.each([
    ['a cursor of another organization', async () => (await followOf(await newClient())).next_cursor ?? '', ''],
    [
      'a cursor of other filters',
      async () => (await follow('')).pagination.next_cursor ?? '',
      '&action=api_key.created',
    ],
    ['what is no cursor', async () => 'x', ''],
    ['the descending order', async () => '', '&order=desc'],
    ['a cursor beside it', async () => '', '&cursor=x'],
  ])('refuses %s', async (_, cursor, query) => {
    const order = query.includes('order') ? '' : '&order=asc';
    const path = `/api/audit-events?after=${encodeURIComponent(await cursor())}${order}${query}`;
    expect(await call(client, 'GET', path)).toMatchObject({ status: 422, body: { code: 'validation_failed' } });
  });
});

const followOf = async (other: Client) =>
  page.parse((await call(other, 'GET', '/api/audit-events?after=')).body).pagination;
