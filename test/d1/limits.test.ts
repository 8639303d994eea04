/**
 * The platform's documented limits: what the app sends stays within them, also where the local emulator (workerd, which the
 * tests run on) would take more. For Workers Paid, as of November 2026:
 *
 * | limit                                                   | documented | the emulator takes    |
 * | ------------------------------------------------------- | ---------- | --------------------- |
 * | D1: arguments of an SQL function                        | 32         | 127                   |
 * | D1: bound parameters of a statement                     | 100        | 100                   |
 * | D1: bytes of a statement                                | 100,000    | 100,000               |
 * | D1: bytes of a value or of a row                        | 2,000,000  | 5,000,000, and more   |
 * | D1: bytes of a LIKE or GLOB pattern                     | 50         | 50                    |
 * | D1: columns of a table                                  | 100        | 100                   |
 * | D1: bytes of a result                                   | 50 MB      | 51 MB, and more       |
 * | D1: seconds of a batch                                  | 30         | any                   |
 * | D1: statements of an invocation                         | 1,000      | 1,001, and more       |
 * | D1, KV: calls that an invocation has open at once       | 6          | 50, and more          |
 * | KV, with D1: operations of an invocation                | 1,000      | 1,001, and more       |
 * | KV: writes to one key in a second                       | 1          | 2, and more           |
 * | KV: bytes of a key                                      | 512        | 512                   |
 * | KV: bytes of metadata                                   | 1,024      | 1,024                 |
 * | KV: bytes of a value                                    | 26,214,400 | 26,214,400            |
 * | KV: least `expirationTtl`, least `cacheTtl`, in seconds | 60, 30     | 60, 30                |
 *
 * Undocumented, and refused by the emulator: more than 5 terms of a compound SELECT, an expression deeper than 100. There is
 * no queue. The 30 seconds cannot be tried here: every batch is of bounded rows, 5,000 at most (d1/delete-old.ts,
 * organizations/in-batches.ts), but for the operator's counts, and where keys are revoked together: those of an organization
 * that live, 10,000 by its quota.
 *
 * @see https://developers.cloudflare.com/d1/platform/limits/
 * @see https://developers.cloudflare.com/kv/platform/limits/
 * @see https://developers.cloudflare.com/workers/platform/limits/
 */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { createKeyByCommand } from '../../src/operator/api-keys/create.ts';
