/**
 * Remembered answers (draft-ietf-httpapi-idempotency-key-header-07). A mutation that is repeated under its
 * Idempotency-Key acts once, and every repeat gets the same answer. A refusal changed nothing, so it is not remembered,
 * and its repeat is judged anew.
 *
 * The batch that decides also writes the row that remembers (mutation.ts), and every statement that decides checks that
 * there is no such row yet ({@link isUnanswered}). So of several equal requests one acts, and the others find its row.
 * An Idempotency-Key counts for one API key, method and path.
 */
import { and, eq, gte, inArray, lt, lte, not, sql } from 'drizzle-orm';
import type { SQLWrapper } from 'drizzle-orm';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
import { DomainError } from '../core/errors.ts';
import { SECONDS_A_DAY, unixNow } from '../core/time.ts';
import { existsIn } from '../d1/columns.ts';
import { deleteInTurns, ROWS_PER_STATEMENT } from '../d1/delete-old.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { audit_events, idempotency_keys, operator_idempotency_keys } from '../d1/schema.ts';
import type { Bindings } from '../env.ts';
import { actingKeyId } from './actor.ts';
import type { ApiCall, EventParameters } from './call.ts';

const KEPT_SECONDS = SECONDS_A_DAY;

/** An Idempotency-Key, and what it counts for. Null if the request has none. */
export interface ScopeParameters extends Pick<EventParameters, 'organization_id' | 'actor_key_id' | 'actor_key_hash'> {
  idempotency_key: string | null;
  method: string | null;
  path: string | null;
}

export function scopeOf({
  idempotency,
}: Pick<ApiCall, 'idempotency'>): Pick<ScopeParameters, 'idempotency_key' | 'method' | 'path'> {
  const { idempotency_key, method, path } = idempotency ?? { idempotency_key: null, method: null, path: null };
  return { idempotency_key, method, path };
}

/** Selects the row that is remembered under the request's Idempotency-Key; no row if the request has none. */
export const isRemembered = (parameters: Readonly<Record<keyof ScopeParameters, SQLWrapper>>) =>
  and(
    eq(idempotency_keys.organization_id, parameters.organization_id),
    eq(idempotency_keys.actor_key_id, actingKeyId(parameters)),
    eq(idempotency_keys.idempotency_key, parameters.idempotency_key),
    eq(idempotency_keys.method, parameters.method),
    eq(idempotency_keys.path, parameters.path),
  );

/** The select list of the row that remembers an event, whose own row it uses. */
export const rememberedRow = (
  parameters: Placeholders<ScopeParameters & { fingerprint: string | null }>,
  path: SQLWrapper,
) => ({
  organization_id: audit_events.organization_id,
  actor_key_id: actingKeyId(parameters).as('actor_key_id'),
  idempotency_key: sql<string>`${parameters.idempotency_key}`.as('idempotency_key'),
  method: sql<string>`${parameters.method}`.as('method'),
  path: sql<string>`${path}`.as('path'),
  event_id: audit_events.event_id,
  fingerprint: sql<string>`${parameters.fingerprint}`.as('fingerprint'),
  created_at: audit_events.created_at,
});

/** Predicate: the request has no Idempotency-Key, or no request has acted under it yet. */
export const isUnanswered = (db: Builder, parameters: Placeholders<ScopeParameters>) =>
  not(existsIn(db, idempotency_keys, isRemembered(parameters)));

/**
 * The path under which one of the parts of a call is remembered, where each part acts by itself. No request can have such a
 * path.
 */
export const pathOfPart = (path: string, part: string) => `${path}#${part}`;

/** Selects the rows that are remembered under the request's Idempotency-Key: its own, and those of its parts. */
export const isRememberedInPart = (parameters: Placeholders<ScopeParameters>) =>
  and(
    eq(idempotency_keys.organization_id, parameters.organization_id),
    eq(idempotency_keys.actor_key_id, actingKeyId(parameters)),
    eq(idempotency_keys.idempotency_key, parameters.idempotency_key),
    eq(idempotency_keys.method, parameters.method),
    gte(idempotency_keys.path, parameters.path),
    // '$' sorts after '#'.
    lt(idempotency_keys.path, sql`${parameters.path} || '$'`),
  );

/** @throws DomainError `idempotency_key_reused` if another request acted under the Idempotency-Key */
export function assertSameRequest({ idempotency }: Pick<ApiCall, 'idempotency'>, fingerprint: string | null): void {
  if (fingerprint !== idempotency?.fingerprint) throw new DomainError('idempotency_key_reused', {});
}

/** @param primaryKey its columns */
const oldAnswersDeleter = (
  table: typeof idempotency_keys | typeof operator_idempotency_keys,
  primaryKey: readonly SQLiteColumn[],
) =>
  query((db, { until }: Placeholders<{ until: number }>) => {
    const { created_at } = table;
    return db
      .delete(table)
      .where(
        inArray(
          sql`(${sql.join([...primaryKey], sql`, `)})`,
          db
            .select(Object.fromEntries(primaryKey.map((column) => [column.name, column])))
            .from(table)
            .where(lte(created_at, until))
            .limit(ROWS_PER_STATEMENT),
        ),
      )
      .returning({ created_at });
  });

const scopeIn = ({ idempotency_key, method, path }: typeof idempotency_keys | typeof operator_idempotency_keys) => [
  idempotency_key,
  method,
  path,
];

const deletions = [
  oldAnswersDeleter(idempotency_keys, [
    idempotency_keys.organization_id,
    idempotency_keys.actor_key_id,
    ...scopeIn(idempotency_keys),
  ]),
  oldAnswersDeleter(operator_idempotency_keys, [
    operator_idempotency_keys.operator_key_id,
    ...scopeIn(operator_idempotency_keys),
  ]),
];

/** A task of the cron: deletes the answers that have been remembered for 24 hours. */
export async function deleteOldRememberedAnswers({ DB }: Bindings): Promise<void> {
  const until = unixNow() - KEPT_SECONDS;
  for (const deletion of deletions) await deleteInTurns(DB, deletion.bind({ until }));
}
