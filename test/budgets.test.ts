/** What each call costs, counted: round trips, statements, rows, KV operations, and dollars by these. README tells the same. */
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import readme from '../README.md?raw';
import { hashKey } from '../src/worker/callers/raw-key.ts';
import { forgetKey } from '../src/worker/callers/key-cache.ts';
import { interceptedBindings } from './bindings.ts';
import {
  call,
  changeKey,
  createIntegration,
  fillKeys,
  importNumber,
  newClient,
  start,
  unusedNumber,
} from './fixtures.ts';
import type { Client } from './fixtures.ts';
import { mutations } from './mutations.ts';
import type { Mutation } from './mutations.ts';

/** Dollars for a million, on the Workers Paid plan beyond what it includes; README has date and sources. */
const PRICES = {
  request: 0.3,
  cpuMillisecond: 0.02,
  kvRead: 0.5,
  kvWrite: 5,
  kvDelete: 5,
  rowRead: 0.001,
  rowWritten: 1,
};

/** Billed by the millisecond; `npm run bench` measures less for every call. */
const CPU_MILLISECONDS = 1;

interface Costs {
  /** On bindings before the answer, in their order. */
  trips: string[];
  statements: number;
  /** Those that follow the answer are among the counts from here on. */
  kvReads: number;
  kvWrites: number;
  kvDeletes: number;
  rowsRead: number;
  rowsWritten: number;
}

interface Request extends Omit<Mutation, 'method'> {
  method: string;
}

async function costsOf(client: Client, { method, path, body }: Request, headers = {}): Promise<Costs> {
  const trips: string[] = [];
  const counted = { statements: 0, kvReads: 0, kvWrites: 0, kvDeletes: 0, rowsRead: 0, rowsWritten: 0 };
  const bindings = interceptedBindings(async (name, carryOut) => {
    trips.push(name);
    if (name.endsWith('.get')) counted.kvReads += 1;
    if (name.endsWith('.put')) counted.kvWrites += 1;
    if (name.endsWith('.delete')) counted.kvDeletes += 1;
    const result = await carryOut();
    for (const { meta } of Array.isArray(result) ? result : []) {
      counted.statements += 1;
      counted.rowsRead += meta.rows_read;
      counted.rowsWritten += meta.rows_written;
    }
    return result;
  });
  const answer = await start(client, method, path, { body, bindings, headers });
  if (answer.status >= 400 && answer.status !== 409) throw new Error(answer.text);
  const before = [...trips];
  await answer.settle();
  return { trips: before, ...counted };
}

function dollarsPerMillion({ kvReads, kvWrites, kvDeletes, rowsRead, rowsWritten }: Costs): number {
  return (
    PRICES.request +
    CPU_MILLISECONDS * PRICES.cpuMillisecond +
    kvReads * PRICES.kvRead +
    kvWrites * PRICES.kvWrite +
    kvDeletes * PRICES.kvDelete +
    rowsRead * PRICES.rowRead +
    rowsWritten * PRICES.rowWritten
  );
}

const PAGE = 20;

/** Calls that read, of an organization with more than a page of everything. */
const reads: { name: string; path: (ids: { integration_id: string; phone_number_id: string }) => string }[] = [
  { name: 'one integration', path: ({ integration_id }) => `/api/integrations/${integration_id}` },
  { name: `a page of ${PAGE} integrations`, path: () => '/api/integrations' },
  { name: 'one phone number', path: ({ phone_number_id }) => `/api/phone-numbers/${phone_number_id}` },
  { name: `a page of ${PAGE} phone numbers`, path: () => '/api/phone-numbers' },
  { name: `a page of ${PAGE} API keys`, path: () => '/api/api-keys' },
  { name: `a page of ${PAGE} audit events`, path: () => '/api/audit-events' },
];

const stored = ['KEY_CACHE', 'CREDENTIALS'];

let client: Client;

beforeEach(async () => {
  client = await newClient();
  // Warms the isolate.
  await call(client, 'GET', '/api/nothing');
});

