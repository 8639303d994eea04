/**
 * The precondition of a mutation: If-Match demands a revision of the target. Like all that a mutation must know, it is
 * part of the statement that decides, so no update can come in between.
 */
import { and, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import { DomainError } from '../core/errors.ts';
import { query } from '../d1/query.ts';
import type { Placeholders } from '../d1/query.ts';
import type { ApiCall } from './call.ts';

export interface PreconditionParameters {
  /** JSON array of revisions, one of which the target must have. Null demands none. */
  if_match: string | null;
}

export const preconditionOf = ({ if_match }: ApiCall): PreconditionParameters => ({
  if_match: if_match ? JSON.stringify(if_match) : null,
});

const isNamed = (revision: SQLiteColumn, { if_match }: Placeholders<PreconditionParameters>) =>
  sql`${revision} IN (SELECT value FROM json_each(${if_match}))`;

/** Predicate of the target: it is as the caller demands. Every statement that decides about a target asks it. */
export const isAsMatched = (revision: SQLiteColumn, parameters: Placeholders<PreconditionParameters>) =>
  sql`(${parameters.if_match} IS NULL OR ${isNamed(revision, parameters)})`;

/**
 * Makes the read that explains a refusal to {@link assertMatched}: a row if the target is not as the caller demands.
 * Without an If-Match it reads no row.
 */
export const unmatchedTarget = <Parameters extends PreconditionParameters>(
  table: SQLiteTable & { revision: SQLiteColumn },
  isTarget: (parameters: Placeholders<Parameters>) => SQL | undefined,
) =>
  query((db, parameters: Placeholders<Parameters>) =>
    db
      .select({ revision: table.revision })
      .from(table)
      .where(
        and(
          isTarget(parameters),
          sql`${parameters.if_match} IS NOT NULL`,
          sql`NOT ${isNamed(table.revision, parameters)}`,
        ),
      ),
  );

/** `precondition_failed` if there is an unmatched target. */
export const whyUnmatched = (unmatched: unknown[]): DomainError | undefined =>
  unmatched.length > 0 ? new DomainError('precondition_failed', { precondition: 'If-Match' }) : undefined;

/** @throws DomainError `precondition_failed` if there is an unmatched target */
export function assertMatched(unmatched: unknown[]): void {
  const error = whyUnmatched(unmatched);
  if (error) throw error;
}
