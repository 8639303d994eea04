/**
 * D1's documented limits, of which the local D1 enforces some and is kinder in others: what the app sends stays within them.
 * https://developers.cloudflare.com/d1/platform/limits/
 */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { offboardOrganization } from '../src/organizations/offboard.ts';
import worker from '../src/index.ts';
import { call, newClient } from './fixtures.ts';
import { importSip, mutations } from './mutations.ts';

const MAX_FUNCTION_ARGUMENTS = 32;
const MAX_BOUND_PARAMETERS = 100;
const MAX_STATEMENT_BYTES = 100_000;

const statements = new Set<string>();

/** D1, and every session on it, with a note of each statement. */
const noted = <Asked extends D1Database | D1DatabaseSession>(target: Asked): Asked => {
  const methods: object = target;
  return new Proxy(target, {
    get(_, name) {
      if (name === 'withSession') return (constraint: string) => noted(env.DB.withSession(constraint));
      if (name !== 'prepare') return Reflect.get(methods, name).bind(target);
      return (sql: string) => {
        statements.add(sql);
        return target.prepare(sql);
      };
    },
  });
};

/** How many arguments each function call of a statement has: its commas outside quotes and inner brackets, and one. */
function argumentCounts(sql: string): { name: string; count: number }[] {
  const counts: { name: string; count: number }[] = [];
  const open: { name: string; count: number }[] = [];
  const tokens = sql.replaceAll(/'(?:[^']|'')*'|"[^"]*"/g, 'x').matchAll(/(\w*)\s*\(|\)|,/g);
  for (const [token, name = ''] of tokens) {
    const innermost = open.at(-1);
    if (token === ',' && innermost) innermost.count += 1;
    if (token.endsWith('(')) open.push({ name, count: 1 });
    if (token === ')') counts.push(...open.splice(-1));
  }
  return counts.filter(({ name: called }) => /^(?:json_\w+|iif|max|min|coalesce|printf)$/.test(called));
}

beforeAll(async () => {
  vi.spyOn(console, 'info').mockImplementation(() => {});
  const bindings = { ...env, DB: noted(env.DB) };
  const client = await newClient();
  for (const { prepare } of mutations) {
    for (const headers of [{}, { 'Idempotency-Key': crypto.randomUUID() }]) {
      const { method, path, body } = await prepare(client);
      await call(client, method, path, { body, headers, bindings });
    }
  }
  for (const list of ['integrations', 'phone-numbers', 'api-keys', 'audit-events']) {
    await call(client, 'GET', `/api/${list}`, { bindings });
  }
  await importSip(client);
  await offboardOrganization(bindings.DB, client.organization_id);
  await worker.scheduled(createScheduledController(), bindings);
  return () => vi.restoreAllMocks();
});

describe('the statements of the calls, of an offboarding and of the cron', () => {
  it('are noted, those with the largest objects among them', () => {
    expect(statements.size).toBeGreaterThan(40);
    expect([...statements].filter((sql) => sql.includes('json_set(json_object(')).length).toBeGreaterThan(3);
  });

  it(`give no SQL function more than ${MAX_FUNCTION_ARGUMENTS} arguments`, () => {
    const calls = [...statements].flatMap(argumentCounts);

    expect(Math.max(...calls.map(({ count }) => count))).toBe(MAX_FUNCTION_ARGUMENTS);
  });

  it(`bind at most ${MAX_BOUND_PARAMETERS} parameters, in at most ${MAX_STATEMENT_BYTES} bytes`, () => {
    for (const sql of statements) {
      expect(sql.split('?').length - 1).toBeLessThanOrEqual(MAX_BOUND_PARAMETERS);
      expect(new TextEncoder().encode(sql).length).toBeLessThanOrEqual(MAX_STATEMENT_BYTES);
    }
  });
});
