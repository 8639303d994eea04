/** What calls make us store: bytes of a row, by the growth of the database over many copies, and what they come to. */
import { env } from 'cloudflare:workers';
import { beforeAll, describe, expect, it } from 'vitest';
import design from '../docs/design.md?raw';
import { bytesPerRow, readStorage, storedTables } from '../src/operator/organizations/storage.ts';
import { quotaDefaults } from '../src/worker/organizations/quotas.ts';
import {
  call,
  createIntegration,
  fillKeys,
  fillNumbers,
  importNumber,
  newClient,
  newOperator,
  unusedNumber,
} from './fixtures.ts';
import type { Client, Operator } from './fixtures.ts';
import { deadDelivery, mutations } from './mutations.ts';
import type { Mutation } from './mutations.ts';
import { operatorMutations } from './operator-mutations.ts';

/** What operators alone make rows of. `npm run storage` leaves it out: it is little. */
const bytesOfOperators = { organizations: 700, operator_idempotency_keys: 330 };

const bytesOfRow = { ...bytesPerRow, ...bytesOfOperators };
type Table = keyof typeof bytesOfRow;
const allTables = [...storedTables, 'organizations', 'operator_idempotency_keys'] as const;

const COPIES = 2_000;
const hex = 'lower(hex(randomblob(6)))';
/** What tells a copy's row from the others: ids as the API mints them, in the order of time where it has one. */
const copied: Record<Table, Record<string, string>> = {
  integrations: { integration_id: `'intg_' || ${hex}` },
  phone_numbers: { phone_number_id: `'phon_' || ${hex}`, phone_number: `'+1999' || (abs(random()) % 9000000000 + i)` },
  api_keys: { key_id: `'apikey_' || ${hex}`, key_hash: 'lower(hex(randomblob(32)))' },
  audit_events: {
    event_id: `printf('%08x', i + ?1) || substr(event_id, 9, 16) || ${hex}`,
    target_id: `substr(target_id, 1, 5) || ${hex}`,
  },
  idempotency_keys: {
    idempotency_key: `substr(lower(hex(randomblob(16))) || idempotency_key, 1, max(36, length(idempotency_key)))`,
    event_id: `printf('%08x', i) || substr(event_id, 9, 16) || ${hex}`,
  },
  organizations: { organization_id: `'org_' || ${hex}`, created_at: 'created_at + i' },
  operator_idempotency_keys: {
    idempotency_key: 'lower(hex(randomblob(18)))',
    event_id: `printf('%08x', i) || substr(event_id, 9, 16) || ${hex}`,
  },
  credential_purges: { kv_key: `substr(kv_key, 1, 20) || lower(hex(randomblob(20)))` },
  webhook_endpoints: { endpoint_id: `'whep_' || ${hex}` },
  webhook_secrets: { secret_id: `'whkey_' || ${hex}` },
  webhook_deliveries: {
    delivery_id: `'whdel_' || ${hex}`,
    event_id: `printf('%08x', i + ?1) || substr(event_id, 9, 16) || ${hex}`,
  },
};

/** Which row of several is like most. */
const typical: Partial<Record<Table, string>> = {
  api_keys: 'created_by IS NOT NULL',
  audit_events: `action = 'integration.created'`,
  organizations: 'name IS NOT NULL',
};

const size = async () => (await env.DB.prepare('SELECT 1').run()).meta.size_after;

let series = 0;

