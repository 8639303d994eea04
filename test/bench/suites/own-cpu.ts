/** The Worker's own CPU: bindings answer from memory, so that nothing else is left of a call. */
import { repeat, startLoad } from '../load.ts';
import type { LoadRequest } from '../load.ts';
import { atMost } from '../report.ts';
import type { Findings, Settings } from '../report.ts';
import { create, get, list, readCredentials, reassign, remove } from '../requests.ts';
import { addCredentials, addIntegrations, addNumbers, integrationId, newClient, phoneNumberId } from '../seed.ts';
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
    await add('get', 'patchbay', get(headers, integrationId(1)));
    const reader = await server.bindings('reader');
    const readBy = await seeded('reader');
    await addCredentials(reader, readBy, integrationId(1));
    await add(READ, 'reader', readCredentials(readBy.organization_id, integrationId(1)));
    await add('list of 20', 'patchbay', list(headers));
    await add('delete', 'patchbay', remove(headers, integrationId(28)));
    await add('create', 'patchbay', create(headers));
    await add('reassign a number', 'patchbay', reassign(headers, phoneNumberId(0), integrationId(1)));
    const raw = await seeded('raw');
    await add('get, by hand', 'raw', get(raw.headers, integrationId(1)));
    await add('delete, by hand', 'raw', remove(raw.headers, integrationId(28)));

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
          rows: ['get', 'delete'].map((name) => ({
            call: name,
            'µs a request': ratio(name, `${name}, by hand`),
            'CPU µs': cpuRatio(name, `${name}, by hand`),
          })),
        },
      ],
      verdicts: [
        atMost('delete, own CPU ÷ a Hono hello', ratio('delete', HELLO), 1.6),
        atMost('get, own CPU ÷ a Hono hello', ratio('get', HELLO), 1.3),
        atMost('list of 20, own CPU ÷ a Hono hello', ratio('list of 20', HELLO), 1.8),
      ],
    };
  } finally {
    load.stop();
    await server.dispose();
  }
}
