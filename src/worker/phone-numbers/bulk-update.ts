import { and, eq, not, or, sql } from 'drizzle-orm';
import type { Placeholder, SQL } from 'drizzle-orm';
import * as z from 'zod/mini';
import { BULK_CALL_MILLISECONDS } from '../core/deadlines.ts';
import { DomainError } from '../core/errors.ts';
import { onceTheRestIsRight } from '../core/fields.ts';
import { idSchema } from '../core/ids.ts';
import { unixNow } from '../core/time.ts';
import type { Quota } from '../core/vocabulary.ts';
import { beginAgain, notDone } from '../credentials/store.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { integrations, phone_numbers } from '../d1/schema.ts';
import { withoutKey } from '../decision/call.ts';
import type { ApiCall } from '../decision/call.ts';
import { confirmAndRead, mayDecide } from '../decision/caller.ts';
import { decisionSaw, eventRecorder, updateTime } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import { askForNumbers, findAccount } from '../integrations/account.ts';
import { findTarget, isIntegration } from '../integrations/integration.ts';
import type { Target } from '../integrations/integration.ts';
import { assertRoom, hasRoomForCount, quotaWithout } from '../organizations/quotas.ts';
import type { FullQuota } from '../organizations/quotas.ts';
import { isStillTrue } from './ownership.ts';
import type { AskedParameters } from './ownership.ts';
import { noCredentials } from './phone-number.ts';
import {
  actedOn,
  assertRefused,
  assertSelectable,
  countOf,
  eachWay,
  eventIdOfNumber,
  findOthers,
  findSource,
  isEachOfAll,
  isLeftUndone,
  isOneSelection,
  isRecorded,
  itemsOf,
  selectionFields,
  selectionParameters,
} from './selection.ts';
import type { Item, SelectionParameters, Selector } from './selection.ts';
import { changesAccount, hasServer, integrationFaults, newAgent, newStatus, newValue, serverFaults } from './update.ts';

export const bulkChanges = z.lazy(() =>
  z
    .strictObject({
      ...selectionFields(),
      set: z
        .strictObject({
          integration_id: z.exactOptional(idSchema('intg')),
          assigned_agent_id: newAgent(),
          supports_inbound: z.exactOptional(z.boolean()),
          supports_outbound: z.exactOptional(z.boolean()),
        })
        .check(
          z.refine((set) => Object.keys(set).length > 0, {
            error: 'must change at least one field',
            ...onceTheRestIsRight,
          }),
        )
        .register(z.globalRegistry, { minProperties: 1 }),
    })
    .check(isOneSelection()),
);

type BulkChanges = z.output<typeof bulkChanges>;

interface UpdateParameters extends SelectionParameters, AskedParameters {
  /** The integration that all are to have; null: each keeps its own. */
  integration_id: string | null;
  /** JSON of what is to be set: columns and their new values. */
  changes: string;
  /** Whether a number may move to another account only if that was asked about it: 0 or 1. */
  must_ask: number;
  /** JSON arrays: the numbers that the account was asked about, and those of them that it has, and has not. */
  asked: string;
  held: string;
  absent: string;
}

type Parameters = Placeholders<UpdateParameters>;

const isAmong = (numbers: Placeholder) =>
  sql`${phone_numbers.phone_number} IN (SELECT value FROM json_each(${numbers}))`;

/** Predicate: the target is of the number's provider. */
const suitsTarget = (db: Builder, parameters: Parameters) => {
  const target = db.select({ provider: integrations.provider }).from(integrations).where(isIntegration(parameters));
  return or(sql`${parameters.integration_id} IS NULL`, eq(phone_numbers.provider, sql`(${target})`));
};

/** Predicate: nothing stands against the number. {@link refusalOf} explains it. */
const canHaveIt = (db: Builder, parameters: Parameters) =>
  and(suitsTarget(db, parameters), hasServer(parameters), not(isAmong(parameters.absent)));

/** Predicate: the account was asked about the number, if it must be. */
const isSettled = (db: Builder, parameters: Parameters) =>
  sql`(NOT ${parameters.must_ask} OR ${isAmong(parameters.asked)} OR NOT ${changesAccount(parameters, db)})`;

const newOwnership = (parameters: Parameters, db: Builder) =>
  sql`iif(${changesAccount(parameters, db)}, iif(${isAmong(parameters.held)}, 'confirmed', 'unconfirmed'), ${phone_numbers.ownership})`;