import { revokeAllKeys } from '../../src/operator/api-keys/revoke-all.ts';
import { offboardOrganization } from '../../src/operator/organizations/offboard.ts';
import { readOrganization } from '../../src/operator/organizations/read.ts';
import { resumeOrganization, suspendOrganization } from '../../src/operator/organizations/suspend.ts';
import { findHeldPhoneNumber, releasePhoneNumber } from '../../src/operator/phone-numbers/release.ts';
import { exportAll } from '../../src/operator/recovery/export.ts';
import { reconcile } from '../../src/operator/recovery/reconcile.ts';
import { replay } from '../../src/operator/recovery/replay.ts';
import { forgetKey } from '../../src/worker/callers/caller.ts';
import { hashKey, newRawKey } from '../../src/worker/callers/raw-key.ts';
import { countDataKeys, readKeks } from '../../src/worker/credentials/data-keys.ts';
import type { Bindings } from '../../src/worker/env.ts';
import worker from '../../src/worker/index.ts';
import { notedBindings } from '../bindings.ts';
import type { Invocation } from '../bindings.ts';
import {
  call,
  createIntegration,
  everythingStored,
  fillKeys,
  fillNumbers,
  importNumber,
  newClient,
  newOperator,
  page,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { accepted } from '../lists.ts';
import { importSip, mutations, sip } from '../mutations.ts';
import type { Mutation } from '../mutations.ts';
import { operatorMutations } from '../operator-mutations.ts';

const MAX_FUNCTION_ARGUMENTS = 32;
const MAX_BOUND_PARAMETERS = 100;
const MAX_STATEMENT_BYTES = 100_000;
const MAX_VALUE_BYTES = 2_000_000;
const MAX_PATTERN_BYTES = 50;
const MAX_STATEMENTS = 1000;
const MAX_OPEN = 6;
const MAX_OPERATIONS = 1000;
const MAX_KV_KEY_BYTES = 512;
const MAX_KV_VALUE_BYTES = 25 * 1024 * 1024;

const SEEDING_MILLISECONDS = 300_000;
/** More than a turn of the cron, or a batch of an operator's command, takes. */
const MANY = 1200;
/** Offboardings that a turn of the cron continues, and more rows of each than its share is. */
const OFFBOARDINGS = 10;
const MORE_THAN_A_SHARE = 700;
/** More than go on behind the answer to the request. */
const MORE_THAN_A_TURN = 6100;

/** What was asked by the Worker, and by the operator's commands, which are no invocation: each of their calls is one. */
const invocations: Record<string, Invocation> = {};
const commands: Record<string, Invocation> = {};

async function note(noted: Record<string, Invocation>, name: string, run: (bindings: Bindings) => Promise<unknown>) {
  const { bindings, invocation } = notedBindings();
  await run(bindings);
  noted[name] = invocation;
}

const asMany = (insert: string, ...values: unknown[]) =>
  env.DB.prepare(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${MANY}) ${insert}`)
    .bind(...values)
    .run();

const longest = (characters: number) => '😀'.repeat(characters);

/** Bodies of the greatest length in every member, of characters that have the most bytes. */
const greatest: Mutation[] = [
  {
    method: 'POST',
    path: '/api/integrations',
    body: {
      name: longest(100),
      credentials: {
        provider: 'twilio',
        account_sid: twilio.account_sid,
        api_key_sid: 'SK0123456789abcdef0123456789abcdef',
        api_key_secret: longest(256),
      },
    },
  },
  {
    method: 'POST',
    path: '/api/phone-numbers',
    body: {
      ...sip(unusedNumber()),
      sip_trunk_name: longest(100),
      sip_username: longest(100),
      sip_password: longest(256),
      sip_server_address: `${'longest.label.'.repeat(18)}x:65535`,
      inbound_room_name: longest(100),
      inbound_pin: '0123456789',
    },
  },
  { method: 'POST', path: '/api/api-keys', body: { name: longest(100), role: 'user' } },
];

const valueOf: Record<string, string> = {
  provider: 'twilio',
  category: 'telephony',
  verification: 'verified',
  name_prefix: longest(100),
  phone_number: '%2B14155550100',
  phone_number_prefix: '%2B1415',
  assigned_agent_id: 'agent_000000000001',
  ownership: 'confirmed',
  integration_id: 'intg_000000000000',
  action: 'integration.created',
  target_id: 'intg_000000000000',
  actor_key_id: 'apikey_000000000000',
  since: '2020-01-01T00:00:00Z',
  until: '2030-01-01T00:00:00Z',
};

async function callEverything(client: Client): Promise<void> {
  for (const { name, prepare } of mutations) {
    await note(invocations, name, async (bindings) => {
      const { method, path, body, headers = {} } = await prepare(client);
      await call(client, method, path, { body, headers, bindings });
    });
    const { method, path, body, headers: own } = await prepare(client);
    const headers = { ...own, 'Idempotency-Key': crypto.randomUUID().padEnd(255, 'x') };
    for (const time of ['first', 'again']) {
      await note(invocations, `${name}, with a key, ${time}`, (bindings) =>
        call(client, method, path, { body, headers, bindings }),
      );
    }
  }
  for (const { method, path, body } of greatest) {
    await note(invocations, `the greatest ${method} ${path}`, async (bindings) =>
      expect((await call(client, method, path, { body, bindings })).status).toBe(201),
    );
  }
}

async function readEverything(client: Client): Promise<void> {
  const integration_id = await createIntegration(client);
  const phone_number_id = await importNumber(client, integration_id, unusedNumber());
  await fillKeys(client, 5);
  for (const path of [
    `/api/integrations/${integration_id}`,
    `/api/phone-numbers/${phone_number_id}`,
    '/api/integrations',
  ]) {
    forgetKey(await hashKey(client.raw_key));
    await env.KEY_CACHE.delete(await hashKey(client.raw_key));
    await note(invocations, `GET ${path}, by a key that is in no cache`, (bindings) =>
      call(client, 'GET', path, { bindings }),
    );
  }
  await note(invocations, 'GET /health', (bindings) => call(client, 'GET', '/health', { bindings }));
  await note(invocations, 'an unknown key', (bindings) =>
    call({ ...client, raw_key: newRawKey() }, 'GET', '/api/integrations', { bindings }),
  );
  for (const { path, names, filtered } of accepted) {
    const status = path === '/api/integrations' ? 'active' : 'free';
    const query = names.map((name) => `&${name}=${{ ...valueOf, status }[name]}`).join('');
    await note(invocations, `GET ${path} under ${filtered}`, async (bindings) => {
      for (const order of ['asc', 'desc']) {
        const first = `${path}?page_size=1&order=${order}${query}`;
        const { next_cursor } = await page(client, first, { bindings });
        if (next_cursor) await page(client, `${first}&cursor=${next_cursor}`, { bindings });
      }
    });
  }
}

const greatestOrganization = () => ({
  name: longest(100),
  metadata: Object.fromEntries(Array.from({ length: 16 }, (_, index) => [`${index}`.padEnd(40, '字'), longest(500)])),
});

async function operateEverything(): Promise<void> {
  for (const { name, prepare } of operatorMutations) {
    await note(invocations, name, async (bindings) => {
      const { method, path, body } = await prepare(await newClient());
      await call(await newOperator(), method, path, { body, bindings });
    });
    const operator = await newOperator();
    const { method, path, body } = await prepare(await newClient());
    const headers = { 'Idempotency-Key': crypto.randomUUID().padEnd(255, 'x') };
    for (const time of ['first', 'again']) {
      await note(invocations, `${name}, with a key, ${time}`, (bindings) =>
        call(operator, method, path, { body, headers, bindings }),
      );
    }
  }
  const operator = await newOperator();
  const { organization_id } = await newClient();
  const about = `/operator/organizations/${organization_id}`;
  const greatestOnes: [Mutation['method'], string, object, number][] = [
    [
      'POST',
      '/operator/organizations',
      { ...greatestOrganization(), first_key: { name: longest(100), role: 'admin' } },
      201,
    ],
    ['PUT', about, greatestOrganization(), 200],
    ['POST', `${about}/api-keys`, { name: longest(100), role: 'admin', user_id: `user_${'x'.repeat(64)}` }, 201],
  ];
  for (const [method, path, body, status] of greatestOnes) {
    await note(invocations, `the greatest ${method} ${path}`, async (bindings) =>
      expect((await call(operator, method, path, { body, bindings })).status).toBe(status),
    );
  }
  const lists = [
    ...['', '&status=active', '&tier=starter', '&status=offboarding&tier=enterprise'].flatMap((filter) =>
      ['', `&name_prefix=${longest(100)}`].map((prefix) => `/operator/organizations?page_size=1${filter}${prefix}`),
    ),
    `${about}/api-keys?page_size=1`,
    '/operator/audit-events?page_size=1&actor_type=operator',
    `/operator/audit-events?page_size=1&organization_id=${organization_id}`,
  ];
  for (const path of lists) {
    await note(invocations, `GET ${path}`, async (bindings) => {
      const { next_cursor } = await page(operator, path, { bindings });
      if (next_cursor) await page(operator, `${path}&cursor=${next_cursor}`, { bindings });
    });
  }
  for (const path of [about, '/operator/phone-numbers?phone_number=%2B14155550100']) {
    await note(invocations, `GET ${path}`, (bindings) => call(operator, 'GET', path, { bindings }));
  }
}

const setStatus = ({ organization_id }: Client, assignments: string) =>
  env.DB.prepare(`UPDATE organizations SET ${assignments} WHERE organization_id = ?`).bind(organization_id).run();

/** An offboarding of more than is done at once, and as many of them as a turn of the cron continues, each with more than its share. */
async function offboardMany(): Promise<void> {
  const big = await newClient();
  await fillNumbers(big, await createIntegration(big), MORE_THAN_A_TURN);
  await setStatus(big, `status = 'suspended'`);
  const { organization_id } = big;
  await note(invocations, 'an offboarding of more than a turn', async (bindings) => {
    const path = `/operator/organizations/${organization_id}/offboard`;
    const { status } = await call(await newOperator(), 'POST', path, { body: { organization_id }, bindings });
    expect(status).toBe(202);
  });
  for (let count = 1; count < OFFBOARDINGS; count += 1) {
    const client = await newClient();
    await fillNumbers(client, await createIntegration(client), MORE_THAN_A_SHARE);
    await setStatus(client, `status = 'offboarded', is_offboarding = 1`);
  }
}

/** A turn of the cron that has more of everything to do than it does. */
async function turnTheCron(client: Client): Promise<void> {
  const { organization_id } = client;
  await offboardMany();
  for (let count = 0; count < 110; count += 1) await createIntegration(client);
  // Almost as many as a turn looks past.
  await asMany(
    `INSERT INTO integrations (organization_id, integration_id, name, provider, category, status, credentials_version,
       data_key, kek_id, created_at, updated_at)
     SELECT ?1, printf('intg_%012x', i), 'Does not open', 'twilio', 'telephony', 'active', 'v', 'k', 'k1', 0, 0 FROM n WHERE i < 1000`,
    organization_id,
  );
  await asMany(
    `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts)
     SELECT 'v1/' || ?1 || '/gone/' || i, ?1, 0, 0 FROM n`,
    organization_id,
  );
  for (let times = 0; times < 5; times += 1) {
    await asMany(
      `INSERT INTO audit_events (organization_id, event_id, action, target_id, actor_key_id, request_id, state, created_at, sequence) SELECT ?1, '00000000-' || ?2 || i, 'integration.created', 'intg_000000000000', NULL, '', '{}', 0, i FROM n`,
      organization_id,
      times,
    );
    await asMany(
      `INSERT INTO idempotency_keys SELECT ?1, 'apikey_000000000000', ?2 || '/' || i, 'POST', '/', '', '', 0 FROM n`,
      organization_id,
      times,
    );
    await asMany(
      `INSERT INTO operator_idempotency_keys
       SELECT 'opkey_000000000000', ?2 || '/' || i, 'POST', '/', ?1, '', '', 0 FROM n`,
      organization_id,
      times,
    );
  }
  const { keys } = JSON.parse(env.CREDENTIALS_KEKS);
  const ring = { current: 'k2', keys: { ...keys, k2: btoa('another KEK'.padEnd(32)) } };
  await note(invocations, 'the cron', (bindings) =>
    worker.scheduled(createScheduledController(), { ...bindings, CREDENTIALS_KEKS: JSON.stringify(ring) }),
  );
}

/** A key with more descendants than an invocation may do operations. */
async function revokeMany(client: Client): Promise<void> {
  const { organization_id } = client;
  const root = await newClient({ organization_id });
  await fillKeys(client, MANY);
  await env.DB.prepare(
    `UPDATE api_keys SET created_by = ?, expires_at = NULL WHERE organization_id = ? AND user_id = 'user_filled'`,
  )
    .bind(root.key_id, organization_id)
    .run();
  await note(invocations, 'the revocation of a key with many', async (bindings) => {
    const { status, text } = await call(client, 'DELETE', `/api/api-keys/${root.key_id}?descendants=true`, {
      bindings,
    });
    expect(status).toBe(200);
    expect(JSON.parse(text).data.revoked_descendants.length).toBeGreaterThanOrEqual(MANY);
  });
}

async function commandEverything(client: Client): Promise<void> {
  const { organization_id } = client;
  const integration_id = await createIntegration(client);
  await fillNumbers(client, integration_id, 150);
  const [held = ''] = await fillNumbers(client, null, 1);
  await fillKeys(client, 150);
  await note(commands, 'keys:create', async ({ DB }) => {
    await createKeyByCommand(DB, { organization_id, role: 'admin', name: longest(100), expires_at: null });
    await createKeyByCommand(DB, {
      organization_id,
      role: 'admin',
      tier: 'enterprise',
      name: longest(100),
      expires_at: null,
    });
  });
  await note(commands, 'phone-numbers:release', async ({ DB }) => {
    const { phone_number_id = '' } = (await findHeldPhoneNumber(DB, held)) ?? {};
    expect(await releasePhoneNumber(DB, { organization_id, phone_number_id })).toBeDefined();
  });
  await note(commands, 'organizations:suspend and :resume', async ({ DB }) => {
    await readOrganization(DB, organization_id);
    await suspendOrganization(DB, organization_id);
    await resumeOrganization(DB, organization_id);
  });
  await note(commands, 'keks:rotate', async ({ DB }) => countDataKeys(DB, (await readKeks(DB, 'k1')).inUse));
  for (let count = 0; count < 150; count += 1) await env.CREDENTIALS.put(`v1/org_gone/intg_gone/${count}`, 'orphan');
  await note(commands, 'recovery:reconcile', async (bindings) =>
    expect((await reconcile(bindings)).credentials_missing.length).toBeGreaterThan(100),
  );
  await note(commands, 'keys:revoke-all', ({ DB }) => revokeAllKeys(DB, organization_id));
  await note(commands, 'organizations:offboard', ({ DB }) => offboardOrganization(DB, organization_id));
  await note(commands, 'recovery:export and :replay', async ({ DB }) => {
    await replay(DB, () => exportAll(DB, 0));
  });
}

/** How many arguments each function call of a statement has: its commas outside quotes and inner brackets, and one. */
function argumentCounts(sql: string): number[] {
  const counts: { name: string; count: number }[] = [];
  const open: { name: string; count: number }[] = [];
  const tokens = sql.replaceAll(/'(?:[^']|'')*'|"[^"]*"|`[^`]*`/g, 'x').matchAll(/(\w*)\s*\(|\)|,/g);
  for (const [token, name = ''] of tokens) {
    const innermost = open.at(-1);
    if (token === ',' && innermost) innermost.count += 1;
    if (token.endsWith('(')) open.push({ name: name.toLowerCase(), count: 1 });
    if (token === ')') counts.push(...open.splice(-1));
  }
  // What is no function: a table with its columns, lists of values, subqueries.
  return counts.filter(({ name }) => !['', 'x', 'in', 'values'].includes(name)).map(({ count }) => count);
}