async function readCosts(): Promise<{ name: string; costs: Costs }[]> {
  const integration_id = await createIntegration(client);
  const phone_number_id = await importNumber(client, integration_id, unusedNumber());
  for (let count = 0; count < PAGE; count += 1) {
    await importNumber(client, await createIntegration(client), unusedNumber());
  }
  await fillKeys(client, PAGE);
  const all = [];
  for (const { name, path } of reads) {
    all.push({
      name,
      costs: await costsOf(client, { method: 'GET', path: path({ integration_id, phone_number_id }) }),
    });
  }
  return all;
}

/** But for the revocation with descendants: how many rows it reads depends on the order of random ids. */
const done = mutations.filter(({ status, name }) => status < 300 && !name.includes('with the two that come from it'));
const refused = mutations.filter(({ name }) => name === 'the deletion of an integration in use');

async function mutationCosts(): Promise<{ name: string; costs: Costs }[]> {
  const all = [];
  for (const { name, prepare } of [...done, ...refused]) {
    all.push({ name, costs: await costsOf(client, await prepare(client)) });
  }
  return all;
}

describe('in a warm isolate', () => {
  it('a read is one D1 call, and nothing follows it', async () => {
    for (const { name, costs } of await readCosts()) {
      expect({
        name,
        trips: costs.trips,
        kv: costs.kvReads + costs.kvWrites + costs.kvDeletes,
        written: costs.rowsWritten,
      }).toEqual({ name, trips: ['DB.batch'], kv: 0, written: 0 });
      expect(costs.statements).toBeLessThanOrEqual(2);
      expect(costs.rowsRead).toBeLessThanOrEqual(3 * PAGE + 10);
    }
  });

  it('a mutation is one D1 call before its answer, or, where it stores credentials, an intent, a put and that call', async () => {
    for (const { name, costs } of await mutationCosts()) {
      const stores = costs.trips.includes('CREDENTIALS.put');
      expect({ name, trips: costs.trips }).toEqual({
        name,
        trips: stores ? ['DB.batch', 'CREDENTIALS.put', 'DB.batch'] : ['DB.batch'],
      });
      expect(costs.statements).toBeLessThanOrEqual(stores ? 13 : 8);
    }
  });

  it('an Idempotency-Key makes no further trip', async () => {
    for (const { name, prepare } of done) {
      const [without, other] = [await prepare(client), await prepare(client)];
      const plain = await costsOf(client, without);
      const keyed = await costsOf(client, other, { 'Idempotency-Key': crypto.randomUUID() });
      expect({ name, trips: keyed.trips }).toEqual({ name, trips: plain.trips });
    }
  });
});

/** What a read costs where the isolate does not know its key. */
async function coldCosts(): Promise<{ name: string; costs: Costs }[]> {
  const hash = hashKey(client.raw_key);
  const read = { method: 'GET', path: '/api/integrations?page_size=1' };
  forgetKey(hash);
  const kvWarm = { name: 'a page of none, only KV knows the key', costs: await costsOf(client, read) };
  forgetKey(hash);
  await env.KEY_CACHE.delete(hash);
  await changeKey(client, 'last_used_at = NULL');
  return [kvWarm, { name: 'a page of none, nothing knows the key', costs: await costsOf(client, read) }];
}

describe('the costs in the README', () => {
  it('are those that are counted', async () => {
    const counted = [...(await coldCosts()), ...(await readCosts()), ...(await mutationCosts())];
    const cells = counted.map(({ name, costs }) => [
      name,
      costs.trips.map((trip) => (stored.some((namespace) => trip.startsWith(namespace)) ? 'KV' : 'D1')).join(', '),
      String(costs.statements),
      String(costs.rowsRead),
      String(costs.rowsWritten),
      String(costs.kvReads + costs.kvWrites + costs.kvDeletes),
      dollarsPerMillion(costs).toFixed(2),
    ]);
    const [, section = ''] = readme.split('## Costs');
    const [costs = ''] = section.split('\n## ');
    const rows = costs.split('\n').filter((row) => row.startsWith('| '));
    const told = rows.map((row) =>
      row
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );

    expect(told.slice(2)).toEqual(cells);
  });
});