const newValues = (parameters: Parameters, db: Builder): Readonly<Record<string, SQL>> => ({
  integration_id: newValue(parameters, phone_numbers.integration_id),
  assigned_agent_id: newValue(parameters, phone_numbers.assigned_agent_id),
  supports_inbound: newValue(parameters, phone_numbers.supports_inbound),
  supports_outbound: newValue(parameters, phone_numbers.supports_outbound),
  status: newStatus(parameters),
  ownership: newOwnership(parameters, db),
});

const applyChanges = query((db, parameters: Parameters) => {
  const decision = { organization_id: parameters.organization_id, event_id: eventIdOfNumber(db, parameters) };
  return db
    .update(phone_numbers)
    .set({
      ...newValues(parameters, db),
      ownership_due_at: sql`iif(${changesAccount(parameters, db)}, iif(${isAmong(parameters.held)}, NULL, ${parameters.now}), ${phone_numbers.ownership_due_at})`,
      updated_at: updateTime(db, parameters, phone_numbers.updated_at),
      revision: sql`${phone_numbers.revision} + 1`,
    })
    .where(and(isRecorded(db, parameters), decisionSaw(db, decision, phone_numbers.revision)));
});

/** How many numbers the update would add to those that count in a quota. */
const additions = (selector: Selector): [Quota, (db: Builder, parameters: Parameters) => SQL<number>][] => [
  ['audit_events', selector.count],
  [
    'unconfirmed_numbers',
    (db, parameters) =>
      countOf(
        selector,
        db,
        parameters,
        and(eq(phone_numbers.ownership, 'confirmed'), sql`${newOwnership(parameters, db)} = 'unconfirmed'`),
      ),
  ],
];

function updateOf(selector: Selector) {
  const added = additions(selector);
  const recordUpdates = eventRecorder<UpdateParameters>({
    table: phone_numbers,
    target_id: phone_numbers.phone_number_id,
    action: 'phone_number.updated',
    where: (db, parameters) =>
      and(
        isEachOfAll(selector, db, parameters, and(canHaveIt(db, parameters), isSettled(db, parameters))),
        or(
          sql`${parameters.integration_id} IS NULL`,
          existsIn(db, integrations, and(isIntegration(parameters), isStillTrue(parameters))),
        ),
        mayDecide('phone_numbers:update', db, parameters),
        ...added.map(([quota, count]) => hasRoomForCount(quota, count(db, parameters))),
      ),
    changes: newValues,
    many: true,
    order: phone_numbers.phone_number,
    firstDecides: true,
  });

  const findNumbers = query((db, parameters: Parameters) =>
    db
      .select({
        phone_number_id: phone_numbers.phone_number_id,
        phone_number: phone_numbers.phone_number,
        provider: phone_numbers.provider,
        supports_outbound: phone_numbers.supports_outbound,
        sip_server_address: phone_numbers.sip_server_address,
        can_have_it: sql<number>`${canHaveIt(db, parameters)}`.as('can_have_it'),
        is_settled: sql<number>`${isSettled(db, parameters)}`.as('is_settled'),
      })
      .from(phone_numbers)
      .where(isLeftUndone(selector, db, parameters)),
  );

  const found = {
    source: findSource,
    target: findTarget,
    numbers: findNumbers,
    full: quotaWithout<UpdateParameters>((db, parameters) =>
      added.map(([quota, count]) => [quota, not(hasRoomForCount(quota, count(db, parameters)))]),
    ),
    others: findOthers,
  };
  return {
    decide: mutation<UpdateParameters, typeof found>('phone_numbers:update', {
      statements: [recordUpdates, applyChanges],
      found,
      milliseconds: BULK_CALL_MILLISECONDS,
    }),
    found,
  };
}

const updateBy = eachWay(updateOf);
type Update = ReturnType<typeof updateOf>;

interface FoundNumber {
  phone_number_id: string;
  phone_number: string;
  provider: (typeof phone_numbers.$inferSelect)['provider'];
  supports_outbound: number;
  sip_server_address: string | null;
  can_have_it: number;
  is_settled: number;
}

interface Found {
  source: { count: number }[];
  target: Target[];
  numbers: FoundNumber[];
  full: FullQuota[];
}

