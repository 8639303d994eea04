/**
 * What an operator does to many rows of an organization: in bounded batches, each row with its audit event, its ciphertext
 * in the outbox. Killed between any two batches, it is finished by a second run.
 */
import { and, eq, inArray, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import type { AuditAction } from '../worker/core/vocabulary.ts';
import { enqueuePurges } from '../worker/credentials/outbox.ts';
import { batch } from '../worker/d1/batch.ts';
import { query } from '../worker/d1/query.ts';
import type { Builder, Compilable, Placeholders } from '../worker/d1/query.ts';
import { audit_events } from '../worker/d1/schema.ts';
import { eventParameters } from '../worker/decision/call.ts';
import type { Call, EventParameters } from '../worker/decision/call.ts';
import { carryOut, eventRecorder, isOfCall } from '../worker/decision/event.ts';

const ROWS_PER_BATCH = 100;
/** A list may go through what is done already, in the organization's index: so one list is for many batches. */
const ROWS_PER_LIST = 10_000;

/** How many rows are done, after each batch. */
export type OnProgress = (done: number, total: number) => void;

type OrganizationParameters = Pick<EventParameters, 'organization_id'>;

interface BatchParameters extends EventParameters {
  /** JSON array. */
  ids: string;
}

interface Definition {
  table: SQLiteTable & { organization_id: SQLiteColumn };
  /** The column that names a row. */
  id: SQLiteColumn;
  action: AuditAction;
  /** Selects what is to be done; a row that is done is not selected any more. */
  condition: (db: Builder, parameters: Placeholders<OrganizationParameters>) => SQL | undefined;
  /** The act, on the rows whose event was recorded: those of this predicate. */
  act: (db: Builder, isRecorded: SQL | undefined) => Compilable<unknown>;
}

/**
 * Makes the function that does all of an organization's rows of a condition. A row is done by the transaction that records
 * its event, and not without. Two runs at the same time record each row once.
 *
 * @returns a function to how many rows it did
 */
export function inBatches({ table, id, action, condition, act }: Definition) {
  const isToDo = (db: Builder, parameters: Placeholders<OrganizationParameters>) =>
    and(eq(table.organization_id, parameters.organization_id), condition(db, parameters));

  /**
   * For rows that are named by id. Where that is the primary key, the plus keeps SQLite from going through all that the
   * organization has; else the organization is the primary key's first column.
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
    const recorded = db.select({ target_id: audit_events.target_id }).from(audit_events).where(isOfCall(parameters));
    return act(db, and(isOf(parameters), inArray(id, recorded)));
  });

  return async function run(database: D1Database, call: Call, onProgress: OnProgress = () => {}): Promise<number> {
    let done = 0;
    let [[counted], listed] = await batch(database, [count.bind(call), listNext.bind(call)]);
    while (listed.length > 0) {
      for (let from = 0; from < listed.length; from += ROWS_PER_BATCH) {
        const rows = listed.slice(from, from + ROWS_PER_BATCH);
        // The ids of each batch's events begin alike, and unlike those of the others: so its own are found.
        const parameters = { ...eventParameters(call), ids: JSON.stringify(rows.map((row) => row.id)) };
        const { count: recorded } = await carryOut(database, [record, enqueuePurges, actOnRecorded], parameters);
        // Another run may have done some of them since they were listed, and a try may be late: the next list tells.
        done += recorded;
        // Rows may have come while it ran.
        onProgress(done, Math.max(done, counted?.count ?? 0));
      }
      [listed] = await batch(database, [listNext.bind(call)]);
    }
    return done;
  };
}
