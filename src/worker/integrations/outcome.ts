/**
 * Writes the outcome of a check of stored credentials: by a client's call (verify.ts) or by the cron (recheck.ts). It is
 * written only if the row still has the version that was checked, and no other outcome was written since the check began.
 */
import { and, eq, sql } from 'drizzle-orm';
import type { Placeholder, SQL } from 'drizzle-orm';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
import { unixNow } from '../core/time.ts';
import type { AuditAction, Verdict } from '../core/vocabulary.ts';
import { existsIn, newValues } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { integrations, organizations } from '../d1/schema.ts';
import type { EventParameters } from '../decision/call.ts';
import { eventRecorder } from '../decision/event.ts';
import type { Bindings } from '../env.ts';
import { isOrganization } from '../organizations/organization.ts';
import type { Account } from '../providers/account.ts';
import type { CheckOutcome } from '../providers/check.ts';
import { isIntegration } from './integration.ts';
import { refusalCounter } from './refusals.ts';
import { shownColumns, verificationOf } from './verification.ts';
import type { Verification } from './verification.ts';

export interface OutcomeParameters extends EventParameters, Account, Verification {
  integration_id: string;
  /** As the row had them when the check began. */
  credentials_version: string;
  check_count: number;
  /** What the change of the verdict is recorded as; null if it is not recorded. */
  action: AuditAction | null;
  /** 1 if it counts as refused credentials (refusals.ts), else 0. */
  counts: number;
  recheck_from: number;
}

/**
 * What changes with the verdict. That a provider refuses credentials is on record, and that it accepts them again. Only
 * credentials that it had not accepted before may be guesses, and count if they are refused.
 */
export function consequencesOf(before: Verdict | null, after: Verdict | null) {
  const counts = Number(before === null && after === 'refused');
  if (after === 'refused' && before !== 'refused')
    return { action: 'integration.verification_failed' as const, counts };
  if (after === 'accepted' && before === 'refused') {
    return { action: 'integration.verification_recovered' as const, counts };
  }
  return { action: null, counts };
}

/** After a first refusal of credentials that had been accepted. */
export const DOUBTED_AGAIN_SECONDS = 600;
/** After an answer that said nothing, and for credentials that could not be read. */
export const UNKNOWN_AGAIN_SECONDS = 3600;

/**
 * How long a provider's answer counts for the cron, in seconds; 0: the cron does not ask by itself.
 *
 * @throws Error if the setting is not a number of hours
 */
export function periodOf({ REVERIFY_HOURS }: Bindings): number {
  if (!/^\d{1,4}$/.test(REVERIFY_HOURS)) throw new Error('REVERIFY_HOURS must be a whole number from 0 to 9999');
  return Number(REVERIFY_HOURS) * 3600;
}

/**
 * What is written of an outcome that no client asked for. A refusal of credentials that had been accepted may be a mistake
 * of the provider: they are only doubted, and checked again after 10 minutes.
 *
 * @param period of {@link periodOf}
 */
export function unaskedOutcome(
  before: Verification,
  outcome: CheckOutcome,
  period: number,
): Verification & Pick<OutcomeParameters, 'action' | 'counts' | 'recheck_from'> {
  const now = unixNow();
  if (outcome.status === 'refused' && before.last_verdict === 'accepted') {
    const recheck_from = now - period + DOUBTED_AGAIN_SECONDS;
    return { ...before, last_verdict: 'doubted', action: null, counts: 0, recheck_from };
  }
  const verification = verificationOf(outcome, now, before.last_verdict);
  return {
    ...verification,
    ...consequencesOf(before.last_verdict, verification.last_verdict),
    recheck_from: outcome.status === 'unreachable' ? now - period + Math.min(period, UNKNOWN_AGAIN_SECONDS) : now,
  };
}

/** Of rows that are older than the column, the account is known once their credentials have been opened. */
const known = (column: SQLiteColumn, found: Placeholder) => sql<string | null>`coalesce(${column}, ${found})`;

/**
 * Makes the statements that count a refusal, record a change of the verdict, and write the outcome, in this order.
 *
 * @param mayWrite what else must hold of the organization, whose row it may use; no statement here changes it
 */
export function outcomeWriter<Parameters extends OutcomeParameters>(
  mayWrite: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined,
) {
  const isAsChecked = (parameters: Placeholders<Parameters>) =>
    and(
      isIntegration(parameters),
      eq(integrations.credentials_version, parameters.credentials_version),
      eq(integrations.check_count, parameters.check_count),
    );

  const countRefusal = refusalCounter<Parameters>((db, parameters) =>
    and(sql`${parameters.counts} = 1`, existsIn(db, integrations, isAsChecked(parameters)), mayWrite(db, parameters)),
  );

  const record = eventRecorder<Parameters>({
    table: integrations,
    target_id: integrations.integration_id,
    action: (_, { action }) => sql<AuditAction>`${action}`,
    where: (db, parameters) =>
      and(isAsChecked(parameters), sql`${parameters.action} IS NOT NULL`, mayWrite(db, parameters)),
    changes: (parameters) => ({
      ...newValues<keyof OutcomeParameters>(parameters, shownColumns),
      account_hint: known(integrations.account_hint, parameters.account_hint),
    }),
  });

  const write = query((db, parameters: Placeholders<Parameters>) =>
    db
      .update(integrations)
      .set({
        ...newValues<keyof OutcomeParameters>(parameters, [...shownColumns, 'last_verdict', 'recheck_from']),
        check_count: sql`${integrations.check_count} + 1`,
        account_hint: known(integrations.account_hint, parameters.account_hint),
        account_fingerprint: known(integrations.account_fingerprint, parameters.account_fingerprint),
      })
      .where(
        and(
          isAsChecked(parameters),
          existsIn(db, organizations, and(isOrganization(parameters), mayWrite(db, parameters))),
        ),
      ),
  );

  return { countRefusal, record, write };
}