/** Bytes that one more row takes, with its entries in the indexes. */
async function bytesOf(table: Table, condition: string): Promise<number> {
  const example = await env.DB.prepare(`SELECT * FROM ${table} WHERE ${condition} LIMIT 1`).first();
  if (!example) throw new Error(`no row of ${table}`);
  const columns = Object.keys(example);
  const before = await size();
  await env.DB.prepare(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${COPIES})
     INSERT INTO ${table} (${columns.join()})
     SELECT ${columns.map((column) => copied[table][column] ?? column).join()}
     FROM n CROSS JOIN (SELECT * FROM ${table} WHERE ${condition} LIMIT 1) WHERE ?1 > 0`,
  )
    .bind((series += COPIES))
    .run();
  return ((await size()) - before) / COPIES;
}

const widest = (length: number) => '😀'.repeat(length);
const widestKey = () => crypto.randomUUID().padEnd(255, 'k');

/** A number with all that a client may say of it, each as long as can be. */
const widestNumber = () => ({
  provider: 'sip',
  phone_number: unusedNumber(),
  supports_outbound: true,
  sip_trunk_name: widest(100),
  sip_username: widest(100),
  sip_password: widest(256),
  sip_server_address: `${'longest.label.'.repeat(18)}x:65535`,
  inbound_room_name: widest(100),
  inbound_pin: '0123456789',
});

const post = (client: Client | Operator, path: string, body: object, key = widestKey()) =>
  call(client, 'POST', path, { body, headers: { 'Idempotency-Key': key } });

describe('a row', () => {
  let client: Client;

  beforeAll(async () => {
    client = await newClient();
    const integration_id = await createIntegration(client);
    await importNumber(client, integration_id, unusedNumber());
    await post(client, '/api/api-keys', { name: 'Billing service', role: 'user' }, crypto.randomUUID());
    const organization = { name: 'Example Telecom', metadata: { account: '4711' } };
    await post(await newOperator(), '/operator/organizations', organization, crypto.randomUUID());
    await env.DB.prepare(
      `INSERT INTO credential_purges (kv_key, organization_id, due_at, attempts)
       VALUES ('v1/org_a/intg_0123456789ab/V1StGXR8_Z5jdHi6B-myT', 'org_a', 1, 0)`,
    ).run();
    await deadDelivery(client);
  });

  it.each(allTables)('of %s takes about what is said of it', async (table) => {
    const estimated = bytesOfRow[table];
    const measured = await bytesOf(table, typical[table] ?? '1');

    expect(measured).toBeGreaterThan(estimated * 0.8);
    expect(measured).toBeLessThan(estimated * 1.2);
  });
});

describe('what a call stores', () => {
  async function rowsOf(): Promise<Record<string, unknown>> {
    const counts = allTables.map((table) => `(SELECT count(*) FROM ${table}) AS ${table}`);
    return (await env.DB.prepare(`SELECT ${counts.join()}`).first()) ?? {};
  }

  /** Bytes of the rows that it left more than there were; what it removed is room for others. */
  async function bytesOfCall(
    caller: Client | Operator,
    { method, path, body, headers: own }: Mutation,
    headers = {},
  ): Promise<number> {
    const before = await rowsOf();
    await call(caller, method, path, { body, headers: { ...own, ...headers } });
    const after = await rowsOf();
    const added = allTables.map(
      (table) => Math.max(0, Number(after[table]) - Number(before[table])) * bytesOfRow[table],
    );
    return added.reduce((sum, bytes) => sum + bytes);
  }

  it('is what docs/design.md tells, for every mutation', async () => {
    const client = await newClient();
    const measured = [];
    for (const { name, prepare } of mutations) {
      const plain = await bytesOfCall(client, await prepare(client));
      const keyed = await bytesOfCall(client, await prepare(client), { 'Idempotency-Key': crypto.randomUUID() });
      measured.push([name, plain, keyed]);
    }
    for (const { name, prepare } of operatorMutations) {
      const plain = await bytesOfCall(await newOperator(), await prepare(await newClient()));
      const keyed = await bytesOfCall(await newOperator(), await prepare(await newClient()), {
        'Idempotency-Key': crypto.randomUUID(),
      });
      measured.push([name, plain, keyed]);
    }

    const [, section = ''] = design.split('## What a call stores');
    const told = section
      .split('\n## ')[0]
      ?.split('\n')
      .filter((row) => row.startsWith('| '))
      .slice(2)
      .map((row) => row.split('|').slice(1, -1))
      .map(([name = '', plain, keyed]) => [name.trim(), Number(plain), Number(keyed)]);
    expect(told).toEqual(measured);
  });
});

describe('what one organization of the tier starter can make us store', () => {
  /** Mutations in 10 seconds: the binding’s own limit. */
  const MUTATIONS = 20;
  const IN_AN_HOUR = (MUTATIONS / 10) * 3600;
  const IN_A_DAY = IN_AN_HOUR * 24;
  const { integrations, phone_numbers, api_keys, audit_events } = quotaDefaults.starter;
  /** The cron drops those beyond a tenth of the quota, once they are an hour old. */
  const REFUSALS = audit_events / 10 + IN_AN_HOUR;

  /** Of ten webhook endpoints (webhooks/deliver.ts). */
  const MAX_DELIVERIES = 10_000;

  let bytes: Record<'event' | 'idempotency_key' | 'number' | 'integration' | 'key' | 'delivery', number>;

  beforeAll(async () => {
    const client = await newClient();
    await post(client, '/api/phone-numbers', widestNumber());
    await post(client, '/api/integrations', { name: widest(100), credentials: { provider: 'telnyx', api_key: 'k' } });
    await post(client, '/api/api-keys', { name: widest(100), role: 'user' });
    await deadDelivery(client);
    const ours = `organization_id = '${client.organization_id}'`;
    await env.DB.prepare(`UPDATE webhook_deliveries SET response_body = ? WHERE ${ours}`).bind('x'.repeat(1024)).run();
    bytes = {
      event: await bytesOf('audit_events', `${ours} AND action = 'phone_number.imported'`),
      idempotency_key: await bytesOf('idempotency_keys', `${ours} AND path = '/api/phone-numbers'`),
      number: await bytesOf('phone_numbers', ours),
      integration: await bytesOf('integrations', ours),
      key: await bytesOf('api_keys', `${ours} AND length(name) = 100`),
      delivery: await bytesOf('webhook_deliveries', ours),
    };
  });

  const held = () => integrations * bytes.integration + phone_numbers * bytes.number + api_keys * bytes.key;

  it('is at most 300 MB in a day, whatever it calls at the rate that it has', () => {
    const acted = Math.min(audit_events, IN_A_DAY);

    // A rotation brings a key and two events; its events are smaller than a number's by more than the key.
    expect(bytes.key + 2 * bytes.idempotency_key).toBeLessThan(bytes.event);
    expect(acted * (bytes.event + bytes.idempotency_key) + REFUSALS * bytes.event + held()).toBeLessThan(300e6);
  });

  it('is no more by calls that act on many numbers: each of them takes room for an event', async () => {
    const client = await newClient();
    const integration_id = await createIntegration(client);
    await fillNumbers(client, integration_id, 100);
    const events = async () => {
      const found = await env.DB.prepare(
        'SELECT audit_event_count AS count, (SELECT count(*) FROM audit_events WHERE organization_id = ?1) AS rows FROM organizations WHERE organization_id = ?1',
      )
        .bind(client.organization_id)
        .first<{ count: number; rows: number }>();
      return found ?? { count: 0, rows: 0 };
    };
    const before = await events();
    await env.DB.prepare('UPDATE organizations SET max_audit_events = ? WHERE organization_id = ?')
      .bind(before.count + 250, client.organization_id)
      .run();

    const body = { integration_id, set: { supports_inbound: true } };
    const statuses: number[] = [];
    for (let calls = 0; calls < 4; calls += 1) {
      statuses.push((await call(client, 'POST', '/api/phone-numbers/bulk-update', { body })).status);
    }
    const after = await events();

    expect(statuses).toEqual([200, 200, 409, 409]);
    expect(after).toEqual({ count: before.count + 200, rows: before.rows + 200 });
  });

  it('is at most 60 MB of deliveries, with the longest answers that are kept', () => {
    expect(MAX_DELIVERIES * bytes.delivery).toBeLessThan(60e6);
  });

  it('is at most 1 GB for ever', () => {
    const ofKeys = audit_events * (bytes.key + bytes.idempotency_key);

    expect((audit_events + REFUSALS) * bytes.event + ofKeys + held() + MAX_DELIVERIES * bytes.delivery).toBeLessThan(
      1e9,
    );
  });
});

describe('what an organization takes', () => {
  it('is told by table, of each organization, the biggest first', async () => {
    const [big, small] = [await newClient(), await newClient()];
    const integration_id = await createIntegration(big);
    await fillNumbers(big, integration_id, 300);
    await fillKeys(big, 20);

    const stored = await readStorage(env.DB);

    const of = ({ organization_id }: Client) => stored.find((found) => found.organization_id === organization_id);
    expect(of(big)?.tables.map(({ table, rows }) => [table, rows])).toEqual([
      ['phone_numbers', 300],
      ['api_keys', 21],
      ['audit_events', 2],
      ['integrations', 1],
    ]);
    expect(of(small)?.tables.map(({ table }) => table)).toEqual(['audit_events', 'api_keys']);
    const order = stored.map(({ bytes }) => bytes);
    expect(order).toEqual(order.toSorted((one, other) => other - one));
  });
});
