/** Counts what each call costs: round trips, statements, rows, KV operations, and the dollars that follow. `docs/costs.md` is written from it. */
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { forgetKey } from '../src/worker/callers/caller.ts';
import { forgetOperator } from '../src/worker/callers/operator.ts';
import { hashKey } from '../src/worker/callers/raw-key.ts';
import type { Bindings } from '../src/worker/env.ts';
import { interceptedBindings } from './bindings.ts';
import { startRead } from './credentials-reader/reader.ts';
import {
  call,
  changeKey,
  createIntegration,
  emptyStorage,
  fillKeys,
  importNumber,
  newClient,
  newOperator,
  start,
  twilio,
  unusedNumber,
} from './fixtures.ts';
import type { Client, Operator } from './fixtures.ts';
import { markdownTable } from './markdown.ts';
import { importSip, mutations } from './mutations.ts';
import type { Mutation } from './mutations.ts';
import { operatorMutations } from './operator-mutations.ts';

const PRICES_OF = '2026-11-24';

/** Dollars for a million, on the Workers Paid plan, beyond what the plan includes. The page names the sources. */
const PRICES = {
  request: 0.3,
  cpuMillisecond: 0.02,
  kvRead: 0.5,
  kvWrite: 5,
  kvDelete: 5,
  rowRead: 0.001,
  rowWritten: 1,
};

/** An upper bound: `npm run bench` measures less for every call. */
const CPU_MILLISECONDS = 1;

/** A message of Queues is three operations: it is written, read and deleted. */
const QUEUE_OPERATION = 0.4;
const OPERATIONS_PER_MESSAGE = 3;

const HEARTBEATS_A_MONTH = (30 * 24 * 60 * 60) / 5;

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
  /** A call by a service binding is billed as none. */
  isRequest: boolean;
}

interface Request extends Omit<Mutation, 'method'> {
  method: string;
}

/** Starts a call on these bindings; what it returns waits for what follows the answer. */
type StartCall = (bindings: Bindings) => Promise<{ settle(): Promise<void> }>;

const costsOf = (
  caller: Client | Operator,
  { method, path, body, headers: own }: Request,
  headers = {},
): Promise<Costs> =>
  costsOfCall(true, async (bindings) => {
    const answer = await start(caller, method, path, { body, bindings, headers: { ...own, ...headers } });
    if (answer.status >= 400 && answer.status !== 409) throw new Error(answer.text);
    return answer;
  });

async function costsOfCall(isRequest: boolean, startCall: StartCall): Promise<Costs> {
  const trips: string[] = [];
  const counted = { statements: 0, kvReads: 0, kvWrites: 0, kvDeletes: 0, rowsRead: 0, rowsWritten: 0 };
  const bindings = interceptedBindings(async (name, carryOut, { statements }) => {
    trips.push(name);
    if (name.endsWith('.get')) counted.kvReads += 1;
    if (name.endsWith('.put')) counted.kvWrites += 1;
    if (name.endsWith('.delete')) counted.kvDeletes += 1;
    const result = await carryOut();
    for (const [index, { meta }] of Array.isArray(result) ? result.entries() : []) {
      counted.statements += 1;
      counted.rowsRead += meta.rows_read;
      // Which call renews the heartbeat is a matter of time.
      if (!statements[index]?.sql.startsWith('update "heartbeats"')) counted.rowsWritten += meta.rows_written;
    }
    return result;
  });
  const answer = await startCall(bindings);
  const before = [...trips];
  await answer.settle();
  return { trips: before, ...counted, isRequest };
}

