/** Whether memory stays flat: more API keys than the isolate's cache holds, and bindings that answer from memory. */
import * as z from 'zod';
import { freePort, inspect } from '../inspector.ts';
import { startLoad } from '../load.ts';
import type { LoadRequest } from '../load.ts';
import { atMost } from '../report.ts';
import type { Findings } from '../report.ts';
import { get, list, removeInVain } from '../requests.ts';
import { addIntegrations, addKeys, addNumbers, integrationId, newClient } from '../seed.ts';
import { serve } from '../server.ts';
import { findWorkerd } from '../workerd.ts';

const KEYS = 2000;
const CONNECTIONS = 16;
const STEP = 10_000;
const STEPS = 10;
const AFTER_COLLECTION = 100;
const MEBIBYTE = 1024 * 1024;

const nothing = z.unknown();
const heapUsage = z.object({ usedSize: z.number() });

type MemoryRow = Record<
  'requests' | 'resident MiB' | 'resident MiB, garbage collected' | 'heap MiB, garbage collected',
  number
>;

export async function memory(): Promise<Findings> {
  const load = startLoad();
  const inspectorPort = await freePort();
  const server = await serve([{ name: 'patchbay', worker: 'patchbay', model: 'recorded' }], { inspectorPort });
  try {
    const workerd = findWorkerd();
    if (!workerd) throw new Error('there is no /proc, which tells what memory workerd takes');
    const { DB } = await server.bindings('patchbay');
    const client = await newClient(DB);
    await addIntegrations(DB, client, 30);
    await addNumbers(DB, client, { integration_id: integrationId(0), first: 0, count: 1 });
    const keys = await addKeys(DB, client, KEYS);
    const url = await server.url('patchbay');
    const mix = keys.flatMap((headers) => [
      get(headers, integrationId(1)),
      list(headers),
      // It can be asked for again and again.
      removeInVain(headers, integrationId(0)),
    ]);
    const run = (requests: LoadRequest[]) => load.run({ url, connections: CONNECTIONS, requests });
    // One of each alone: the first answer is what is recorded.
    await load.run({ url, connections: 1, requests: mix.slice(0, 3) });

    const inspector = await inspect(inspectorPort, 'patchbay');
    // Without it a collection is never answered.
    await inspector.send('HeapProfiler.enable', nothing);
    const rows: MemoryRow[] = [];
    for (let step = 0; step < STEPS; step += 1) {
      await run(turns(mix, step * STEP, STEP));
      const resident = workerd.memoryBytes() / MEBIBYTE;
      // How much garbage lies about is V8's decision; what is left without it is the Worker's.
      await Promise.all([
        inspector.send('HeapProfiler.collectGarbage', nothing),
        // workerd collects when a request next comes.
        run(turns(mix, 0, AFTER_COLLECTION)),
      ]);
      const { usedSize } = await inspector.send('Runtime.getHeapUsage', heapUsage);
      rows.push({
        requests: (step + 1) * STEP,
        'resident MiB': resident,
        'resident MiB, garbage collected': workerd.memoryBytes() / MEBIBYTE,
        'heap MiB, garbage collected': usedSize / MEBIBYTE,
      });
    }
    inspector.close();
    const growth = (column: keyof MemoryRow) =>
      (rows.at(-1)?.[column] ?? Number.NaN) / (rows.at(0)?.[column] ?? Number.NaN);
    return {
      tables: [{ title: `Memory of workerd, ${KEYS} API keys in turn`, rows }],
      verdicts: [
        atMost('memory after 100,000 requests ÷ after 10,000', growth('resident MiB, garbage collected'), 1.1),
        atMost('heap after 100,000 requests ÷ after 10,000', growth('heap MiB, garbage collected'), 1.1),
      ],
    };
  } finally {
    load.stop();
    await server.dispose();
  }
}

/** Of a list that begins anew at its end, so many from a place on. */
function turns<Item>(items: Item[], first: number, count: number): Item[] {
  return Array.from({ length: count }, (_, index) => items[(first + index) % items.length]).filter(
    (item) => item !== undefined,
  );
}
