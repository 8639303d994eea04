/** Where the Worker's own CPU goes, function by function: what explains a ratio. */
import * as z from 'zod';
import { freePort, inspect } from '../inspector.ts';
import type { Inspector } from '../inspector.ts';
import { repeat, startLoad } from '../load.ts';
import type { Findings, Row } from '../report.ts';
import { get, list, remove } from '../requests.ts';
import { addIntegrations, integrationId, newClient } from '../seed.ts';
import { serve } from '../server.ts';

const REQUESTS = 10_000;
const WARM_UP = 5000;
const CONNECTIONS = 16;
const SAMPLE_MICROSECONDS = 50;
const FUNCTIONS_SHOWN = 40;

export async function profile(): Promise<Findings> {
  const load = startLoad();
  const inspectorPort = await freePort();
  const server = await serve([{ name: 'patchbay', worker: 'patchbay', model: 'recorded' }], {
    inspectorPort,
    minified: false,
  });
  try {
    const { DB } = await server.bindings('patchbay');
    const { organization_id, headers } = await newClient(DB);
    await addIntegrations(DB, { organization_id, headers }, 30);
    const url = await server.url('patchbay');
    const inspector = await inspect(inspectorPort, 'patchbay');
    const requests = {
      get: get(headers, integrationId(1)),
      'list of 20': list(headers),
      delete: remove(headers, integrationId(28)),
    };
    const tables = [];
    for (const [name, request] of Object.entries(requests)) {
      await load.run({ url, connections: 1, requests: [request] });
      await load.run({ url, connections: CONNECTIONS, requests: repeat(WARM_UP, request) });
      const rows = await selfTimes(inspector, () =>
        load.run({ url, connections: CONNECTIONS, requests: repeat(REQUESTS, request) }),
      );
      tables.push({ title: `Profile: ${name}, by self time`, rows });
    }
    inspector.close();
    return { tables, verdicts: [] };
  } finally {
    load.stop();
    await server.dispose();
  }
}

const nothing = z.unknown();
const recorded = z.object({
  profile: z.object({
    nodes: z.array(
      z.object({
        id: z.int(),
        callFrame: z.object({ functionName: z.string(), url: z.string(), lineNumber: z.int() }),
      }),
    ),
    samples: z.array(z.int()),
    timeDeltas: z.array(z.number()),
  }),
});

/** Microseconds a request in each function, without those that it called. */
async function selfTimes(inspector: Inspector, run: () => Promise<unknown>): Promise<Row[]> {
  await inspector.send('Profiler.enable', nothing);
  await inspector.send('Profiler.setSamplingInterval', nothing, { interval: SAMPLE_MICROSECONDS });
  await inspector.send('Profiler.start', nothing);
  await run();
  const { nodes, samples, timeDeltas } = (await inspector.send('Profiler.stop', recorded)).profile;

  const names = new Map(
    nodes.map(({ id, callFrame: { functionName, url, lineNumber } }) => [
      id,
      `${functionName || '(anonymous)'} ${url.split('/').at(-1)}:${lineNumber + 1}`,
    ]),
  );
  const times: Record<string, number> = {};
  for (const [index, node] of samples.entries()) {
    const name = names.get(node) ?? '';
    times[name] = (times[name] ?? 0) + (timeDeltas[index] ?? 0) / REQUESTS;
  }
  return Object.entries(times)
    .filter(([name]) => !name.startsWith('(idle)'))
    .toSorted(([, one], [, other]) => other - one)
    .slice(0, FUNCTIONS_SHOWN)
    .map(([name, microseconds]) => ({ 'µs a request': microseconds, function: name }));
}
