/** What calls cost D1 as an organization grows: rows read before the answer, and latency. */
import * as z from 'zod';
import { repeat, startLoad } from '../load.ts';
import type { Loader, LoadRequest } from '../load.ts';
import { atMost } from '../report.ts';
import type { Findings, Settings } from '../report.ts';
import { list, remove, removeInVain } from '../requests.ts';
import { addIntegrations, addNumbers, integrationId, newClient } from '../seed.ts';
import type { Client } from '../seed.ts';
import { serve } from '../server.ts';
import { median } from '../statistics.ts';

const SIZES = [100, 10_000, 1_000_000];
const REFERENCES = [1, 100, 10_000];
const DEPTHS = [0, 1000, 10_000, 100_000];
const REPEATS = 30;
const PAGE_SIZE = 100;

export async function growth({ rounds = REPEATS }: Settings): Promise<Findings> {
  const load = startLoad();
  const server = await serve([{ name: 'patchbay', worker: 'patchbay', model: 'counted' }]);
  try {
    const { DB } = await server.bindings('patchbay');
    const url = await server.url('patchbay');
    let numbers = 0;
    /** Its key is in the isolate's cache. */
    async function warmClient(organization_id: string) {
      const client = await newClient(DB, organization_id);
      await ask(url, list(client.headers));
      return client;
    }
    async function number(client: Client, integration_id: string, count: number) {
      await addNumbers(DB, client, { integration_id, first: numbers, count });
      numbers += count;
    }
    const measure = (requests: LoadRequest[]) => measureCost(load, url, requests);

    const deletes = [];
    let largest: Client | undefined;
    for (const size of SIZES) {
      const client = await warmClient(`org_${size}`);
      await addIntegrations(DB, client, rounds + 2);
      await number(client, integrationId(rounds + 1), size);
      const requests = Array.from({ length: rounds + 1 }, (_, index) => remove(client.headers, integrationId(index)));
      deletes.push({ 'numbers in the organization': size, ...(await measure(requests)) });
      largest = client;
    }

    const refusals = [];
    const client = await warmClient('org_referenced');
    await addIntegrations(DB, client, REFERENCES.length);
    for (const [index, references] of REFERENCES.entries()) {
      await number(client, integrationId(index), references);
      const refused = removeInVain(client.headers, integrationId(index));
      refusals.push({ references, ...(await measure(repeat(rounds + 1, refused))) });
    }

    const pages = largest ? await measurePages(measure, url, largest, rounds) : [];
    const rowsRead = deletes.map((row) => row['rows read']);
    return {
      tables: [
        { title: 'Growth: a delete of an unreferenced integration', rows: deletes },
        { title: 'Growth: a delete that is refused', rows: refusals },
        { title: `Growth: a page of ${PAGE_SIZE} of ${SIZES.at(-1)} numbers, by the rows before it`, rows: pages },
      ],
      verdicts: [
        atMost('delete of an unreferenced integration: rows read', Math.max(...rowsRead), 11),
        atMost(
          'the same: most rows − fewest rows, at 100 to 1,000,000 numbers',
          Math.max(...rowsRead) - Math.min(...rowsRead),
          0,
        ),
      ],
    };
  } finally {
    load.stop();
    await server.dispose();
  }
}

/** @param requests all of one cost; the first is asked what it is, the others how long they take */
async function measureCost(load: Loader, url: string, [first, ...others]: LoadRequest[]) {
  if (!first) throw new Error('there is nothing to measure');
  const { headers } = await ask(url, first);
  const { latencies } = await load.run({ url, connections: 1, requests: others });
  return {
    'D1 calls': Number(headers.get('X-D1-Calls')),
    'rows read': Number(headers.get('X-Rows-Read')),
    'rows written': Number(headers.get('X-Rows-Written')),
    'p50 ms': median(latencies),
  };
}

const page = z.object({ pagination: z.object({ next_cursor: z.string().nullable() }) });

async function measurePages(
  measure: (requests: LoadRequest[]) => ReturnType<typeof measureCost>,
  url: string,
  { headers }: Client,
  rounds: number,
) {
  const rows = [];
  let cursor = '';
  for (let depth = 0; depth <= Math.max(...DEPTHS); depth += PAGE_SIZE) {
    const request: LoadRequest = {
      method: 'GET',
      path: `/api/phone-numbers?page_size=${PAGE_SIZE}${cursor && `&cursor=${cursor}`}`,
      headers,
      status: 200,
      expected: '"has_more":true',
    };
    if (DEPTHS.includes(depth)) rows.push({ depth, ...(await measure(repeat(rounds + 1, request))) });
    const { body } = await ask(url, request);
    cursor = page.parse(body).pagination.next_cursor ?? '';
  }
  return rows;
}

async function ask(url: string, { path, status, expected, ...request }: LoadRequest) {
  const answer = await fetch(new URL(path, url), request);
  const text = await answer.text();
  if (answer.status !== status || !text.includes(expected)) throw new Error(`${path} is answered with ${text}`);
  return { headers: answer.headers, body: JSON.parse(text) as unknown };
}
