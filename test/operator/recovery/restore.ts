/** A restore of D1 as Time Travel does it, for tests in the pool: all rows as they were, while KV stays as it is. */
import { env } from 'cloudflare:workers';
import { exportAll } from '../../../src/operator/recovery/export.ts';
import type { ExportedRow } from '../../../src/operator/recovery/export.ts';
import { replay } from '../../../src/operator/recovery/replay.ts';
import type { Replayed } from '../../../src/operator/recovery/replay.ts';
import { tables } from '../../fixtures.ts';

/** Time goes by before a restore, more than D1's clock tells apart. */
const ageing = () => [
  env.DB.prepare('UPDATE audit_events SET created_at = created_at - 10'),
  env.DB.prepare('UPDATE organizations SET last_event_at = last_event_at - 10'),
];

type Row = Record<string, unknown>;

/** @returns the restore to what D1 has now */
export async function restorePoint(): Promise<() => Promise<void>> {
  const results = await env.DB.batch<Row>(tables.map((table) => env.DB.prepare(`SELECT * FROM ${table}`)));
  const saved = tables.flatMap((table, index) => (results[index]?.results ?? []).map((row) => ({ table, row })));
  const statements = [
    ...tables.toReversed().map((table) => env.DB.prepare(`DELETE FROM ${table}`)),
    ...saved.map(({ table, row }) => insertion(table, row)),
    // The triggers have counted what came back once more.
    ...saved.flatMap(({ table, row }) => counters(table, row)),
    ...ageing(),
  ];
  return async () => {
    await env.DB.batch(statements);
  };
}

function insertion(table: string, row: Row): D1PreparedStatement {
  const columns = Object.keys(row);
  const values = columns.map(() => '?').join();
  return env.DB.prepare(`INSERT INTO ${table} (${columns.join()}) VALUES (${values})`).bind(...Object.values(row));
}

const counted: Record<string, string> = { organizations: 'organization_id', integrations: 'integration_id' };

function counters(table: string, row: Row): D1PreparedStatement[] {
  const id = counted[table];
  if (id === undefined) return [];
  const names = Object.keys(row).filter((name) => /_count$|^last_(sequence|event_at)$/.test(name));
  const assignments = names.map((name) => `${name} = ?`).join();
  return [
    env.DB.prepare(`UPDATE ${table} SET ${assignments} WHERE ${id} = ?`).bind(
      ...names.map((name) => row[name]),
      row[id],
    ),
  ];
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