/** The patterns of a statement as they stand there: what is bound or computed has no known end. */
const patternsOf = (sql: string) =>
  [...sql.matchAll(/\b(?:like|glob)\s+('(?:[^']|'')*'|\S+)/gi)].map(([, pattern = '']) => pattern);

const bytes = (value: unknown) =>
  value instanceof ArrayBuffer || ArrayBuffer.isView(value)
    ? value.byteLength
    : new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value)).length;

const everything = () => [...Object.entries(invocations), ...Object.entries(commands)];
const allCalls = () => everything().flatMap(([, { calls }]) => calls);
const sent = () => allCalls().flatMap(({ statements }) => statements);

let schema: string[];
/** Every row, once all has been called. */
let stored: object[];
const allSql = () => [...new Set([...schema, ...sent().map(({ sql }) => sql)])];

beforeAll(async () => {
  for (const method of ['info', 'warn', 'error'] as const) vi.spyOn(console, method).mockImplementation(() => {});
  const { results } = await env.DB.prepare('SELECT sql FROM sqlite_master WHERE sql IS NOT NULL').all();
  schema = results.map(({ sql }) => String(sql));
  const client = await newClient({ organization_id: `org_${'x'.repeat(40)}` });
  await importSip(client);
  await callEverything(client);
  await operateEverything();
  stored = Object.values((await everythingStored()).d1).flat();
  await readEverything(client);
  await turnTheCron(client);
  await revokeMany(client);
  await commandEverything(client);
  return () => vi.restoreAllMocks();
}, SEEDING_MILLISECONDS);

