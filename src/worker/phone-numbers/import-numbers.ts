/**
 * Imports numbers through an integration. First its account is asked which of them it holds. Then one batch imports those
 * that it can, each of them wholly or not at all:
 *
 * | the number is held by    | confirmed by our account             | unconfirmed |
 * | ------------------------ | ------------------------------------ | ----------- |
 * | nobody                   | imported                             | imported    |
 * | this organization        | refused                              | refused     |
 * | another one, unconfirmed | released there, and imported         | refused     |
 * | another one, confirmed   | refused; the cron asks their account | refused     |
 */
import { and, eq, inArray, isNotNull, isNull, ne, not, or, sql } from 'drizzle-orm';
import { DomainError, invalid } from '../core/errors.ts';
import type { ProblemCode } from '../core/errors.ts';
import { newEventId, newId } from '../core/ids.ts';
import { unixNow } from '../core/time.ts';
import type { Ownership, Provider, Quota } from '../core/vocabulary.ts';
import { purge } from '../credentials/drain.ts';
import { credentialsKeyOf } from '../credentials/kv-key.ts';
import { owedRow } from '../credentials/outbox.ts';
import { beginAgain, notDone } from '../credentials/store.ts';
import { existsIn, rowColumns } from '../d1/columns.ts';
import type { RowParameters } from '../d1/columns.ts';
import { beat } from '../d1/heartbeat.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { ifAlive, onPrimary } from '../d1/replica-session.ts';
import {
  audit_events,
  credential_purges,
  idempotency_keys,
  integrations,
  organizations,
  phone_numbers,
} from '../d1/schema.ts';
import { actorParameters } from '../decision/call.ts';
import type { ApiCall } from '../decision/call.ts';
import { assertCallerMay, callerKey, confirmAndRead, mayDecide } from '../decision/caller.ts';
import { assertNothingInDoubt, eventIdBesideOf, eventRecorder, isDecision, isOfBatch } from '../decision/event.ts';
import { mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import {
  assertSameRequest,
  isRemembered,
  isRememberedInPart,
  pathOfPart,
  rememberedRow,
} from '../decision/remembered-answers.ts';
import { askForNumbers, findAccount } from '../integrations/account.ts';
import { findTarget, isIntegration } from '../integrations/integration.ts';
import type { Target } from '../integrations/integration.ts';
import { isOrganization } from '../organizations/organization.ts';
import { assertRoom, fullQuota, roomFor } from '../organizations/quotas.ts';
import type { FullQuota } from '../organizations/quotas.ts';
import { CONTESTED, isStillTrue } from './ownership.ts';
import type { AskedParameters } from './ownership.ts';
import { noCredentials, phoneNumberState } from './phone-number.ts';
import type { PhoneNumberState } from './phone-number.ts';

export interface ImportRequest {
  integration_id: string;
  /** The integration must be of this provider; null: of any. */
  provider: Provider | null;
  /** None twice. */
  phone_numbers: readonly string[];
  supports_inbound: boolean;
  supports_outbound: boolean;
}

/** A number that was imported, by this call or by an earlier one under its Idempotency-Key; or why it was not. */
export type ImportOutcome = PhoneNumberState | DomainError;

/** A number to import, in the JSON that the statements are bound to. */
interface Item {
  phone_number_id: string;
  phone_number: string;
  ownership: Ownership;
  /** Under which it is remembered. */
  path: string | null;
}

type ItemColumns = 'phone_number_id' | 'phone_number' | 'provider' | 'ownership' | 'ownership_due_at';

interface ImportParameters
  extends MutationParameters, AskedParameters, Omit<RowParameters<typeof phone_numbers>, ItemColumns> {
  integration_id: string;
  provider: Provider | null;
  /** JSON array of {@link Item}. */
  items: string;
  fingerprint: string | null;
  /** Of the events in other organizations. */
  release_event_id: string;
  release_request_id: string;
}

const quotas: Quota[] = ['phone_numbers', 'audit_events'];

const itemOf = (name: keyof Item) => sql<string>`value ->> ${sql.raw(`'$.${name}'`)}`;

/** The items as rows. There are none without an organization: so an unknown key makes D1 read none (d1/query.ts). */
const eachItem = ({ organization_id, items }: Placeholders<Pick<ImportParameters, 'organization_id' | 'items'>>) =>
  sql`json_each(iif(${organization_id} IS NULL, NULL, ${items}))`;

const numbersOf = (parameters: Placeholders<ImportParameters>) =>
  sql`(SELECT ${itemOf('phone_number')} FROM ${eachItem(parameters)})`;

/** Predicate of an item: its number is held, and cannot be taken from its holder. */
const isKept = (db: Builder, { organization_id }: Placeholders<ImportParameters>) => {
  const canBeTaken = and(
    sql`${itemOf('ownership')} = 'confirmed'`,
    eq(phone_numbers.ownership, 'unconfirmed'),
    ne(phone_numbers.organization_id, organization_id),
  );
  return existsIn(
    db,
    phone_numbers,
    and(sql`${phone_numbers.phone_number} = ${itemOf('phone_number')}`, not(canBeTaken ?? sql`0`)),
  );
};

/** Predicate of an item: it was imported already, by an earlier try or under the Idempotency-Key. */
const isDone = (db: Builder, parameters: Placeholders<ImportParameters>) => {
  const { organization_id, actor_key_id, actor_key_hash, idempotency_key, method } = parameters;
  const event_id = eventIdBesideOf(parameters.event_id, itemOf('phone_number_id'));
  const scope = { organization_id, actor_key_id, actor_key_hash, idempotency_key, method, path: itemOf('path') };
  return sql`(${existsIn(db, audit_events, isDecision({ organization_id, event_id }))} OR ${existsIn(db, idempotency_keys, isRemembered(scope))})`;
};

/** Predicate: another request has imported something under the Idempotency-Key. */
const isOfAnotherRequest = (db: Builder, parameters: Placeholders<ImportParameters>) =>
  existsIn(
    db,
    idempotency_keys,
    and(isRememberedInPart(parameters), ne(idempotency_keys.fingerprint, parameters.fingerprint)),
  );

/** Predicate: the integration is as it was when its account was asked, a short while ago, and of the provider. */
const isTarget = (parameters: Placeholders<ImportParameters>) =>
  and(
    isIntegration(parameters),
    or(sql`${parameters.provider} IS NULL`, eq(integrations.provider, parameters.provider)),
    isStillTrue(parameters),
  );

/**
 * The items that the batch imports, as rows: as many as there is room for, in their order. It selects the same items
 * before and after numbers were released elsewhere, because nothing of our organization changes in between.
 */
function admitted(db: Builder, parameters: Placeholders<ImportParameters>) {
  const isReady = and(
    isOrganization(parameters),
    mayDecide('phone_numbers:create', db, parameters),
    isTarget(parameters),
    not(isOfAnotherRequest(db, parameters)),
    not(isKept(db, parameters)),
    not(isDone(db, parameters)),
  );
  const ready = sql`SELECT key AS place, ${itemOf('phone_number_id')} AS phone_number_id,
      ${itemOf('phone_number')} AS phone_number, ${itemOf('ownership')} AS ownership, ${integrations.provider} AS provider,
      min(${sql.join(quotas.map(roomFor), sql`, `)}) AS room, ${roomFor('unconfirmed_numbers')} AS unconfirmed_room,
      sum(${itemOf('ownership')} = 'unconfirmed') OVER (ORDER BY key) AS unconfirmed_place
    FROM ${organizations} CROSS JOIN ${integrations} CROSS JOIN ${eachItem(parameters)} WHERE ${isReady}`;
  const counted = sql`SELECT *, row_number() OVER (ORDER BY place) AS number FROM (${ready})
    WHERE ownership = 'confirmed' OR unconfirmed_place <= unconfirmed_room`;
  return sql`(SELECT * FROM (${counted}) WHERE number <= room)`;
}

/** Takes an unconfirmed number from another organization, which is told why, but not for whom. */
const recordRelease = eventRecorder<ImportParameters>({
  table: phone_numbers,
  target_id: phone_numbers.phone_number_id,
  action: 'phone_number.released',
  where: (db, parameters) =>
    and(
      inArray(phone_numbers.phone_number, sql`(SELECT phone_number FROM ${admitted(db, parameters)})`),
      eq(phone_numbers.ownership, 'unconfirmed'),
      ne(phone_numbers.organization_id, parameters.organization_id),
    ),
  many: true,
  aside: ({ release_event_id, release_request_id }) => ({
    reason: 'ownership_confirmed_elsewhere',
    event_id: release_event_id,
    request_id: release_request_id,
  }),
});

const isReleased = (db: Builder, parameters: Placeholders<ImportParameters>) => {
  const event_id = eventIdBesideOf(parameters.release_event_id, phone_numbers.phone_number_id);
  const isRelease = and(
    isDecision({ organization_id: phone_numbers.organization_id, event_id }),
    eq(audit_events.target_id, phone_numbers.phone_number_id),
  );
  return and(inArray(phone_numbers.phone_number, numbersOf(parameters)), existsIn(db, audit_events, isRelease));
};

const credentialsOf = credentialsKeyOf(
  phone_numbers.organization_id,
  phone_numbers.phone_number_id,
  phone_numbers.credentials_version,
);

const enqueueReleased = query((db, parameters: Placeholders<ImportParameters>) =>
  db
    .insert(credential_purges)
    .select(
      db
        .select(
          owedRow({
            kv_key: credentialsOf,
            organization_id: sql`${phone_numbers.organization_id}`,
            due_at: sql`${parameters.now}`,
          }),
        )
        .from(phone_numbers)
        .where(and(isReleased(db, parameters), isNotNull(phone_numbers.credentials_version))),
    )
    .onConflictDoUpdate({ target: credential_purges.kv_key, set: { state: 'owed' } }),
);

const removeReleased = query((db, parameters: Placeholders<ImportParameters>) =>
  db.delete(phone_numbers).where(isReleased(db, parameters)),
);

const insertNumbers = query((db, parameters: Placeholders<ImportParameters>) =>
  db
    .insert(phone_numbers)
    .select(
      db
        .select(
          rowColumns<typeof phone_numbers, ItemColumns>(phone_numbers, parameters, {
            phone_number_id: sql`phone_number_id`,
            phone_number: sql`phone_number`,
            provider: sql`provider`,
            ownership: sql`ownership`,
            ownership_due_at: sql`iif(ownership = 'confirmed', NULL, ${parameters.now})`,
          }),
        )
        .from(admitted(db, parameters))
        .where(sql`true`),
    )
    .onConflictDoNothing({ target: phone_numbers.phone_number }),
);

const recordImports = eventRecorder<ImportParameters>({
  table: phone_numbers,
  target_id: phone_numbers.phone_number_id,
  action: 'phone_number.imported',
  where: (_, parameters) =>
    and(
      // The ids are new, so there is a row only if the statement before inserted it.
      sql`${phone_numbers.phone_number_id} IN (SELECT ${itemOf('phone_number_id')} FROM ${eachItem(parameters)})`,
      sql`+${phone_numbers.organization_id} = ${parameters.organization_id}`,
    ),
  many: true,
});

/** The confirmed numbers of other organizations that our account seems to hold too. */
const contest = query((db, parameters: Placeholders<ImportParameters>) =>
  db
    .update(phone_numbers)
    .set({ ownership_due_at: CONTESTED })
    .where(
      and(
        sql`${phone_numbers.phone_number} IN (SELECT ${itemOf('phone_number')} FROM ${eachItem(parameters)} WHERE ${itemOf('ownership')} = 'confirmed')`,
        ne(phone_numbers.organization_id, parameters.organization_id),
        eq(phone_numbers.ownership, 'confirmed'),
        // One that is due is asked about already.
        isNull(phone_numbers.ownership_due_at),
        existsIn(db, organizations, and(isOrganization(parameters), mayDecide('phone_numbers:create', db, parameters))),
      ),
    ),
);

/** Each number is remembered by itself, so that a repeat can try the others again. */
const remember = query((db, parameters: Placeholders<ImportParameters>) =>
  db
    .insert(idempotency_keys)
    .select(
      db
        .select(rememberedRow(parameters, itemOf('path')))
        .from(audit_events)
        .innerJoin(eachItem(parameters), sql`${itemOf('phone_number_id')} = ${audit_events.target_id}`)
        .where(isOfBatch(parameters)),
    )
    .onConflictDoNothing(),
);

/** What earlier tries of this call imported. */
const findRecorded = query((db, parameters: Placeholders<MutationParameters>) =>
  db.select({ state: audit_events.state }).from(audit_events).where(isOfBatch(parameters)),
);

/** What was imported under the Idempotency-Key. */
const findRemembered = query((db, parameters: Placeholders<MutationParameters>) =>
  db
    .select({ state: audit_events.state, fingerprint: idempotency_keys.fingerprint })
    .from(idempotency_keys)
    .innerJoin(
      audit_events,
      and(
        eq(audit_events.organization_id, idempotency_keys.organization_id),
        eq(audit_events.event_id, idempotency_keys.event_id),
      ),
    )
    .where(isRememberedInPart(parameters)),
);

interface Holder {
  phone_number: string;
  is_ours: number;
  ownership: Ownership;
  /** Where the credentials are that go with the number if it is taken from its holder. */
  kv_key: string | null;
}

/** Who has these numbers, in the whole system: a number is unique there. */
const findHolders = query((db, parameters: Placeholders<{ organization_id: string; numbers: string }>) =>
  db
    .select({
      phone_number: phone_numbers.phone_number,
      is_ours: sql<number>`${eq(phone_numbers.organization_id, parameters.organization_id)}`.as('is_ours'),
      ownership: phone_numbers.ownership,
      kv_key: sql<string | null>`${credentialsOf}`.as('kv_key'),
    })
    .from(phone_numbers)
    .where(sql`${phone_numbers.phone_number} IN (SELECT value FROM json_each(${parameters.numbers}))`),
);

const findFull = fullQuota(quotas);
const findUnconfirmedFull = fullQuota(['unconfirmed_numbers']);

/**
 * Imports numbers through an integration (docs/contract.md, Phone numbers).
 *
 * It takes a batch, the account's answers, and the batch that decides. Without asking the account it takes the last one
 * alone.
 *
 * @param asks whether the account is asked; else what is imported is unconfirmed
 * @param inParts whether each number is an act of its own under the Idempotency-Key
 * @returns what came of each number. A DomainError of a number is `phone_number_exists`, `phone_number_not_in_account`,
 *   `quota_exceeded` or, where others were imported before, what is thrown otherwise
 * @throws DomainError `validation_failed` for an integration of another provider, `integration_not_found`,
 *   `credentials_missing`, `credentials_refused`, `verification_limited`, `rate_limited`, and the errors of every mutation
 *   (decision/mutation.ts)
 */
export async function importNumbers(
  call: ApiCall,
  request: ImportRequest,
  asks: boolean,
  inParts: boolean,
): Promise<ReadonlyMap<string, ImportOutcome>> {
  const { path = null } = call.idempotency ?? {};
  const pathOf = (phone_number: string) => (path !== null && inParts ? pathOfPart(path, phone_number) : path);
  // All attempts have the same event ids, so that none imports what another has imported.
  const event = { ...mutationParameters(call), integration_id: request.integration_id };
  try {
    return await beginAgain(() => attempt(call, event, request, asks, pathOf));
  } catch (error) {
    call.told.replayed = false;
    throw error;
  }
}

type Event = MutationParameters & Pick<ImportRequest, 'integration_id'>;

/** What the account says of the numbers that are left to import. */
interface Asked extends AskedParameters {
  held: ReadonlySet<string>;
  /** As they were when it was asked. */
  holders: readonly Holder[];
}

async function attempt(
  call: ApiCall,
  event: Event,
  request: ImportRequest,
  asks: boolean,
  pathOf: (phone_number: string) => string | null,
): Promise<ReadonlyMap<string, ImportOutcome>> {
  const outcomes = new Map<string, ImportOutcome>();
  const asked = asks ? await askAccount(call, event, request, outcomes) : undefined;
  const left = request.phone_numbers.filter((phone_number) => !outcomes.has(phone_number));
  if (left.length === 0) return outcomes;

  const items = left.map((phone_number): Item => ({
    phone_number_id: newId('phon'),
    phone_number,
    ownership: asked?.held.has(phone_number) === true ? 'confirmed' : 'unconfirmed',
    path: pathOf(phone_number),
  }));
  const { read: found, inDoubt, confirm } = await decide(call, event, request, items, asked);
  const hasActed = found.recorded.length > 0;
  confirm(hasActed);
  if (!hasActed) assertCallerMay('phone_numbers:create', call, found.caller[0]);
  addDone(call, found, outcomes);
  for (const item of items) {
    const outcome = outcomes.get(item.phone_number);
    if (outcome === undefined) {
      assertNothingInDoubt(inDoubt);
      outcomes.set(item.phone_number, explain(request, item, asked, found));
    } else if ('phone_number_id' in outcome && outcome.phone_number_id === item.phone_number_id) {
      const taken = asked?.holders.find(({ phone_number }) => phone_number === item.phone_number);
      const kv_key = taken?.kv_key ?? null;
      if (kv_key !== null) call.afterAnswer(() => purge(call.env, kv_key));
    }
  }
  return outcomes;
}

/** Adds the outcomes that need no batch: of what was imported before, and of what the account does not hold. */
async function askAccount(
  call: ApiCall,
  event: Event,
  request: ImportRequest,
  outcomes: Map<string, ImportOutcome>,
): Promise<Asked | undefined> {
  const {
    row: [row],
    holders,
    full,
    ...done
  } = await confirmAndRead('phone_numbers:create', call, event, {
    row: findAccount.bind(event),
    recorded: findRecorded.bind(event),
    remembered: findRemembered.bind(event),
    holders: findHolders.bind({ ...event, numbers: JSON.stringify(request.phone_numbers) }),
    full: findFull.bind(event),
  });
  addDone(call, done, outcomes);
  const leftOver = () => request.phone_numbers.filter((phone_number) => !outcomes.has(phone_number));
  if (leftOver().length === 0) return undefined;
  try {
    assertTarget(request, row);
    const ours = holders.filter(({ is_ours, phone_number }) => is_ours && !outcomes.has(phone_number));
    for (const { phone_number } of ours) outcomes.set(phone_number, new DomainError('phone_number_exists', {}));
    const left = leftOver();
    if (left.length === 0) return undefined;
    assertRoom(full);
    const { held, absent } = await askForNumbers(call, row, left);
    for (const phone_number of absent) outcomes.set(phone_number, new DomainError('phone_number_not_in_account', {}));
    return { asked_version: row.credentials_version, asked_at: unixNow(), held, holders };
  } catch (error) {
    const refusal = refusalOfTheOthers(done, error);
    for (const phone_number of leftOver()) outcomes.set(phone_number, refusal);
    return undefined;
  }
}

const refusals = new Set<ProblemCode>([
  'integration_not_found',
  'credentials_missing',
  'credentials_refused',
  'quota_exceeded',
]);

/**
 * What was imported under the Idempotency-Key must be told again, whatever stands against the other numbers now.
 *
 * @throws the error, if nothing was imported before, or if a later try may go better
 */
function refusalOfTheOthers({ remembered }: Pick<Found, 'remembered'>, error: unknown): DomainError {
  if (remembered.length > 0 && error instanceof DomainError && refusals.has(error.code)) return error;
  throw error;
}

/** @throws DomainError `integration_not_found`, `validation_failed` for an integration of another provider */
function assertTarget<Row extends { provider: Provider }>(
  { provider }: ImportRequest,
  row: Row | undefined,
): asserts row is Row {
  if (!row) throw new DomainError('integration_not_found', {});
  if (provider !== null && row.provider !== provider) {
    throw invalid('integration_id', "must be an integration of the phone number's provider");
  }
}

interface Found {
  /** What tries of this call imported. */
  recorded: { state: string }[];
  /** What was imported under the Idempotency-Key. */
  remembered: { state: string; fingerprint: string }[];
}

/** @throws DomainError `idempotency_key_reused` */
function addDone(call: ApiCall, { recorded, remembered }: Found, outcomes: Map<string, ImportOutcome>): void {
  for (const { fingerprint } of remembered) assertSameRequest(call, fingerprint);
  for (const { state } of [...remembered, ...recorded]) {
    const number = phoneNumberState.parse(JSON.parse(state));
    outcomes.set(number.phone_number, number);
  }
  call.told.replayed = recorded.length === 0 && remembered.length > 0;
}

function decide(call: ApiCall, event: Event, request: ImportRequest, items: Item[], asked: Asked | undefined) {
  const parameters: ImportParameters = {
    ...event,
    ...actorParameters(call),
    ...noCredentials,
    // The account may have been slow: the caller's key must still be alive now.
    now: unixNow(),
    provider: request.provider,
    items: JSON.stringify(items),
    asked_version: asked?.asked_version ?? null,
    asked_at: asked?.asked_at ?? null,
    fingerprint: call.idempotency?.fingerprint ?? null,
    release_event_id: newEventId(),
    release_request_id: crypto.randomUUID(),
    status: 'free',
    assigned_agent_id: null,
    supports_inbound: Number(request.supports_inbound),
    supports_outbound: Number(request.supports_outbound),
    sip_trunk_name: null,
    sip_username: null,
    sip_server_address: null,
    sip_transport: null,
    inbound_room_name: null,
    media_encryption: null,
    created_at: event.event_time,
    updated_at: event.event_time,
    revision: 1,
  };
  const statements = [
    recordRelease,
    enqueueReleased,
    removeReleased,
    insertNumbers,
    recordImports,
    contest,
    ...(call.idempotency ? [remember] : []),
  ];
  const numbers = JSON.stringify(items.map(({ phone_number }) => phone_number));
  const explaining = {
    remembered: findRemembered.bind(event),
    caller: callerKey.bind(event),
    target: findTarget.bind(event),
    holders: findHolders.bind({ ...event, numbers }),
    full: findFull.bind(event),
    unconfirmedFull: findUnconfirmedFull.bind(event),
  };
  const recorded = findRecorded.bind(event);
  return onPrimary(call, [beat.bind({}), ...statements.map((statement) => statement.bind(parameters))], {
    ...ifAlive(call, explaining, () => recorded),
    recorded,
  });
}

function explain(request: ImportRequest, item: Item, asked: Asked | undefined, found: Found & Reasons): DomainError {
  try {
    return refusalOf(request, item, asked, found);
  } catch (error) {
    return refusalOfTheOthers(found, error);
  }
}

/** What stands against a number, after the batch. */
interface Reasons {
  target: Target[];
  holders: Holder[];
  full: FullQuota[];
  unconfirmedFull: FullQuota[];
}

/**
 * Why the batch did not import a number.
 *
 * @throws DomainError `integration_not_found`, `validation_failed`, and `temporarily_unavailable` if what the attempt went
 *   by is out of date
 */
function refusalOf(
  request: ImportRequest,
  { phone_number, ownership }: Item,
  asked: Asked | undefined,
  { target: [target], holders, full, unconfirmedFull }: Reasons,
): DomainError {
  assertTarget(request, target);
  if (asked && asked.asked_version !== target.credentials_version) throw notDone(noCredentials);
  const holder = holders.find((other) => other.phone_number === phone_number);
  const isKeptByHolder = holder && (holder.is_ours || ownership === 'unconfirmed' || holder.ownership === 'confirmed');
  if (isKeptByHolder) return new DomainError('phone_number_exists', {});
  const [quota] = ownership === 'unconfirmed' ? [...full, ...unconfirmedFull] : full;
  if (quota) return new DomainError('quota_exceeded', quota);
  throw notDone(noCredentials);
}
