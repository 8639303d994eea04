import { and, eq, isNull, sql } from 'drizzle-orm';
import { foldName } from '../core/folded-name.ts';
import { batch } from '../d1/batch.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import { integrations } from '../d1/schema.ts';
import type { Bindings } from '../env.ts';

const ROWS_PER_TURN = 100;
/** The cron runs every minute. */
const TURNS_PER_RUN = 10;

const findUnfolded = query((db) =>
  db
    .select({
      organization_id: integrations.organization_id,
      integration_id: integrations.integration_id,
      name: integrations.name,
    })
    .from(integrations)
    .where(isNull(integrations.name_folded))
    .limit(ROWS_PER_TURN),
);

const folded = (name: string) => sql<string>`(json_each.value ->> ${sql.raw(`'${name}'`)})`;

/** Only names that are still the same. */
const storeFolded = query((db, { names }: Placeholders<{ names: string }>) =>
  db
    .update(integrations)
    .set({ name_folded: folded('name_folded') })
    .from(sql`json_each(${names})`)
    .where(
      and(
        eq(integrations.organization_id, folded('organization_id')),
        eq(integrations.integration_id, folded('integration_id')),
        eq(integrations.name, folded('name')),
      ),
    ),
);

/**
 * A task of the cron: folds the names that SQLite could not fold, and those that the Worker of before the column wrote.
 *
 * @throws DomainError `temporarily_unavailable`
 */
export async function foldNames({ DB }: Bindings): Promise<void> {
  for (let turn = 0; turn < TURNS_PER_RUN; turn += 1) {
    const [found] = await batch(DB, [findUnfolded.bind({})]);
    if (found.length === 0) return;
    const names = found.map((row) => ({ ...row, name_folded: foldName(row.name) }));
    await batch(DB, [storeFolded.bind({ names: JSON.stringify(names) })]);
  }
}
