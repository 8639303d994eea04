/**
 * The phone numbers that one call acts on, all of them or none: those with the ids that it names, or those of an
 * integration.
 *
 * The statement that decides records an event for each of them, in the order of the numbers, if all of them can be acted
 * on. The first one's event is the decision. The statement that acts then selects the numbers by these events, so that a
 * late try finds no others.
 */
import { and, eq, inArray, lte, not, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { onceTheRestIsRight, optional } from '../core/fields.ts';
import { idSchema } from '../core/ids.ts';
import { notDone } from '../credentials/store.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { audit_events, integrations, phone_numbers } from '../d1/schema.ts';
import { eventIdBesideOf, hasDecided, isDecision, isOfBatch } from '../decision/event.ts';
import { isOtherEventOfDecision } from '../decision/mutation.ts';
import type { Decision, MutationParameters } from '../decision/mutation.ts';
import { isUnanswered } from '../decision/remembered-answers.ts';
import { MAX_REFERENCES } from '../integrations/references.ts';
import { noCredentials, phoneNumberState } from './phone-number.ts';

const MAX_IDS = 1_000;
const COUNT = `must have 1 to ${MAX_IDS} ids`;

/** The fields of a body that say which numbers. */
export const selectionFields = () => ({
  phone_number_ids: optional(
    z.array(idSchema('phon')).check(
      z.minLength(1, COUNT),
      z.maxLength(MAX_IDS, COUNT),
      z.refine((ids) => new Set(ids).size === ids.length, 'must not have an id twice'),
    ),
  ),
  integration_id: optional(idSchema('intg')),
});

export interface Selection {
  phone_number_ids?: string[] | undefined;
  integration_id?: string | undefined;
}

/** The check of a body with {@link selectionFields}. */
export const isOneSelection = () =>
  z.refine<Selection>(
    ({ phone_number_ids, integration_id }) => (phone_number_ids === undefined) !== (integration_id === undefined),
    { error: 'must have either phone_number_ids or integration_id', ...onceTheRestIsRight },
  );

export interface SelectionParameters extends MutationParameters {
  /** JSON array of ids. */
  phone_number_ids: string;
  /** The integration whose numbers these are; null if they are named by their ids. */
  source_id: string | null;
}

export const selectionParameters = ({ phone_number_ids = [], integration_id }: Selection) => ({
  phone_number_ids: JSON.stringify(phone_number_ids),
  source_id: integration_id ?? null,
});

/** How statements select the numbers. */
export interface Selector {
  isSelected: (db: Builder, parameters: Placeholders<SelectionParameters>) => SQL | undefined;
  /** How many there must be. */
  count: (db: Builder, parameters: Placeholders<SelectionParameters>) => SQL<number>;
}

const byIds: Selector = {
  isSelected: (_, { organization_id, phone_number_ids }) =>
    and(
      // Without an organization, as for an unknown key (d1/query.ts), no row is read.
      sql`${phone_numbers.phone_number_id} IN (SELECT value FROM json_each(iif(${organization_id} IS NULL, NULL, ${phone_number_ids})))`,
      sql`+${phone_numbers.organization_id} = ${organization_id}`,
    ),
  count: (_, { phone_number_ids }) => sql`json_array_length(${phone_number_ids})`,
};

const isSource = ({ organization_id, source_id }: Placeholders<SelectionParameters>) =>
  and(eq(integrations.organization_id, organization_id), eq(integrations.integration_id, source_id));

const ofIntegration: Selector = {
  /** None if there are too many. */
  isSelected: (db, parameters) =>
    and(
      inArray(
        phone_numbers.integration_id,
        db
          .select({ integration_id: integrations.integration_id })
          .from(integrations)
          .where(and(isSource(parameters), lte(integrations.phone_number_count, sql.raw(String(MAX_REFERENCES))))),
      ),
      eq(phone_numbers.organization_id, parameters.organization_id),
    ),
  count: (db, parameters) =>
    sql`(${db.select({ count: integrations.phone_number_count }).from(integrations).where(isSource(parameters))})`,
};

/** Makes what depends on how the numbers are selected, once for each way, and the function that chooses. */
export function eachWay<Made>(make: (selector: Selector) => Made): (selection: Selection) => Made {
  const made = { byIds: make(byIds), ofIntegration: make(ofIntegration) };
  return ({ phone_number_ids }) => (phone_number_ids ? made.byIds : made.ofIntegration);
}

/** How many of the selected numbers meet a condition. */
export const countOf = (
  { isSelected }: Selector,
  db: Builder,
  parameters: Placeholders<SelectionParameters>,
  condition: SQL | undefined,
) =>
  sql<number>`(${db
    .select({ count: sql`count(*)` })
    .from(phone_numbers)
    .where(and(isSelected(db, parameters), condition))})`;

/** Selects the numbers for the statement that decides: if the batch has not decided yet, and all meet the condition. */
export const isEachOfAll = (
  selector: Selector,
  db: Builder,
  parameters: Placeholders<SelectionParameters>,
  condition: SQL | undefined,
) =>
  and(
    selector.isSelected(db, parameters),
    sql`${countOf(selector, db, parameters, condition)} = ${selector.count(db, parameters)}`,
    not(hasDecided(db, parameters)),
  );

/** Selects the numbers that the batch has recorded events of. */
export const isRecorded = (db: Builder, parameters: Placeholders<SelectionParameters>) =>
  and(
    inArray(
      phone_numbers.phone_number_id,
      db.select({ target_id: audit_events.target_id }).from(audit_events).where(isOfBatch(parameters)),
    ),
    sql`+${phone_numbers.organization_id} = ${parameters.organization_id}`,
  );

/** The id of the batch's event about a number: of the first one it is the batch's own. */
export const eventIdOfNumber = (db: Builder, parameters: Placeholders<SelectionParameters>) => {
  const first = db.select({ target_id: audit_events.target_id }).from(audit_events).where(isDecision(parameters));
  return sql<string>`iif(${phone_numbers.phone_number_id} = (${first}), ${parameters.event_id}, ${eventIdBesideOf(parameters.event_id, phone_numbers.phone_number_id)})`;
};

/** Selects the numbers for a read that explains why nothing was done; none if something was. */
export const isLeftUndone = ({ isSelected }: Selector, db: Builder, parameters: Placeholders<SelectionParameters>) =>
  and(isSelected(db, parameters), not(hasDecided(db, parameters)), isUnanswered(db, parameters));

export const findSource = query((db, parameters: Placeholders<SelectionParameters>) =>
  db
    .select({ count: sql<number>`${integrations.phone_number_count}`.as('count') })
    .from(integrations)
    .where(isSource(parameters)),
);

/** @throws DomainError `integration_not_found`, `too_many_references` */
export function assertSelectable({ integration_id }: Selection, [source]: { count: number }[]): void {
  if (integration_id === undefined) return;
  if (!source) throw new DomainError('integration_not_found', {});
  if (source.count > MAX_REFERENCES) throw new DomainError('too_many_references', { limit: MAX_REFERENCES });
}

interface Acted {
  phone_number_id: string;
  phone_number: string;
  credentials_version: string | null;
}

/** What the decision acted on, but for the number of its own event. */
export const findOthers = query((db, parameters: Placeholders<SelectionParameters>) =>
  db
    .select({
      phone_number_id: sql<string>`${audit_events.target_id}`.as('phone_number_id'),
      phone_number: sql<string>`json_extract(${audit_events.state}, '$.phone_number')`.as('phone_number'),
      credentials_version: sql<string | null>`json_extract(${audit_events.state}, '$.credentials_version')`.as(
        'credentials_version',
      ),
    })
    .from(audit_events)
    .where(isOtherEventOfDecision(db, parameters)),
);

/** A number that was acted on or could be, or why it cannot be. */
export interface Item {
  phone_number_id: string;
  /** Null if there is no such number. */
  phone_number: string | null;
  refusal: DomainError | null;
}

/** All numbers that the decision acted on, in no order. */
export function actedOn({ event, found }: { event: Decision; found: { others: Acted[] } }): Acted[] {
  return [phoneNumberState.parse(JSON.parse(event.state)), ...found.others];
}

/** The items of a selection, in the order of its ids, or of the numbers. A number that is not there is not found. */
export function itemsOf<Row extends Pick<Acted, 'phone_number_id' | 'phone_number'>>(
  { phone_number_ids }: Selection,
  rows: readonly Row[],
  refusalOf: (row: Row) => DomainError | null,
): Item[] {
  const byId = new Map(rows.map((row) => [row.phone_number_id, row]));
  const byNumber = (one: Row, other: Row) => (one.phone_number < other.phone_number ? -1 : 1);
  const ids = phone_number_ids ?? rows.toSorted(byNumber).map(({ phone_number_id }) => phone_number_id);
  return ids.map((phone_number_id) => {
    const row = byId.get(phone_number_id);
    return row
      ? { phone_number_id, phone_number: row.phone_number, refusal: refusalOf(row) }
      : { phone_number_id, phone_number: null, refusal: new DomainError('phone_number_not_found', {}) };
  });
}

/**
 * For a call that did nothing, although it was not only tried: something must stand against a number, unless there is none.
 *
 * @throws DomainError `temporarily_unavailable`
 */
export function assertRefused(items: readonly Item[]): void {
  if (items.length > 0 && items.every(({ refusal }) => refusal === null)) throw notDone(noCredentials);
}
