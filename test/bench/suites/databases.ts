/** What further databases bring where D1 is the bottleneck: each does one call at a time. */
import { databaseOf } from '../../../src/worker/d1/databases.ts';
import type { Bindings } from '../../../src/worker/env.ts';
import { startLoad } from '../load.ts';
import { atLeast } from '../report.ts';
import type { Findings, Settings } from '../report.ts';
import { get, remove } from '../requests.ts';
import { addIntegrations, assertDeleted, integrationId, newClient } from '../seed.ts';
import type { Client } from '../seed.ts';
import { edgeTimes, serve } from '../server.ts';
import { interleave } from '../statistics.ts';
import type { Job } from '../statistics.ts';

const ROUNDS = 5;
/** Enough that no database ever waits for a request. */
const CONNECTIONS = 128;
const ORGANIZATIONS = 16;
/** Of each organization in a block: as many gets and as many deletes. */
const CALLS = 20;

const contenders = {
  one: ['DB'],
  four: ['DB', 'DB_1', 'DB_2', 'DB_3'],
} as const satisfies Record<string, readonly [string, ...string[]]>;

export async function databases({ rounds = ROUNDS, ...settings }: Settings): Promise<Findings> {
  const load = startLoad();
  const times = edgeTimes(settings);
  const server = await serve(
    Object.entries(contenders).map(([name, bound]) => ({
      name,
      worker: 'patchbay',
      model: 'edge' as const,
      times,
      databases: bound,
    })),
  );
  const deletes = (1 + rounds) * CALLS;
  const jobs: Record<string, Job> = {};
  try {
    for (const [name, bound] of Object.entries(contenders)) {
      const env = await server.bindings(name);
      const clients = await equalShares(env, bound.length);
      for (const client of clients) await addIntegrations(databaseOf(env, client.organization_id), client, deletes + 1);
      const url = await server.url(name);
      const block: Job = (index) => ({
        url,
        connections: CONNECTIONS,
        requests: Array.from({ length: CALLS }, (_, call) => index * CALLS + call).flatMap((id) =>
          clients.flatMap(({ headers }) => [get(headers, integrationId(deletes)), remove(headers, integrationId(id))]),
        ),
      });
      await load.run(block(0));
      jobs[name] = (round) => block(1 + round);
    }
    const of = await interleave(load, rounds, jobs);

    for (const [name, bound] of Object.entries(contenders))
      await assertDone(await server.bindings(name), bound, deletes);
    const rows = Object.keys(jobs).map((name) => ({
      databases: name,
      'requests a second': 1e6 / of(name).microseconds,
      '÷ one': of('one').microseconds / of(name).microseconds,
    }));
    const title =
      `Databases, saturated: D1 ${settings.d1Ms} ms, busy for ${settings.d1BusyMs} ms with a call; ` +
      `${rounds} rounds at ${CONNECTIONS} connections, gets and deletes of ${ORGANIZATIONS} organizations`;
    return {
      tables: [{ title, rows }],
      verdicts: [
        atLeast('4 databases, modelled edge, saturated: × 1', of('one').microseconds / of('four').microseconds, 3.5),
      ],
    };
  } finally {
    load.stop();
    await server.dispose();
  }
}

/** Organizations of which every database has as many, each with its row and key where it belongs. */
async function equalShares(env: Bindings, count: number): Promise<Client[]> {
  const clients: Client[] = [];
  const taken = new Map<D1Database, number>();
  for (let candidate = 0; clients.length < ORGANIZATIONS; candidate += 1) {
    const organization_id = `org_${candidate}`;
    const database = databaseOf(env, organization_id);
    const share = taken.get(database) ?? 0;
    if (share === ORGANIZATIONS / count) continue;
    taken.set(database, share + 1);
    clients.push(await newClient(database, organization_id));
  }
  return clients;
}

/** @throws Error unless every answer's effect is in the databases, in equal shares */
async function assertDone(env: Bindings, bound: readonly string[], deletes: number): Promise<void> {
  for (const name of bound) {
    const database: D1Database = Reflect.get(env, name);
    const organizations = ORGANIZATIONS / bound.length;
    await assertDeleted(database, organizations * deletes, organizations);
  }
}
