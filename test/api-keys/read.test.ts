import { beforeEach, describe, expect, it } from 'vitest';
import { call, changeKey, everythingKept, newClient, page, rowOf } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;

beforeEach(async () => {
  client = await newClient();
  await call(client, 'GET', '/api/nothing');
});

const all = '/api/api-keys';

describe('the list of API keys', () => {
  it('shows a key to the character, with the time of its last use', async () => {
    await changeKey(
      client,
      `name = 'CI', user_id = 'user_ada', prefix = 'bk_live_abcd', created_at = unixepoch('2024-01-15T10:30:00Z'),
       last_used_at = unixepoch('2024-01-15T10:30:01Z'), expires_at = unixepoch('2999-01-15T10:30:02Z')`,
    );

    expect((await call(client, 'GET', all)).text).toBe(
      `{"success":true,"data":[{"key_id":"${client.key_id}","name":"CI","role":"admin","prefix":"bk_live_abcd",` +
        `"client_id":"${client.organization_id}","user_id":"user_ada","status":"active",` +
        '"created_at":"2024-01-15T10:30:00Z","last_used_at":"2024-01-15T10:30:01Z","expires_at":"2999-01-15T10:30:02Z"}],' +
        '"pagination":{"next_cursor":null,"has_more":false,"page_size":20,"total_count":1,"total_count_exact":true}}',
    );
  });

  it('shows a key that was never used, and never expires, with null for both', async () => {
    const unused = await newClient({ organization_id: client.organization_id });

    const { data } = await page(client, all);

    expect(data.find(({ key_id }) => key_id === unused.key_id)).toMatchObject({ last_used_at: null, expires_at: null });
  });

  it('is in the order of creation, and within a second in the order of the ids, the revoked and expired among them', async () => {
    const { organization_id } = client;
    const keys = [
      await newClient({ organization_id }),
      await newClient({ organization_id }),
      await newClient({ organization_id }),
    ];
    for (const key of keys) await changeKey(key, 'created_at = 1700000000');
    await changeKey(client, 'created_at = 1700000001');
    const earliest = await newClient({ organization_id });
    await changeKey(earliest, `created_at = 1699999999, expires_at = 1699999999`);
    const revoked = keys[1]?.key_id;
    await call(client, 'DELETE', `${all}/${revoked}`);

    const { data } = await page(client, all);

    const sameSecond = keys.map(({ key_id }) => key_id).toSorted();
    expect(data.map(({ key_id }) => key_id)).toEqual([earliest.key_id, ...sameSecond, client.key_id]);
    expect(data.filter(({ status }) => status === 'revoked').map(({ key_id }) => key_id)).toEqual([revoked]);
  });

  it('never shows a hash', async () => {
    const { key_hash } = await rowOf('api_keys', client.key_id);

    const { text } = await call(client, 'GET', all);

    expect(text).not.toContain(String(key_hash));
    expect(text).not.toContain('hash');
    expect(text).not.toContain(client.raw_key.slice(0, 16));
  });

  it('has no key of another organization', async () => {
    await newClient();

    expect(await page(client, all)).toMatchObject({ data: [{ key_id: client.key_id }], total_count: 1 });
  });

  it('comes by pages', async () => {
    const { organization_id } = client;
    const others = await Promise.all(Array.from({ length: 4 }, () => newClient({ organization_id })));

    const first = await page(client, `${all}?page_size=2`);
    const second = await page(client, `${all}?page_size=2&cursor=${first.next_cursor}`);
    const third = await page(client, `${all}?page_size=2&cursor=${second.next_cursor}`);

    expect([first, second, third].map(({ data, has_more }) => [data.length, has_more])).toEqual([
      [2, true],
      [2, true],
      [1, false],
    ]);
    const shown = [first, second, third].flatMap(({ data }) => data.map(({ key_id }) => key_id));
    expect(shown).toHaveLength(5);
    expect(new Set(shown)).toEqual(new Set([client, ...others].map(({ key_id }) => key_id)));
  });

  it.each([
    ['a filter that it does not have', 'status=active', 'status'],
    ['a role', 'role=admin', 'role'],
    ['a page size of 0', 'page_size=0', 'page_size'],
    ['a page size in another notation', 'page_size=1e1', 'page_size'],
    ['a page size with a space before it', 'page_size=%205', 'page_size'],
    ['a page size with a space behind it', 'page_size=5%20', 'page_size'],
    ['a repeated page size', 'page_size=1&page_size=1', 'page_size'],
    ['a malformed cursor', 'cursor=x', 'cursor'],
  ])('is a 422 by %s', async (_, query, path) => {
    const before = await everythingKept();

    expect(await call(client, 'GET', `${all}?${query}`)).toMatchObject({
      status: 422,
      body: { code: 'validation_failed', errors: [{ path }] },
    });
    expect(await everythingKept()).toEqual(before);
  });
});
