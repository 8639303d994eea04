/**
 * Whether the account of a number's integration holds the number. An import asks, and so does a move to another
 * integration; afterwards a client can have it asked again (verify.ts), and the cron asks (recheck.ts).
 *
 * `ownership_due_at` says when the cron asks next. That of a confirmed number is null until another organization's account
 * holds the number too.
 */
import { and, eq, ne, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import type { Ownership } from '../core/vocabulary.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { integrations, phone_numbers } from '../d1/schema.ts';
import type { EventParameters } from '../decision/call.ts';
import { decisionSaw, eventIdBesideOf, eventRecorder, updateTime } from '../decision/event.ts';

/** The `ownership_due_at` of a confirmed number that another account seems to hold. It comes before any time. */
export const CONTESTED = 0;

/** What an account was asked with; both are null if nobody was asked. */
export interface AskedParameters {
  /** Of the credentials. */
  asked_version: string | null;
  /** When it had answered, in unix seconds. */
  asked_at: number | null;
}

/** Longer than the tries of a batch take in all. A try that lands later would write what is true no more. */
const TRUE_FOR_SECONDS = 120;

/** Predicate of the integration: what its account said, if it was asked, can still be gone by. */
export const isStillTrue = ({ asked_version, asked_at }: Placeholders<AskedParameters>) =>
  sql`(${asked_version} IS NULL OR (${integrations.credentials_version} = ${asked_version} AND unixepoch() < ${asked_at} + ${sql.raw(String(TRUE_FOR_SECONDS))}))`;

export interface OwnershipParameters extends EventParameters, AskedParameters {
  integration_id: string;
  /** JSON object: what the account says of each number, by `phone_number_id`. */
  answers: string;
  /** When the cron asks again about those that the account does not hold. */
  due_at: number;
}

/** What the account says of the number that a statement selects; null: nothing. */
export const answerOf = ({ answers }: Placeholders<OwnershipParameters>) =>
  sql<Ownership>`(SELECT value FROM json_each(${answers}) WHERE key = ${phone_numbers.phone_number_id})`;

/**
 * Makes the statements that record a change of ownership and write it, in this order. Nothing is written about a number
 * that has left the integration since its account was asked, or if that has other credentials now.
 *
 * @param mayWrite what else must hold of the number; it may use the organization's row
 */
export function ownershipWriter<Parameters extends OwnershipParameters>(
  mayWrite: (db: Builder, parameters: Placeholders<Parameters>) => SQL | undefined,
  many: boolean,
) {
  const isAsAsked = (db: Builder, parameters: Placeholders<Parameters>) =>
    and(
      sql`${phone_numbers.phone_number_id} IN (SELECT key FROM json_each(${parameters.answers}))`,
      sql`+${phone_numbers.organization_id} = ${parameters.organization_id}`,
      sql`+${phone_numbers.integration_id} = ${parameters.integration_id}`,
      existsIn(
        db,
        integrations,
        and(
          eq(integrations.organization_id, parameters.organization_id),
          eq(integrations.integration_id, parameters.integration_id),
          isStillTrue(parameters),
        ),
      ),
    );

  const record = eventRecorder<Parameters>({
    table: phone_numbers,
    target_id: phone_numbers.phone_number_id,
    action: 'phone_number.updated',
    where: (db, parameters) =>
      and(isAsAsked(db, parameters), ne(phone_numbers.ownership, answerOf(parameters)), mayWrite(db, parameters)),
    changes: (parameters) => ({ ownership: answerOf(parameters) }),
    many,
  });

  const write = query((db, parameters: Placeholders<Parameters>) => {
    const event_id = many ? eventIdBesideOf(parameters.event_id, phone_numbers.phone_number_id) : parameters.event_id;
    const decision = { organization_id: parameters.organization_id, event_id };
    return db
      .update(phone_numbers)
      .set({
        ownership: answerOf(parameters),
        ownership_due_at: sql`iif(${answerOf(parameters)} = 'confirmed', NULL, ${parameters.due_at})`,
        updated_at: updateTime(db, decision, phone_numbers.updated_at),
        revision: sql`${phone_numbers.revision} + 1`,
      })
      .where(and(isAsAsked(db, parameters), decisionSaw(db, decision, phone_numbers.revision)));
  });

  return { record, write };
}