describe('the statements of all calls, of the cron, of the operator’s commands and of the schema', () => {
  it('are noted, those with the largest objects and the longest batches among them', () => {
    expect(allSql().length).toBeGreaterThan(100);
    expect(allSql().filter((sql) => sql.includes('json_set(json_object(')).length).toBeGreaterThan(3);
    expect(Math.max(...allCalls().map(({ statements }) => statements.length))).toBeGreaterThan(100);
  });

  it(`give no SQL function more than ${MAX_FUNCTION_ARGUMENTS} arguments`, () => {
    expect(Math.max(...allSql().flatMap(argumentCounts))).toBe(MAX_FUNCTION_ARGUMENTS);
  });

  it(`have at most ${MAX_STATEMENT_BYTES} bytes, and bind at most ${MAX_BOUND_PARAMETERS} parameters`, () => {
    for (const sql of allSql()) expect(bytes(sql)).toBeLessThanOrEqual(MAX_STATEMENT_BYTES);
    for (const { values } of sent()) expect(values.length).toBeLessThanOrEqual(MAX_BOUND_PARAMETERS);
  });

  it(`match by patterns that stand in them, of at most ${MAX_PATTERN_BYTES} bytes`, () => {
    const patterns = allSql().flatMap(patternsOf);

    expect(patterns).toContain(`'*_refused'`);
    for (const pattern of patterns) {
      expect(pattern).toMatch(/^'.*'$/);
      expect(bytes(pattern)).toBeLessThanOrEqual(MAX_PATTERN_BYTES + 2);
    }
  });

  it(`bind values, and leave rows, of at most ${MAX_VALUE_BYTES} bytes`, () => {
    // They are too many for one call of Math.max.
    const mostBytes = (values: unknown[]) => values.reduce<number>((most, value) => Math.max(most, bytes(value)), 0);
    const bound = mostBytes(sent().flatMap((statement) => statement.values));
    expect(bound).toBeGreaterThan(5000);
    expect(bound).toBeLessThanOrEqual(MAX_VALUE_BYTES);

    expect(mostBytes(stored)).toBeGreaterThan(2000);
    expect(mostBytes(stored)).toBeLessThanOrEqual(MAX_VALUE_BYTES);
  });
});