/**
 * Changes phone numbers, all of them or none (docs/contract.md, Phone numbers). Numbers that would move to another account
 * are asked about before, all in one go.
 *
 * @param verify whether the account is asked; else numbers that move to another account are unconfirmed
 * @param isDryRun whether to tell only what would come of it
 * @returns the numbers. None was changed if one of them has a refusal: `phone_number_not_found`, `validation_failed` or
 *   `phone_number_not_in_account`
 * @throws DomainError `integration_not_found`, `too_many_references`, `too_many_to_verify`, `quota_exceeded`,
 *   `credentials_missing`, `credentials_refused`, `verification_limited`, `rate_limited`, and the errors of every mutation
 *   (decision/mutation.ts)
 */
export function updatePhoneNumbers(
  call: ApiCall,
  request: BulkChanges,
  verify: boolean,
  isDryRun: boolean,
): Promise<Item[]> {
  const acting = isDryRun ? withoutKey(call) : call;
  const update = updateBy(request);
  const { integration_id = null } = request.set;
  const given: UpdateParameters = {
    ...mutationParameters(acting),
    ...selectionParameters(request),
    integration_id,
    changes: JSON.stringify(request.set),
    must_ask: Number(verify && integration_id !== null),
    asked: '[]',
    held: '[]',
    absent: '[]',
    asked_version: null,
    asked_at: null,
  };
  return beginAgain(async () => {
    const parameters = given.must_ask ? await askAccount(acting, update, request, given) : given;
    if (isDryRun) return explain(request, parameters, await look(acting, update, parameters));
    const answer = await update.decide(acting, parameters);
    if (answer.outcome !== 'undecided') return itemsOf(request, actedOn(answer), () => null);
    const items = explain(request, parameters, answer.found);
    assertRefused(items);
    return items;
  });
}

/** What the batch that decides would find if it did nothing, and the account of the target. D1 confirms the caller. */
const look = (call: ApiCall, { found }: Update, parameters: UpdateParameters) =>
  confirmAndRead('phone_numbers:update', call, parameters, {
    source: found.source.bind(parameters),
    target: found.target.bind(parameters),
    numbers: found.numbers.bind(parameters),
    full: found.full.bind(parameters),
    account: findAccount.bind({ ...parameters, integration_id: parameters.integration_id ?? '' }),
  });

/** Asks the account to which numbers would move about those, unless something stands against the call already. */
async function askAccount(
  call: ApiCall,
  update: Update,
  request: BulkChanges,
  given: UpdateParameters,
): Promise<UpdateParameters> {
  const {
    account: [account],
    numbers,
    full: [full],
  } = await look(call, update, given);
  const asked = numbers.filter(({ is_settled }) => !is_settled).map(({ phone_number }) => phone_number);
  const isRefused =
    full?.quota === 'audit_events' ||
    itemsOf(request, numbers, (number) => refusalOf(request, number, account)).some(({ refusal }) => refusal !== null);
  if (!account || asked.length === 0 || isRefused) return given;
  const { held, absent, isCut } = await askForNumbers(call, account, asked);
  if (isCut) throw new DomainError('too_many_to_verify', {});
  return {
    ...given,
    // The account may have been slow: the caller's key must still be alive now.
    now: unixNow(),
    asked: JSON.stringify(asked),
    held: JSON.stringify([...held]),
    absent: JSON.stringify([...absent]),
    asked_version: account.credentials_version,
    asked_at: unixNow(),
  };
}

/**
 * What stands against each number, by what was found.
 *
 * @throws DomainError what stands against the call as a whole
 */
function explain(
  request: BulkChanges,
  { asked_version }: UpdateParameters,
  { source, target: [target], numbers, full }: Found,
): Item[] {
  assertSelectable(request, source);
  if (request.set.integration_id !== undefined && !target) throw new DomainError('integration_not_found', {});
  const items = itemsOf(request, numbers, (number) => refusalOf(request, number, target));
  if (items.some(({ refusal }) => refusal !== null)) return items;
  assertRoom(full);
  const isOutdated = asked_version !== null && target?.credentials_version !== asked_version;
  if (isOutdated || numbers.some(({ is_settled }) => !is_settled)) throw notDone(noCredentials);
  return items;
}

/** Why a number cannot have what is set. */
function refusalOf(
  { set }: BulkChanges,
  number: FoundNumber,
  target: Pick<Target, 'provider'> | undefined,
): DomainError | null {
  if (number.can_have_it) return null;
  const errors = [
    ...integrationFaults(set, number, target),
    ...(number.provider === 'sip' ? serverFaults(set, number) : []),
  ];
  return errors.length > 0
    ? new DomainError('validation_failed', { errors })
    : new DomainError('phone_number_not_in_account', {});
}
