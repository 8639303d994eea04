/** What is still answered when more is asked than one D1 can do: before retries had a budget and D1's queue a bound, and after. */
import { BEFORE } from '../before.ts';
import { runOpenLoad } from '../open-load.ts';
import type { OpenLoadResult } from '../open-load.ts';
import { atLeast, atMost } from '../report.ts';
import type { Findings, Settings } from '../report.ts';
import { get } from '../requests.ts';
import { addIntegrations, integrationId, newClient } from '../seed.ts';
import { edgeTimes, serve } from '../server.ts';
import type { Server } from '../server.ts';
import { median, quantile } from '../statistics.ts';

const versions = { before: { commit: BEFORE }, after: {} };

/** The load that is offered ÷ what D1 can do. */
const LOADS = [0.5, 0.75, 1, 1.5, 2, 3];
const SATURATED = 1.5;
const SECONDS = 20;
/** Until then, at 1.5 × too, a queue without a bound has become longer than any call waits. */
const COUNTED_FROM = 10;
/** What an isolate lets a batch wait for D1 (core/admission.ts), and half of it for one more try and noise. */
const LATENCY_BOUND_MS = 3_000;

export async function overload(settings: Settings): Promise<Findings> {
  const capacity = 1000 / settings.d1BusyMs;
  // Each load has a Worker and a database of its own, so that none begins with what another left in the queue.
  const contenders = LOADS.flatMap((load) =>
    Object.entries(versions).map(([version, source]) => ({
      load,
      version,
      served: {
        name: `${version}-${load * 100}`,
        worker: 'patchbay',
        model: 'edge' as const,
        times: edgeTimes(settings),
        ...source,
      },
    })),
  );
  const server = await serve(contenders.map(({ served }) => served));
  const measured: { load: number; version: string; result: OpenLoadResult }[] = [];
  try {
    for (const load of LOADS) {
      const rivals = contenders.filter((contender) => contender.load === load);
      const results = await Promise.all(rivals.map(({ served }) => offer(server, served.name, load * capacity)));
      for (const [index, result] of results.entries()) {
        const version = rivals[index]?.version ?? '';
        measured.push({ load, version, result });
      }
    }
  } finally {
    await server.dispose();
  }

  const of = (version: string) => measured.filter((one) => one.version === version);
  const peaks = Object.fromEntries(
    Object.keys(versions).map((version) => [version, Math.max(...of(version).map(({ result }) => result.goodput))]),
  );
  const relative = ({ version, result }: (typeof measured)[number]) => result.goodput / (peaks[version] ?? Number.NaN);
  const saturated = of('after').filter(({ load }) => load >= SATURATED);
  const tables = Object.keys(versions).map((version) => ({
    title: `Overload, ${version}: one D1 that can do ${capacity} batches a second`,
    rows: of(version).map((one) => ({
      'offered ÷ capacity': one.load,
      'goodput a second': one.result.goodput,
      'goodput ÷ peak': relative(one),
      'p50 ms': median(one.result.latencies),
      'p99 ms': quantile(one.result.latencies, 0.99),
      'tries refused': one.result.refused,
      'tries without answer': one.result.unanswered,
      'clients late, p99 ms': quantile(one.result.lateness, 0.99),
    })),
  }));
  return {
    tables,
    verdicts: [
      atLeast('overload of 1.5 to 3 ×: goodput ÷ its peak', Math.min(...saturated.map(relative)), 0.9),
      atMost(
        'the same: p99 of what is answered, ms',
        Math.max(...saturated.map(({ result }) => quantile(result.latencies, 0.99))),
        LATENCY_BOUND_MS,
      ),
    ],
  };
}

/** Reads of one integration, each of which is one batch. */
async function offer(server: Server, contender: string, rate: number): Promise<OpenLoadResult> {
  const { DB } = await server.bindings(contender);
  const client = await newClient(DB);
  await addIntegrations(DB, client, 1);
  const url = await server.url(contender);
  const request = get(client.headers, integrationId(0));
  // From now on the isolate knows the key.
  await fetch(new URL(request.path, url), { headers: client.headers });
  return runOpenLoad({ url, rate, seconds: SECONDS, countedFrom: COUNTED_FROM, request, seed: 1 });
}