describe('an invocation of the Worker', () => {
  it(`has at most ${MAX_OPEN} calls open at once; so has an operator’s command`, () => {
    const open = everything().map(([name, { mostOpen }]) => ({ name, mostOpen }));
    expect(open.filter(({ mostOpen }) => mostOpen > MAX_OPEN)).toEqual([]);
  });

  it(`asks D1 for at most ${MAX_STATEMENTS} statements; so does each call of a command`, () => {
    const noted = [
      ...Object.entries(invocations).map(([name, { calls }]) => ({ name, calls })),
      ...Object.entries(commands).flatMap(([name, { calls }]) => calls.map((one) => ({ name, calls: [one] }))),
    ];
    const countOf = ({ calls }: Pick<Invocation, 'calls'>) => calls.flatMap(({ statements }) => statements).length;
    expect(noted.filter((one) => countOf(one) > MAX_STATEMENTS).map(({ name }) => name)).toEqual([]);
  });

  it('has offboardings among them that are not ended in one turn', async () => {
    const { results } = await env.DB.prepare('SELECT phone_number_count FROM organizations WHERE is_offboarding').all();
    expect(results.length).toBeGreaterThan(1);
    for (const [name, batches] of Object.entries({ 'an offboarding of more than a turn': 60, 'the cron': 50 })) {
      const deletions = invocations[name]?.calls.filter(({ statements }) =>
        statements.some(({ sql }) => sql.startsWith('delete from "phone_numbers"')),
      );
      expect(deletions?.length, name).toBeGreaterThanOrEqual(batches);
    }
  });

  it(`makes at most ${MAX_OPERATIONS} calls, the cron with more to do than that too`, () => {
    const counts = Object.entries(invocations).map(([name, invocation]) => ({ name, count: invocation.calls.length }));
    expect(counts.filter(({ count }) => count > MAX_OPERATIONS)).toEqual([]);
    const { calls = [] } = invocations['the cron'] ?? {};
    expect(calls.filter(({ call: called }) => called === 'CREDENTIALS.delete').length).toBeGreaterThan(MAX_OPEN);
    expect(Math.max(...calls.map(({ statements }) => statements.length))).toBe(102);
  });
});

