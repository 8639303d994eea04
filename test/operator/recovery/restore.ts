/** A restore of D1 as Time Travel does it, for tests in the pool: all rows as they were, while KV stays as it is. */
import { env } from 'cloudflare:workers';
import { exportAll } from '../../../src/operator/recovery/export.ts';
import type { ExportedRow } from '../../../src/operator/recovery/export.ts';
import { replay } from '../../../src/operator/recovery/replay.ts';
import type { Replayed } from '../../../src/operator/recovery/replay.ts';
import { rows } from '../../fixtures.ts';

/** In the order of their foreign keys. */
const tables = [
  'organizations',
  'api_keys',
  'integrations',
  'phone_numbers',
  'audit_events',
  'credential_purges',
  'idempotency_keys',
  'key_encryption_keys',
] as const;

/** Time goes by before a restore, more than D1's clock tells apart. */
const ageing = () => [
  env.DB.prepare('UPDATE audit_events SET created_at = created_at - 10'),
  env.DB.prepare('UPDATE organizations SET last_event_at = last_event_at - 10'),
];

/** @returns the restore to what D1 has now */
export async function restorePoint(): Promise<() => Promise<void>> {
  const deletions = tables.toReversed().map((table) => env.DB.prepare(`DELETE FROM ${table}`));
  const saved = tables.map(async (table) =>
    (await rows(table)).map((row) => {
      const columns = Object.keys(row);
      const values = columns.map(() => '?').join();
      return env.DB.prepare(`INSERT INTO ${table} (${columns.join()}) VALUES (${values})`).bind(...Object.values(row));
    }),
  );
  const insertions = (await Promise.all(saved)).flat();
  // The triggers count what comes back once more.
  const counters = await Promise.all(
    counted.map(async ([table, id]) => (await rows(table)).map((row) => reset(table, id, row))),
  );
  return async () => {
    await env.DB.batch([...deletions, ...insertions, ...counters.flat(), ...ageing()]);
  };
}

const counted = [
  ['organizations', 'organization_id'],
  ['integrations', 'integration_id'],
] as const;

function reset(table: string, id: string, row: Record<string, unknown>): D1PreparedStatement {
  const names = Object.keys(row).filter((name) => /_count$|^last_(sequence|event_at)$/.test(name));
  const assignments = names.map((name) => `${name} = ?`).join();
  return env.DB.prepare(`UPDATE ${table} SET ${assignments} WHERE ${id} = ?`).bind(
    ...names.map((name) => row[name]),
    row[id],
  );
}

/** All that an export since a time has, in memory. */
export async function exportedSince(since: number, database = env.DB): Promise<ExportedRow[]> {
  await env.DB.batch(ageing());
  const exported: ExportedRow[] = [];
  for await (const page of exportAll(database, since)) exported.push(...page);
  return exported;
}

/** A replay of what was exported, in pages of 100. */
export const replayRows = (exported: ExportedRow[], database = env.DB): Promise<Replayed> =>
  replay(database, async function* () {
    for (let from = 0; from < exported.length; from += 100) yield exported.slice(from, from + 100);
  });
