/**
 * Remembered answers (draft-ietf-httpapi-idempotency-key-header-07): a mutation that is repeated under its Idempotency-Key acts
 * once, and every repeat gets the same answer. A refusal changed nothing: it is not remembered, and its repeat is judged anew.
 *
 * The row that remembers is written by the batch that decides (mutation.ts), and every statement that decides asks that there
 * is none ({@link isUnanswered}). So D1 lets one of several requests act, and the others find its row. An Idempotency-Key
 * counts for one API key, method and path.
 */
import { and, eq, inArray, lte, not, sql } from 'drizzle-orm';
import { DomainError } from '../core/errors.ts';
import { SECONDS_A_DAY, unixNow } from '../core/time.ts';
import { existsIn } from '../d1/columns.ts';
import { deleteInTurns, ROWS_PER_STATEMENT } from '../d1/delete-old.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { idempotency_keys } from '../d1/schema.ts';
import type { Bindings } from '../env.ts';
import type { ApiCall } from './call.ts';

const KEPT_SECONDS = SECONDS_A_DAY;

/** Where an Idempotency-Key counts; nulls of a request without one. */
export interface ScopeParameters {
  organization_id: string;
  actor_key_id: string;
  idempotency_key: string | null;
  method: string | null;
  path: string | null;
}

export function scopeOf({ idempotency }: ApiCall): Pick<ScopeParameters, 'idempotency_key' | 'method' | 'path'> {
  const { idempotency_key, method, path } = idempotency ?? { idempotency_key: null, method: null, path: null };
  return { idempotency_key, method, path };
}

/** Selects what is remembered under a request's Idempotency-Key; nothing for a request without one. */
export const isScope = (parameters: Placeholders<ScopeParameters>) =>
  and(
    eq(idempotency_keys.organization_id, parameters.organization_id),
    eq(idempotency_keys.actor_key_id, parameters.actor_key_id),
    eq(idempotency_keys.idempotency_key, parameters.idempotency_key),
    eq(idempotency_keys.method, parameters.method),
    eq(idempotency_keys.path, parameters.path),
  );

/** Predicate: no request has acted under the Idempotency-Key, or there is none. */
export const isUnanswered = (db: Builder, parameters: Placeholders<ScopeParameters>) =>
  not(existsIn(db, idempotency_keys, isScope(parameters)));

/** @throws DomainError `idempotency_key_reused` where another request acted under the Idempotency-Key */
export function assertSameRequest({ idempotency }: ApiCall, fingerprint: string | null): void {
  if (fingerprint !== idempotency?.fingerprint) throw new DomainError('idempotency_key_reused', {});
}

/** Of every organization: what is older than its time, by the clock alone. */
const deleteOldAnswers = query((db, { until }: Placeholders<{ until: number }>) => {
  const { organization_id, actor_key_id, idempotency_key, method, path, created_at } = idempotency_keys;
  const primaryKey = sql`(${sql.join([organization_id, actor_key_id, idempotency_key, method, path], sql`, `)})`;
  return db
    .delete(idempotency_keys)
    .where(
      inArray(
        primaryKey,
        db
          .select({ organization_id, actor_key_id, idempotency_key, method, path })
          .from(idempotency_keys)
          .where(lte(created_at, until))
          .limit(ROWS_PER_STATEMENT),
      ),
    )
    .returning({ created_at });
});

/** A task of the cron: deletes the answers that have been remembered for 24 hours. */
export async function deleteOldRememberedAnswers({ DB }: Bindings): Promise<void> {
  await deleteInTurns(DB, deleteOldAnswers.bind({ until: unixNow() - KEPT_SECONDS }));
}