describe('what is asked of KV', () => {
  const written = (invocation: Invocation) =>
    invocation.calls.filter(({ call: called }) => /\.(?:put|delete)$/.test(called));

  it(`has keys of at most ${MAX_KV_KEY_BYTES} bytes and values of at most 25 MiB, and no metadata`, () => {
    const puts = everything().flatMap(([, invocation]) => written(invocation));
    expect(puts.length).toBeGreaterThan(100);
    for (const { parameters } of puts) {
      const [key, value = '', options = {}] = parameters;
      expect(bytes(key)).toBeLessThanOrEqual(MAX_KV_KEY_BYTES);
      expect(bytes(value)).toBeLessThanOrEqual(MAX_KV_VALUE_BYTES);
      expect(options).not.toHaveProperty('metadata');
    }
  });

  it('writes a key once in an invocation', () => {
    for (const [name, invocation] of Object.entries(invocations)) {
      const keys = written(invocation).map(({ parameters: [key] }) => key);
      expect({ name, keys: keys.length }).toEqual({ name, keys: new Set(keys).size });
    }
  });
});

describe('the emulator', () => {
  const run = (sql: string, ...values: unknown[]) =>
    env.DB.prepare(sql)
      .bind(...values)
      .run();
  const ones = (count: number) => Array.from({ length: count }, () => '1').join();

  it('takes more than the platform: so this file, and not a failing call, is what holds the app to the limits', async () => {
    const fifty = () => Promise.all(Array.from({ length: 50 }, () => env.CREDENTIALS.get('key')));
    const statements = Array.from({ length: 1001 }, () => env.DB.prepare('SELECT 1'));

    expect((await run(`SELECT max(${ones(127)})`)).success).toBe(true);
    expect((await run('SELECT length(?)', 'x'.repeat(5_000_000))).success).toBe(true);
    expect(await env.DB.batch(statements)).toHaveLength(1001);
    for (let times = 0; times <= 1000 / 50; times += 1) expect(await fifty()).toHaveLength(50);
    await env.CREDENTIALS.put('key', 'once');
    await env.CREDENTIALS.put('key', 'twice in a second');
  });

  it('refuses the rest as the platform does', async () => {
    await expect(run(`SELECT max(${ones(128)})`)).rejects.toThrow('too many arguments');
    await expect(run(`SELECT 1 IN (${ones(101).replaceAll('1', '?')})`)).rejects.toThrow('too many SQL variables');
    await expect(run(`SELECT '${'x'.repeat(100_000)}'`)).rejects.toThrow('statement too long');
    await expect(run('SELECT ? GLOB ?', 'x', 'x'.repeat(51))).rejects.toThrow('pattern too complex');
    await expect(env.CREDENTIALS.put('k'.repeat(513), 'v')).rejects.toThrow('key length limit of 512');
    await expect(env.CREDENTIALS.put('k', 'v', { metadata: 'x'.repeat(1025) })).rejects.toThrow('limit of 1024');
    await expect(env.CREDENTIALS.put('k', 'v', { expirationTtl: 59 })).rejects.toThrow('at least 60');
    await expect(env.CREDENTIALS.get('k', { cacheTtl: 29 })).rejects.toThrow('at least 30');
  });
});