function dollarsPerMillion({ kvReads, kvWrites, kvDeletes, rowsRead, rowsWritten, isRequest }: Costs): number {
  return (
    (isRequest ? PRICES.request : 0) +
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
  { name: `a page of ${PAGE} integrations by name`, path: () => '/api/integrations?name_prefix=t' },
  {
    name: 'the references of an integration that one number uses',
    path: ({ integration_id }) => `/api/integrations/${integration_id}/references`,
  },
  { name: 'one phone number', path: ({ phone_number_id }) => `/api/phone-numbers/${phone_number_id}` },
  { name: `a page of ${PAGE} phone numbers`, path: () => '/api/phone-numbers' },
  { name: `a page of ${PAGE} API keys`, path: () => '/api/api-keys' },
  { name: `a page of ${PAGE} audit events`, path: () => '/api/audit-events' },
  { name: `a page of ${PAGE} audit events, followed from the beginning`, path: () => '/api/audit-events?after=' },
  { name: 'a page of no webhook endpoint', path: () => '/api/webhook-endpoints' },
];

const places = new Map([
  ['DB', 'D1'],
  ['KEY_CACHE', 'KV'],
  ['CREDENTIALS', 'KV'],
  ['provider', 'provider'],
]);

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

/** SQLite reads a row past the end of a range, where there is one. Now there is one behind every range of references. */
async function addLastReference(): Promise<void> {
  const last = 'intg_ffffffffffff';
  await env.DB.prepare('UPDATE integrations SET integration_id = ? WHERE integration_id = ?')
    .bind(last, await createIntegration(client))
    .run();
  await importNumber(client, last, unusedNumber());
}

async function mutationCosts(): Promise<{ name: string; costs: Costs }[]> {
  await addLastReference();
  const all = [];
  for (const { name, prepare } of [...done, ...refused]) {
    all.push({ name, costs: await costsOf(client, await prepare(client)) });
  }
  return all;
}

/** By an operator key that the isolate knows, about an organization of its own. */
async function operatorCosts(): Promise<{ name: string; costs: Costs }[]> {
  await emptyStorage();
  // There is a row behind every range, whatever the ids.
  const last = await newClient({ organization_id: 'org_zzz' });
  await importNumber(last, await createIntegration(last), unusedNumber());
  const { organization_id } = await newClient();
  const operator = await newOperator();
  await call(operator, 'GET', '/operator/nothing');
  const all = [];
  for (const { name, prepare } of operatorMutations.filter(({ status }) => status < 300)) {
    all.push({ name, costs: await costsOf(operator, await prepare(await newClient())) });
  }
  const about = `/operator/organizations/${organization_id}`;
  for (const [name, path] of [
    ['an operator’s look at one organization', about],
    [`an operator’s page of ${PAGE} organizations`, '/operator/organizations'],
    ['an operator’s page of one API key', `${about}/api-keys`],
  ] as const) {
    all.push({ name, costs: await costsOf(operator, { method: 'GET', path }) });
  }
  return all;
}

const checked = ['DB.batch', 'provider.fetch', 'CREDENTIALS.put'];
const put = ['DB.batch', 'CREDENTIALS.put'];
const asked = ['DB.batch', 'CREDENTIALS.get', 'provider.fetch'];

/** The trips before the batch that decides, of the mutations that have any. */
const before: Record<string, string[]> = {
  'the creation of an integration': checked,
  'new credentials for an integration': checked,
  'new credentials for an integration that is as matched': checked,
  'the check of an integration': asked,
  'the import of a number that its account holds': asked,
  'the import of a number that another organization has without its account': asked,
  'the import of 20 numbers': asked,
  // Whether it is another account.
  'the reassignment of a number': ['DB.batch'],
  'the reassignment of a number to another account, which holds it': asked,
  'the reassignment of an integration’s numbers to another account, which holds them': asked,
  'the check of a number that its account holds': asked,
  'the deletion of an integration, and its numbers go to another account, which holds them': asked,
  'the import of a SIP number with credentials': put,
  'new SIP credentials for a number': put,
  'a new PIN alone for a SIP number': ['DB.batch', 'CREDENTIALS.get', ...put],
  // Whether the call is right otherwise, before it counts against the limit.
  'a new secret for a webhook endpoint': ['DB.batch'],
  'a test that a webhook endpoint answers': ['DB.batch'],
  'a test that a webhook endpoint fails': ['DB.batch'],
  'a replay of events for a webhook endpoint': ['DB.batch'],
};

describe('in a warm isolate', () => {
  it('a read is one D1 call, and nothing follows it', async () => {
    for (const { name, costs } of await readCosts()) {
      expect({
        name,
        trips: costs.trips,
        kv: costs.kvReads + costs.kvWrites + costs.kvDeletes,
        written: costs.rowsWritten,
      }).toEqual({ name, trips: ['DB.batch'], kv: 0, written: 0 });
      expect(costs.statements).toBeLessThanOrEqual(3);
      expect(costs.rowsRead).toBeLessThanOrEqual(3 * PAGE + 10);
    }
  });

  it('a mutation is one D1 call before its answer; credentials add what must come before it', async () => {
    for (const { name, costs } of await mutationCosts()) {
      expect({ name, trips: costs.trips }).toEqual({ name, trips: [...(before[name] ?? []), 'DB.batch'] });
      expect(costs.statements).toBeLessThanOrEqual(before[name] ? 27 : 14);
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

describe('in an isolate that does not know the key', () => {
  const tripsOf = async (caller: Client | Operator, prepared: Request) => {
    forgetKey(await hashKey(caller.raw_key));
    forgetOperator(await hashKey(caller.raw_key));
    const { trips } = await costsOf(caller, prepared);
    return trips.filter((name) => name !== 'KEY_CACHE.get');
  };

  it.each(['KV', 'nothing'])('a call makes the same trips as in a warm one, if %s knows the key', async (knows) => {
    const operator = await newOperator();
    await call(operator, 'GET', '/operator/nothing');
    const all: [Client | Operator, string, () => Promise<Request>][] = [
      ...reads.map(({ name, path }): (typeof all)[number] => [
        client,
        name,
        async () => {
          const integration_id = await createIntegration(client, undefined, '?verify=false');
          const phone_number_id = await importNumber(client, integration_id, unusedNumber());
          return { method: 'GET', path: path({ integration_id, phone_number_id }) };
        },
      ]),
      ...done.map(({ name, prepare }): (typeof all)[number] => [client, name, () => prepare(client)]),
      ...operatorMutations
        .filter(({ status }) => status < 300)
        .map(({ name, prepare }): (typeof all)[number] => [operator, name, async () => prepare(await newClient())]),
    ];
    for (const [caller, name, prepare] of all) {
      const warm = await costsOf(caller, await prepare());
      const prepared = await prepare();
      if (knows === 'nothing') await env.KEY_CACHE.delete(await hashKey(caller.raw_key));
      expect({ name, trips: await tripsOf(caller, prepared) }).toEqual({ name, trips: warm.trips });
    }
  });
});

/** What calls cost where the isolate does not know the key. */
async function coldCosts(): Promise<{ name: string; costs: Costs }[]> {
  client = await newClient();
  const hash = await hashKey(client.raw_key);
  const newOne = () => createIntegration(client, undefined, '?verify=false');
  const calls: [string, () => Promise<Request>][] = [
    ['one integration', async () => ({ method: 'GET', path: `/api/integrations/${await newOne()}` })],
    ['a page of one integration', async () => ({ method: 'GET', path: '/api/integrations?page_size=1' })],
    ['the deletion of an integration', async () => ({ method: 'DELETE', path: `/api/integrations/${await newOne()}` })],
    [
      'the creation of an integration, unchecked',
      async () => ({
        method: 'POST',
        path: '/api/integrations?verify=false',
        body: { name: 'x', credentials: twilio },
      }),
    ],
  ];
  const all = [];
  for (const [name, prepare] of calls) {
    const inKv = await prepare();
    await call(client, 'GET', '/api/nothing');
    forgetKey(hash);
    all.push({ name: `${name}, only KV knows the key`, costs: await costsOf(client, inKv) });
    const nowhere = await prepare();
    forgetKey(hash);
    await env.KEY_CACHE.delete(hash);
    await changeKey(client, 'last_used_at = NULL');
    all.push({ name: `${name}, nothing knows the key`, costs: await costsOf(client, nowhere) });
  }
  return all;
}

const READERS = 5;

/** What other Workers cause that read credentials. */
async function readerCosts(): Promise<{ name: string; costs: Costs }[]> {
  const { organization_id } = client;
  const integration_id = await createIntegration(client);
  const phone_number = unusedNumber();
  await importNumber(client, integration_id, phone_number);
  const sipNumber = unusedNumber();
  await importSip(client, sipNumber);
  const readers: [name: string, Parameters<typeof startRead>][] = [
    ['credentials of an integration, the first of the day', ['read', { organization_id, integration_id }]],
    ['credentials of an integration', ['read', { organization_id, integration_id }]],
    ['credentials of a number', ['readByPhoneNumber', { phone_number }]],
    ['credentials of a SIP number, the first of the day', ['readByPhoneNumber', { phone_number: sipNumber }]],
    ['credentials of a SIP number', ['readByPhoneNumber', { phone_number: sipNumber }]],
  ];
  const all = [];
  for (const [name, [method, request]] of readers) {
    all.push({ name, costs: await costsOfCall(false, (bindings) => startRead(method, request, { bindings })) });
  }
  return all;
}

describe('another Worker', () => {
  it('reads credentials in one D1 call, and in one KV read the first time; it reads at most five rows', async () => {
    const counted = await readerCosts();

    const cold = ['DB.batch', 'CREDENTIALS.get'];
    expect(counted.map(({ costs }) => costs.trips)).toEqual([cold, ['DB.batch'], ['DB.batch'], cold, ['DB.batch']]);
    const warm = counted.filter(({ name }) => !name.includes('first'));
    expect(warm).toHaveLength(3);
    for (const { costs } of warm) {
      expect(costs).toMatchObject({ statements: 1, kvReads: 0, rowsWritten: 0 });
      expect(costs.rowsRead).toBeLessThanOrEqual(5);
    }
  });
});

const dollars = (amount: number) => `$${amount.toFixed(amount < 0.01 ? 3 : 2)}`;

const pageOf = (rows: Record<string, string | number>[]) => `# What a call costs

\`npm run costs\` writes this page. \`test/budgets.test.ts\` counts what each call does on D1 and KV, and fails when a figure here is not what it counted.

- **$ / million** is the price of a million such calls on the Workers Paid plan, beyond what the plan includes. CPU time is taken as ${CPU_MILLISECONDS} ms a call, which is several times what \`npm run bench\` measures. Logs, which the platform bills by the line, are not included.
- **Before the answer** lists the calls of D1, KV and a provider that the client waits for, in their order. All other columns also count what happens after the answer.
- The isolate already knows the API key, except in the rows that say otherwise. There KV is asked at the same time as D1, and nobody waits for it. After the answer, the key is written to KV, and its use is noted, unless KV knew the key.
- A page is ${PAGE} rows long. The first page of a list also counts the list, up to 1,000 rows.
- What an operator does is that of an operator key. An offboarding is that of an organization with six rows; all but the first batch comes behind the answer.
- The last five rows are [reads by another Worker](credentials-reader.md). A call by a service binding is not billed as a request. The first read of a day is that of an isolate that does not have the ciphertext, and leaves an audit event.

${markdownTable(rows)}

Every batch that writes also reads the heartbeat's one row, by which replicas show their age. Once that is 5 s old, the next such batch renews it: that is one row written every 5 s at most, or ${dollars((HEARTBEATS_A_MONTH * PRICES.rowWritten) / 1e6)} a month. It is not in the table.

A mutation that did something also sends a wake-up to a queue, after its answer: ${dollars(OPERATIONS_PER_MESSAGE * QUEUE_OPERATION)} for a million, and a request for the consumer. It is not in the table, nor is what is sent to webhook endpoints.

An audit event is six of the rows written: the event itself, one row in each of its four indexes, and the organization's row, which holds the counters that give the event its sequence.

Prices of ${PRICES_OF}:

- [Workers](https://developers.cloudflare.com/workers/platform/pricing/): ${dollars(PRICES.request)} for a million requests, ${dollars(PRICES.cpuMillisecond)} for a million milliseconds of CPU
- [D1](https://developers.cloudflare.com/d1/platform/pricing/): ${dollars(PRICES.rowRead)} for a million rows read, ${dollars(PRICES.rowWritten)} for a million rows written
- [KV](https://developers.cloudflare.com/kv/platform/pricing/): ${dollars(PRICES.kvRead)} for a million reads, ${dollars(PRICES.kvWrite)} for a million writes, ${dollars(PRICES.kvDelete)} for a million deletes
- [Queues](https://developers.cloudflare.com/queues/platform/pricing/): ${dollars(QUEUE_OPERATION)} for a million operations
`;

describe('docs/costs.md', () => {
  it('shows what is counted (npm run costs writes it)', async () => {
    const counted = [...(await readCosts()), ...(await mutationCosts()), ...(await readerCosts())];
    counted.splice(-READERS, 0, ...(await operatorCosts()));
    counted.unshift(...(await coldCosts()));
    const rows = counted.map(({ name, costs }) => ({
      call: name,
      'before the answer': costs.trips.map((trip) => places.get(trip.replace(/\..*/, '')) ?? trip).join(', '),
      statements: costs.statements,
      'rows read': costs.rowsRead,
      'rows written': costs.rowsWritten,
      KV: costs.kvReads + costs.kvWrites + costs.kvDeletes,
      '$ / million': dollarsPerMillion(costs).toFixed(2),
    }));

    await expect(pageOf(rows)).toMatchFileSnapshot('../docs/costs.md');
  });
});

// Behind the others: rows that it leaves would be read past the ends of their ranges.
describe('an operator', () => {
  it('makes one D1 call before the answer; where a row must be as it was seen, one more to see it', async () => {
    const asksBefore = /^the (update|suspension|resumption|offboarding|release) /;
    for (const { name, costs } of await operatorCosts()) {
      const trips = asksBefore.test(name) ? ['DB.batch', 'DB.batch'] : ['DB.batch'];
      expect({ name, trips: costs.trips }).toEqual({ name, trips });
    }
  });
});
