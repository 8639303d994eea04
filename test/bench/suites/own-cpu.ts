/** The Worker's own CPU: bindings answer from memory, so that nothing else is left of a call. */
import { repeat, startLoad } from '../load.ts';
import type { LoadRequest } from '../load.ts';
import { atMost } from '../report.ts';
import type { Findings, Settings } from '../report.ts';
import { create, get, list, readCredentials, reassign, remove } from '../requests.ts';
import { addCredentials, addIntegrations, addNumbers, integrationId, newClient, phoneNumberId } from '../seed.ts';
import type { Client } from '../seed.ts';
import { serve } from '../server.ts';
import { interleave } from '../statistics.ts';
import type { Job } from '../statistics.ts';
import { findWorkerd } from '../workerd.ts';

const ROUNDS = 100;
const BLOCK = 250;
const WARM_UP = 3000;
const CONNECTIONS = 16;

const HELLO = 'hello';
/** By another Worker, without the RPC around it. */
const READ = 'read of credentials';
/** The calls that are also written by hand. */
const WRITTEN = ['get', 'list of 20', 'delete'] as const;
const MOST_OVERHEAD = 1.15;
/** The same answer to the request that a get is: what its headers and path cost the runtime is no cost of the Worker. */
const HELLO_AS_GET = 'hello, asked as for a get';

export async function ownCpu({ rounds = ROUNDS }: Settings): Promise<Findings> {
  const load = startLoad();
  const server = await serve([
    { name: 'hello', worker: 'hello', model: 'real' },
    { name: 'auth', worker: 'auth', model: 'recorded' },
    { name: 'patchbay', worker: 'patchbay', model: 'recorded' },
    { name: 'raw', worker: 'raw', model: 'recorded' },
    { name: 'reader', worker: 'reader', model: 'recorded' },
  ]);
  const jobs: Record<string, Job> = {};

  async function add(name: string, worker: string, request: LoadRequest) {
    const url = await server.url(worker);
    // The first answer is what is recorded.
    await load.run({ url, connections: 1, requests: [request] });
    await load.run({ url, connections: CONNECTIONS, requests: repeat(WARM_UP, request) });
    jobs[name] = () => ({ url, connections: CONNECTIONS, requests: repeat(BLOCK, request) });
  }

  async function seeded(worker: string) {
    const { DB } = await server.bindings(worker);
    const client = await newClient(DB);
    await addIntegrations(DB, client, 30);
    await addNumbers(DB, client, { integration_id: integrationId(0), first: 0, count: 1 });
    return client;
  }

  try {
    const { headers } = await seeded('patchbay');
    const hello = { status: 200, expected: 'true' };
    await add(HELLO, 'hello', { method: 'GET', path: '/', ...hello });
    await add(HELLO_AS_GET, 'hello', { ...get(headers, integrationId(1)), ...hello });
    const auth = await seeded('auth');
    await add('authentication alone', 'auth', { ...get(auth.headers, integrationId(1)), ...hello });
    const written = writtenCalls(headers);
    await add('get', 'patchbay', written.get);
    const reader = await server.bindings('reader');
    const readBy = await seeded('reader');
    await addCredentials(reader, readBy, integrationId(1));
    await add(READ, 'reader', readCredentials(readBy.organization_id, integrationId(1)));
    await add('list of 20', 'patchbay', written['list of 20']);
    await add('delete', 'patchbay', written.delete);
    await add('create', 'patchbay', create(headers));
    await add('reassign a number', 'patchbay', reassign(headers, phoneNumberId(0), integrationId(1)));
    const byHand = writtenCalls((await seeded('raw')).headers);
    for (const name of WRITTEN) {
      await add(`${name}, by hand`, 'raw', byHand[name]);
      await assertSameAnswer([await server.url('patchbay'), written[name]], [await server.url('raw'), byHand[name]]);
    }

    const of = await interleave(load, rounds, jobs, findWorkerd());
    const ratio = (name: string, floor: string) => of(name).microseconds / of(floor).microseconds;
    const cpuRatio = (name: string, floor: string) => of(name).cpuMicroseconds / of(floor).cpuMicroseconds;
    return {
      tables: [
        {
          title: `Own CPU: ${rounds} rounds of ${BLOCK} requests at ${CONNECTIONS} connections`,
          rows: Object.keys(jobs).map((name) => ({
            call: name,
            'µs a request': of(name).microseconds,
            '÷ hello': ratio(name, HELLO),
            '÷ hello as get': ratio(name, HELLO_AS_GET),
            'CPU µs': of(name).cpuMicroseconds,
            'CPU ÷ hello': cpuRatio(name, HELLO),
            'CPU ÷ hello as get': cpuRatio(name, HELLO_AS_GET),
            "the load's CPU": of(name).loadShare,
          })),
        },
        {
          title: 'A read of credentials ÷ a get',
          rows: [{ 'µs a request': ratio(READ, 'get'), 'CPU µs': cpuRatio(READ, 'get') }],
        },
        {
          title: 'Patchbay ÷ the same by hand',
          rows: WRITTEN.map((name) => ({
            call: name,
            'µs a request': ratio(name, `${name}, by hand`),
            'CPU µs': cpuRatio(name, `${name}, by hand`),
          })),
        },
      ],
      // Its CPU time, and not the time of a request: that has the load's own work in it, which is the same for both.
      verdicts: WRITTEN.map((name) =>
        atMost(`${name}, own CPU ÷ the same calls by hand`, cpuRatio(name, `${name}, by hand`), MOST_OVERHEAD),
      ),
    };
  } finally {
    load.stop();
    await server.dispose();
  }
}

const writtenCalls = (headers: Client['headers']): Record<(typeof WRITTEN)[number], LoadRequest> => ({
  get: get(headers, integrationId(1)),
  'list of 20': list(headers),
  delete: remove(headers, integrationId(28)),
});

type Sent = [url: string, request: LoadRequest];

/** @throws Error if two Workers answer a call with other bytes, except for the id of the request */
async function assertSameAnswer(one: Sent, other: Sent): Promise<void> {
  const [answer, otherAnswer] = await Promise.all([one, other].map(answerTo));
  if (answer !== otherAnswer)
    throw new Error(`the same call is answered with\n${answer}\nand by hand with\n${otherAnswer}`);
}

async function answerTo([url, { method, path, headers }]: Sent): Promise<string> {
  const answer = await fetch(new URL(path, url), { method, headers: headers ?? {} });
  const told = [...answer.headers].filter(([name]) => name !== 'x-request-id');
  return [answer.status, ...told.map((header) => header.join(': ')), await answer.text()].join('\n');
}
