/** Every statement of the app that selects: what it is compiled to gives what Drizzle's builder gives on the same rows. */
import { env } from 'cloudflare:workers';
import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/d1';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import * as queries from '../../src/worker/d1/query.ts';

type Build = Parameters<typeof queries.query>[0];
type Compiled = ReturnType<typeof queries.query>;

/** A statement of the app: as it is written, as it is compiled, and what it was bound to last. */
interface Statement {
  build: Build;
  compiled: Compiled;
  parameters?: object;
}

const statements: Statement[] = [];

// Before anything of the app is imported: a statement is made as its module is.
const make: (build: Build) => Compiled = queries.query;
const watch = (build: Build) => {
  const compiled = make(build);
  const statement: Statement = { build, compiled };
  statements.push(statement);
  const bind = (parameters: object) => compiled.bind((statement.parameters = parameters));
  return { ...compiled, bind };
};
const spied: { mockImplementation(implementation: typeof watch): unknown } = vi.spyOn(queries, 'query');
spied.mockImplementation(watch);
const { call, createIntegration, importNumber, newClient, unusedNumber } = await import('../fixtures.ts');
const { deadDelivery, importSip, mutations } = await import('../mutations.ts');

const rowsOf = z.array(z.record(z.string(), z.unknown()));

const placeholders = new Proxy({}, { get: (_, name) => sql.placeholder(String(name)) });

/** What Drizzle answers by itself: its own driver and its own mapping, on the same database. */
function drizzledRows({ build, parameters = {} }: Statement): Promise<unknown> {
  const built: { prepare(): { all(values: object): Promise<unknown> } } = Reflect.apply(build, undefined, [
    drizzle(env.DB),
    placeholders,
  ]);
  return built.prepare().all(parameters);
}

async function compiledRows({ compiled, parameters = {} }: Statement): Promise<unknown> {
  const bound = compiled.bind(parameters);
  const { results } = await env.DB.prepare(bound.sql)
    .bind(...bound.parameters)
    .all();
  return bound.readRows(results);
}

const selecting = () =>
  statements.filter(({ compiled, parameters }) => parameters !== undefined && !compiled.bind(parameters).writes);

beforeAll(async () => {
  const client = await newClient();
  for (const { prepare } of mutations) {
    const { method, path, body, headers } = await prepare(client);
    await call(client, method, path, { body, headers: { ...headers, 'Idempotency-Key': crypto.randomUUID() } });
  }
  const integration_id = await createIntegration(client);
  const phone_number_id = await importNumber(client, integration_id, unusedNumber());
  await importSip(client);
  await call(client, 'PUT', `/api/phone-numbers/${phone_number_id}`, { body: { supports_inbound: true } });
  // An organization has no room for another endpoint, after all mutations.
  const other = await newClient();
  const [, , , endpoint_id] = (await deadDelivery(other)).split('/');
  const paths = [
    `integrations/${integration_id}`,
    'integrations',
    'integrations?provider=twilio&status=active',
    `phone-numbers/${phone_number_id}`,
    'phone-numbers',
    'phone-numbers?status=free',
    'phone-numbers?provider=sip&order=desc',
    'integrations?name_prefix=twilio',
    'api-keys',
    `api-keys/${client.key_id}`,
    'audit-events',
    'audit-events?action=integration.created',
    'audit-events?after=',
    'webhook-endpoints',
    `webhook-endpoints/${endpoint_id}`,
    `webhook-endpoints/${endpoint_id}/deliveries`,
    `webhook-endpoints/${endpoint_id}/deliveries?status=dead`,
  ];
  for (const path of paths) await call(path.startsWith('webhook') ? other : client, 'GET', `/api/${path}`);
});

describe('the statements of the app', () => {
  it('that select give the builder’s own result, though nothing maps their rows', async () => {
    let compared = 0;
    for (const statement of selecting()) {
      const [own, ours] = [await drizzledRows(statement), await compiledRows(statement)];
      expect(ours).toEqual(own);
      if (rowsOf.parse(own).length > 0) compared += 1;
    }

    expect(compared).toBeGreaterThanOrEqual(12);
  });

  it('that select are compared with rows that have what could be mapped wrongly', async () => {
    const rows = (await Promise.all(selecting().map(compiledRows))).flatMap((found) => rowsOf.parse(found));
    const kinds = new Set(
      rows.flatMap((row) => Object.values(row).map((value) => (value === null ? 'null' : typeof value))),
    );

    expect([...kinds].toSorted()).toEqual(['null', 'number', 'string']);
  });

  it('give the same when they are asked again, with rows or without', async () => {
    for (const statement of selecting()) {
      expect(statement.compiled.bind(statement.parameters ?? {}).readRows([])).toEqual([]);
      expect(await compiledRows(statement)).toEqual(await drizzledRows(statement));
    }
  });
});
