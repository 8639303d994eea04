/** What a delete costs, counted: round trips and rows. Never timed. */
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { forgetKey } from '../../src/worker/callers/caller.ts';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { countedBindings, interceptedBindings } from '../bindings.ts';
import { call, createIntegration, fillNumbers, importNumber, newClient, start, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;
let integration_id: string;

beforeEach(async () => {
  client = await newClient();
  integration_id = await createIntegration(client);
});

const coolIsolate = async () => forgetKey(await hashKey(client.raw_key));
const coolBoth = async () => {
  await coolIsolate();
  await env.KEY_CACHE.delete(await hashKey(client.raw_key));
};

async function countedDelete() {
  const { bindings, calls } = countedBindings();
  const answer = await start(client, 'DELETE', `/api/integrations/${integration_id}`, { bindings });
  const beforeAnswer = [...calls];
  await answer.settle();
  return { status: answer.status, beforeAnswer, afterAnswer: calls.slice(beforeAnswer.length).toSorted() };
}

describe('the round trips of a delete', () => {
  it('are one D1 batch in a warm isolate, and after the answer one KV delete and one D1 batch', async () => {
    expect(await countedDelete()).toEqual({
      status: 200,
      beforeAnswer: ['DB.batch'],
      afterAnswer: ['CREDENTIALS.delete', 'DB.batch'],
    });
  });

  it('are those of a warm isolate where only KV knows the key, which is asked at the same time', async () => {
    await coolIsolate();

    expect(await countedDelete()).toEqual({
      status: 200,
      beforeAnswer: ['KEY_CACHE.get', 'DB.batch'],
      afterAnswer: ['CREDENTIALS.delete', 'DB.batch'],
    });
  });

  it('are those of a warm isolate again, once it has heard from KV', async () => {
    await coolIsolate();
    await call(client, 'GET', '/api/nothing');

    expect(await countedDelete()).toMatchObject({ status: 200, beforeAnswer: ['DB.batch'] });
  });

  it('are the same where nothing knows the key, and after the answer the cache is filled and the use noted', async () => {
    await coolBoth();

    expect(await countedDelete()).toEqual({
      status: 200,
      beforeAnswer: ['KEY_CACHE.get', 'DB.batch'],
      afterAnswer: ['CREDENTIALS.delete', 'DB.batch', 'DB.batch', 'KEY_CACHE.put'],
    });
  });

  it.each([
    ['is malformed', 'bk_live_short'],
    ['has a checksum that does not hold', `bk_live_${'a'.repeat(56)}`],
  ])('are none where the key %s', async (_, malformed) => {
    const { bindings, calls } = countedBindings();

    const { status } = await call(client, 'DELETE', `/api/integrations/${integration_id}`, {
      headers: { 'X-API-Key': malformed },
      bindings,
    });

    expect(status).toBe(401);
    expect(calls).toEqual([]);
  });
});

describe('the statements of a delete', () => {
  /** Deletes, and tells what D1 says of the batch: rows read by all of its statements. */
  async function rowsRead(): Promise<{ status: number; rowsRead: number }> {
    let rows = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'DB.batch' && Array.isArray(result)) {
        for (const { meta } of result) rows += meta.rows_read;
      }
      return result;
    });
    const answer = await start(client, 'DELETE', `/api/integrations/${integration_id}`, { bindings });
    const counted = { status: answer.status, rowsRead: rows };
    await answer.settle();
    return counted;
  }

  it.each([0, 100, 100_000])('read at most 11 rows with %i other numbers in the organization', async (count) => {
    const other = await createIntegration(client);
    if (count > 0) await fillNumbers(client, other, count);

    expect(await rowsRead()).toEqual({ status: 200, rowsRead: 11 });
  });

  it('read the references they name and count, and no other number', async () => {
    const other = await createIntegration(client);
    await fillNumbers(client, other, 1000);
    await importNumber(client, integration_id, unusedNumber());

    const { status, rowsRead: rows } = await rowsRead();

    expect(status).toBe(409);
    // 11 as ever; then the reference, three times, each time with the row that ends its range.
    expect(rows).toBeLessThanOrEqual(18);
  });

  it('count references no further than the answer tells', async () => {
    await fillNumbers(client, integration_id, 30_000);

    const { status, rowsRead: rows } = await rowsRead();

    expect(status).toBe(409);
    expect(rows).toBeLessThan(10_200);
  });

  it('are index seeks, every one', async () => {
    const seen: { sql: string; parameters: unknown[] }[] = [];
    const DB: D1Database = new Proxy(env.DB, {
      get(database, name) {
        if (name === 'withSession') return () => DB;
        if (name === 'getBookmark') return () => '00000000-00000001-00000000-00000000000000000000000000000000';
        if (name === 'prepare') {
          return (sql: string) => ({
            bind(...parameters: unknown[]) {
              seen.push({ sql, parameters });
              return database.prepare(sql).bind(...parameters);
            },
          });
        }
        return (...parameters: unknown[]) => Reflect.apply(Reflect.get(database, name), database, parameters);
      },
    });
    const answer = await start(client, 'DELETE', `/api/integrations/${integration_id}`, { bindings: { ...env, DB } });
    expect(answer.status).toBe(200);

    const plans = await Promise.all(
      seen.map(({ sql, parameters }) =>
        env.DB.prepare(`EXPLAIN QUERY PLAN ${sql}`)
          .bind(...parameters)
          .all<{ detail: string }>(),
      ),
    );

    expect(seen).toHaveLength(6);
    const steps = plans.flatMap(({ results }) => results.map(({ detail }) => detail));
    expect(steps.filter((step) => step.startsWith('SEARCH'))).not.toEqual([]);
    // What is scanned is no table: the revisions of If-Match, the outcome of the bounded search, which counts it, and the one
    // row that the decision joins.
    expect(steps.filter((step) => step.includes('SCAN'))).toEqual([
      'SCAN json_each VIRTUAL TABLE INDEX 1:',
      'SCAN counted',
      'SCAN CONSTANT ROW',
      'SCAN (subquery-1)',
    ]);
    await answer.settle();
  });
});
