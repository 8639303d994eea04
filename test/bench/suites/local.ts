/** Deletes on real local D1 and KV: Patchbay, the usual way, and the same batch by hand. */
import { setTimeout } from 'node:timers/promises';
import { startLoad } from '../load.ts';
import { atLeast } from '../report.ts';
import type { Findings, Settings } from '../report.ts';
import { remove } from '../requests.ts';
import { addIntegrations, assertDeleted, countRows, integrationId, newClient } from '../seed.ts';
import { serve } from '../server.ts';
import { interleave } from '../statistics.ts';
import type { Job } from '../statistics.ts';

const ROUNDS = 30;
const BLOCK = 150;
const WARM_UP_BLOCKS = 4;
const CONNECTIONS = 16;

const workers = ['patchbay', 'naive', 'raw'] as const;

export async function local({ rounds = ROUNDS }: Settings): Promise<Findings> {
  const load = startLoad();
  const server = await serve(workers.map((worker) => ({ name: worker, worker, model: 'real' as const })));
  const deletes = (WARM_UP_BLOCKS + rounds) * BLOCK;
  const jobs: Record<string, Job> = {};
  try {
    for (const worker of workers) {
      const { DB } = await server.bindings(worker);
      const client = await newClient(DB);
      await addIntegrations(DB, client, deletes);
      const url = await server.url(worker);
      const block: Job = (index) => ({
        url,
        connections: CONNECTIONS,
        // No id twice: the second delete would be a 404, which is cheaper.
        requests: Array.from({ length: BLOCK }, (_, offset) =>
          remove(client.headers, integrationId(index * BLOCK + offset)),
        ),
      });
      for (let index = 0; index < WARM_UP_BLOCKS; index += 1) await load.run(block(index));
      jobs[worker] = (round) => block(WARM_UP_BLOCKS + round);
    }
    const of = await interleave(load, rounds, jobs);

    const rows = [];
    for (const worker of workers) {
      const { DB } = await server.bindings(worker);
      await assertDeleted(DB, deletes);
      await untilPurged(DB);
      const perSecond = 1e6 / of(worker).microseconds;
      rows.push({
        worker,
        'deletes a second': perSecond,
        '× the serial version': of('naive').microseconds / of(worker).microseconds,
      });
    }
    const against = (worker: string) => of(worker).microseconds / of('patchbay').microseconds;
    return {
      tables: [{ title: `Local D1 and KV: ${rounds} rounds of ${BLOCK} deletes at ${CONNECTIONS} connections`, rows }],
      verdicts: [
        atLeast('delete, local bindings: × the serial version', against('naive'), 3),
        atLeast('delete, local bindings: × its batch in raw SQL', against('raw'), 0.95),
      ],
    };
  } finally {
    load.stop();
    await server.dispose();
  }
}

const PURGED_WITHIN_TRIES = 100;

/** What follows the answers comes to its end, too: the outbox is empty. */
async function untilPurged(database: D1Database): Promise<void> {
  for (let tries = 0; tries < PURGED_WITHIN_TRIES; tries += 1) {
    if ((await countRows(database, 'credential_purges')) === 0) return;
    await setTimeout(100);
  }
  throw new Error('the outbox does not empty');
}
