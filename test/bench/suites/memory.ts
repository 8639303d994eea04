/** Whether memory stays flat: more API keys than the isolate's cache holds, and bindings that answer from memory. */
import { startLoad } from '../load.ts';
import { atMost } from '../report.ts';
import type { Findings, Settings } from '../report.ts';
import { get, list, remove } from '../requests.ts';
import { addIntegrations, addKeys, integrationId, newClient } from '../seed.ts';
import { serve } from '../server.ts';
import { findWorkerd } from '../workerd.ts';

const KEYS = 2000;
const CONNECTIONS = 16;
const STEP = 10_000;
const REQUESTS = 100_000;
const MEBIBYTE = 1024 * 1024;

export async function memory(_: Settings): Promise<Findings> {
  const load = startLoad();
  const server = await serve([{ name: 'patchbay', worker: 'patchbay', model: 'recorded' }]);
  try {
    const workerd = findWorkerd();
    if (!workerd) throw new Error('there is no /proc, which tells what memory workerd takes');
    const { DB } = await server.bindings('patchbay');
    const client = await newClient(DB);
    await addIntegrations(DB, client, 30);
    const keys = await addKeys(DB, client, KEYS);
    const url = await server.url('patchbay');
    const mix = keys.flatMap((headers) => [
      get(headers, integrationId(1)),
      list(headers),
      remove(headers, integrationId(28)),
    ]);
    // One of each alone: the first answer is what is recorded.
    await load.run({ url, connections: 1, requests: mix.slice(0, 3) });

    const rows = [];
    for (let sent = 0; sent < REQUESTS; sent += STEP) {
      const requests = Array.from({ length: STEP }, (_unused, index) => mix.slice((sent + index) % mix.length)[0]);
      await load.run({ url, connections: CONNECTIONS, requests: requests.filter((request) => request !== undefined) });
      rows.push({ requests: sent + STEP, 'resident MiB': workerd.memoryBytes() / MEBIBYTE });
    }
    const [first, last] = [rows.at(0), rows.at(-1)].map((row) => row?.['resident MiB'] ?? Number.NaN);
    return {
      tables: [{ title: `Memory of workerd, ${KEYS} API keys in turn`, rows }],
      verdicts: [
        atMost('memory after 100,000 requests ÷ after 10,000', (last ?? Number.NaN) / (first ?? Number.NaN), 1.1),
      ],
    };
  } finally {
    load.stop();
    await server.dispose();
  }
}
