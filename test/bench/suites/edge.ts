/** Latency with D1 and KV as far away as in production, in a warm isolate. */
import { repeat, startLoad } from '../load.ts';
import type { LoadRequest } from '../load.ts';
import { atLeast, atMost } from '../report.ts';
import type { Findings, Settings } from '../report.ts';
import { get, remove } from '../requests.ts';
import { addIntegrations, assertDeleted, integrationId, newClient } from '../seed.ts';
import { edgeTimes, serve } from '../server.ts';
import { interleave, median, quantile } from '../statistics.ts';
import type { Job } from '../statistics.ts';

const ROUNDS = 5;
const BLOCK = 40;
/** None waits for another. */
const CONNECTIONS = 1;

const workers = ['patchbay', 'naive'] as const;
/** The unavoidable trip as this machine makes it: its timers are late by milliseconds, whoever waits. */
const TRIP = 'one D1 trip alone';

export async function edge({ rounds = ROUNDS, ...settings }: Settings): Promise<Findings> {
  const load = startLoad();
  const times = { ...edgeTimes(settings), D1_BUSY_MS: 0 };
  const server = await serve(
    [...workers, 'trip'].map((worker) => ({ name: worker, worker, model: 'edge' as const, times })),
  );
  const jobs: Record<string, Job> = {};
  try {
    const tripUrl = await server.url('trip');
    const tripRequest: LoadRequest = { method: 'GET', path: '/', status: 200, expected: 'true' };
    for (const worker of workers) {
      const { DB } = await server.bindings(worker);
      const client = await newClient(DB);
      // The last one is read; all others are deleted.
      const last = (rounds + 1) * BLOCK;
      await addIntegrations(DB, client, last + 1);
      const url = await server.url(worker);
      const calls = {
        get: () => get(client.headers, integrationId(last)),
        delete: (index: number) => remove(client.headers, integrationId(index)),
      };
      for (const [call, request] of Object.entries(calls)) {
        const block: Job = (index) => ({
          url,
          connections: CONNECTIONS,
          requests: Array.from({ length: BLOCK }, (_, offset) => request(index * BLOCK + offset)),
        });
        await load.run(block(0));
        jobs[`${worker} ${call}`] = (round) => block(1 + round);
      }
    }
    const trip: Job = () => ({ url: tripUrl, connections: CONNECTIONS, requests: repeat(BLOCK, tripRequest) });
    await load.run(trip(0));
    jobs[TRIP] = trip;
    const of = await interleave(load, rounds, jobs);
    for (const worker of workers) await assertDeleted((await server.bindings(worker)).DB, (rounds + 1) * BLOCK, 1);

    const p50 = (name: string) => median(of(name).latencies);
    const rows = Object.keys(jobs).map((name) => {
      const p99 = quantile(of(name).latencies, 0.99);
      return {
        call: name,
        'p50 ms': p50(name),
        'p99 ms': p99,
        'p50 ÷ trip': p50(name) / p50(TRIP),
        'p99 ÷ trip': p99 / p50(TRIP),
        [`p50 ÷ ${settings.d1Ms} ms`]: p50(name) / settings.d1Ms,
        [`p99 ÷ ${settings.d1Ms} ms`]: p99 / settings.d1Ms,
      };
    });
    const title =
      `Modelled edge: KV ${settings.kvMs} ms, KV write ${settings.kvWriteMs} ms, D1 ${settings.d1Ms} ms; ` +
      `${rounds} rounds of ${BLOCK} at ${CONNECTIONS} connection`;
    return {
      tables: [{ title, rows }],
      verdicts: [
        atMost('delete, modelled edge: p50 ÷ one D1 trip', p50('patchbay delete') / p50(TRIP), 1.05),
        atLeast('delete, modelled edge: × the serial version', p50('naive delete') / p50('patchbay delete'), 5),
        atMost('get, modelled edge: p50 ÷ one D1 trip', p50('patchbay get') / p50(TRIP), 1.05),
      ],
    };
  } finally {
    load.stop();
    await server.dispose();
  }
}
