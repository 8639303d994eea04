/**
 * Acts on many rows of an organization, in bounded batches. Each row gets its audit event, and its ciphertext goes to
 * the outbox. If a run is killed between batches, a second run finishes it.
 */
import { and, eq, inArray, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import type { AuditAction } from '../core/vocabulary.ts';
import { enqueuePurges } from '../credentials/outbox.ts';
import { batch } from '../d1/batch.ts';
import { query } from '../d1/query.ts';
import type { Builder, Compilable, Placeholders } from '../d1/query.ts';
import { audit_events } from '../d1/schema.ts';
import { eventParameters } from '../decision/call.ts';
import type { Call, EventParameters } from '../decision/call.ts';
import { carryOut, eventRecorder, isOfBatch } from '../decision/event.ts';

const ROWS_PER_BATCH = 100;
/** Listing may have to read rows that are done already, so one list serves many batches. */
const ROWS_PER_LIST = 10_000;

/** Called after each batch. */
export type OnProgress = (done: number, total: number) => void;

/** How many batches may still be sent. It is counted down. */
export interface Budget {
  batches: number;
}

type OrganizationParameters = Pick<EventParameters, 'organization_id'>;

interface BatchParameters extends EventParameters {
  /** JSON array of row ids. */
  ids: string;
}

interface Definition {
  table: SQLiteTable & { organization_id: SQLiteColumn };
  /** The column with a row's id. */
  id: SQLiteColumn;
  action: AuditAction;
  /** Selects the rows to act on. It must not select a row that is done. */
  condition: (db: Builder, parameters: Placeholders<OrganizationParameters>) => SQL | undefined;
  /** Acts on the rows of this predicate, whose events have been recorded. */
  act: (db: Builder, isRecorded: SQL | undefined) => Compilable<unknown>;
}

/**
 * Makes the function that acts on all rows of an organization that meet the condition. The same transaction records a
 * row's event and acts on it. Two runs at the same time act on each row once. A run ends when nothing is left, or its budget is
 * used up.
 *
 * @returns a function that returns how many rows it acted on
 */
export function inBatches({ table, id, action, condition, act }: Definition) {
  const isToDo = (db: Builder, parameters: Placeholders<OrganizationParameters>) =>
    and(eq(table.organization_id, parameters.organization_id), condition(db, parameters));

  /**
   * Selects the organization, for a query that has a list of ids. If the id is the primary key, the plus keeps SQLite
   * from reading all rows of the organization. Otherwise the primary key begins with the organization.
   */
  const isOf = ({ organization_id }: Placeholders<OrganizationParameters>) =>
    id.primary ? sql`+${table.organization_id} = ${organization_id}` : eq(table.organization_id, organization_id);

  const count = query((db, parameters: Placeholders<OrganizationParameters>) =>
    db
      .select({ count: sql<number>`count(*)`.as('count') })
      .from(table)
      .where(isToDo(db, parameters)),
  );

  const listNext = query((db, parameters: Placeholders<OrganizationParameters>) =>
    db
      .select({ id: sql<string>`${id}`.as('id') })
      .from(table)
      .where(isToDo(db, parameters))
      .limit(ROWS_PER_LIST),
  );

  const record = eventRecorder<BatchParameters>({
    table,
    target_id: id,
    action,
    where: (db, parameters) =>
      and(
        inArray(id, sql`(SELECT value FROM json_each(${parameters.ids}))`),
        isOf(parameters),
        condition(db, parameters),
      ),
    many: true,
  });

  const actOnRecorded = query((db, parameters: Placeholders<EventParameters>) => {
    const recorded = db.select({ target_id: audit_events.target_id }).from(audit_events).where(isOfBatch(parameters));
    return act(db, and(isOf(parameters), inArray(id, recorded)));
  });

  return async function run(
    database: D1Database,
    call: Call,
    budget: Budget,
    onProgress?: OnProgress,
  ): Promise<number> {
    let done = 0;
    const [counted] = onProgress ? (await batch(database, [count.bind(call)]))[0] : [];
    let [listed] = await batch(database, [listNext.bind(call)]);
    while (listed.length > 0) {
      for (let from = 0; from < listed.length; from += ROWS_PER_BATCH) {
        if (budget.batches <= 0) return done;
        budget.batches -= 1;
        const rows = listed.slice(from, from + ROWS_PER_BATCH);
        // New parameters for each batch, because a batch finds its own events by the start of their ids.
        const parameters = { ...eventParameters(call), ids: JSON.stringify(rows.map((row) => row.id)) };
        const { count: recorded } = await carryOut(database, [record, enqueuePurges, actOnRecorded], parameters);
        // Fewer than `rows` if another run has acted on some of them, or if a try is late. The next list shows what is left.
        done += recorded;
        // The total may have grown since it was counted.
        onProgress?.(done, Math.max(done, counted?.count ?? 0));
      }
      [listed] = await batch(database, [listNext.bind(call)]);
    }
    return done;
  };
}
