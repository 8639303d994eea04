import { and, eq, ne, or, sql } from 'drizzle-orm';
import type { Placeholder, SQL } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import type { Fault } from '../core/errors.ts';
import { onceTheRestIsRight } from '../core/fields.ts';
import { agentIdSchema, idSchema } from '../core/ids.ts';
import { unixNow } from '../core/time.ts';
import type { Ownership, Provider, Quota } from '../core/vocabulary.ts';
import { purge } from '../credentials/drain.ts';
import type { Credentials } from '../credentials/envelope.ts';
import { credentialsKey } from '../credentials/kv-key.ts';
import { enqueuePurges, intentStands, spendIntent, withdrawIntent } from '../credentials/outbox.ts';
import type { IntentParameters } from '../credentials/outbox.ts';
import { readCredentials } from '../credentials/read.ts';
import { beginAgain, credentialsWriter, notDone } from '../credentials/store.ts';
import { existsIn } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { readOnPrimary } from '../d1/replica-session.ts';
import { integrations, phone_numbers } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { confirmAndRead, mayDecide } from '../decision/caller.ts';
import { decisionSaw, eventRecorder, updateTime } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { Decision, MutationParameters } from '../decision/mutation.ts';
import { assertMatched, isAsMatched, unmatchedTarget } from '../decision/precondition.ts';
import { isUnanswered } from '../decision/remembered-answers.ts';
import { askForNumbers, findAccount } from '../integrations/account.ts';
import { findTarget, isIntegration } from '../integrations/integration.ts';
import type { Target } from '../integrations/integration.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import type { FullQuota } from '../organizations/quotas.ts';
import { isStillTrue } from './ownership.ts';
import type { AskedParameters } from './ownership.ts';
import { isPhoneNumber, noCredentials, phoneNumberState, updatedState } from './phone-number.ts';
import type { PhoneNumberState } from './phone-number.ts';
import { sipFields } from './sip-trunk.ts';

/** A field that may be given, or given as null. */
const orNull = <Schema extends z.ZodMiniType>(schema: Schema) => z.exactOptional(z.nullable(schema));

/** `assigned_agent_id` as a change. */
export const newAgent = () => orNull(agentIdSchema());

export const phoneNumberChanges = z.lazy(() => {
  const fields = sipFields();
  return z
    .strictObject({
      integration_id: orNull(idSchema('intg')),
      supports_inbound: z.exactOptional(z.boolean()),
      supports_outbound: z.exactOptional(z.boolean()),
      assigned_agent_id: newAgent(),
      sip_trunk_name: orNull(fields.sip_trunk_name),
      sip_username: orNull(fields.sip_username),
      sip_password: orNull(fields.sip_password),
      sip_server_address: orNull(fields.sip_server_address),
      sip_transport: orNull(fields.sip_transport),
      inbound_room_name: orNull(fields.inbound_room_name),
      inbound_pin: orNull(fields.inbound_pin),
      media_encryption: orNull(fields.media_encryption),
    })
    .check(
      z.refine((changes) => Object.keys(changes).length > 0, {
        error: 'must change at least one field',
        ...onceTheRestIsRight,
      }),
    )
    .register(z.globalRegistry, { minProperties: 1 });
});

type Changes = z.output<typeof phoneNumberChanges>;

/** The fields that only SIP numbers have: whether one of theirs may be null. */
const sipMembers = [
  ['sip_trunk_name', true],
  ['sip_username', true],
  ['sip_password', true],
  ['sip_server_address', true],
  ['sip_transport', false],
  ['inbound_room_name', true],
  ['inbound_pin', true],
  ['media_encryption', false],
] as const;

interface UpdateParameters extends MutationParameters, AskedParameters {
  phone_number_id: string;
  integration_id: string | null;
  /** JSON of all that is given but the credentials: columns and their new values. */
  changes: string;
  /** Whether something is given that only a SIP number can have, and that none can have: 0 or 1. */
  is_for_sip: number;
  is_for_others: number;
  /** Whether the number is to have a `sip_password`: 0 or 1. Null leaves that as it is. */
  has_password: number | null;
  /** Whether the credentials must still be of `read_version`: 0 or 1. */
  has_read: number;
  read_version: string | null;
  /** What the account of the new integration says; null: it was not asked, or did not say. */
  ownership: Ownership | null;
}

type CredentialsParameters = UpdateParameters &
  IntentParameters &
  Record<'credentials_version' | 'data_key' | 'kek_id', string | null>;

const findPhoneNumber = query((db, parameters: Placeholders<UpdateParameters>) =>
  db
    .select({
      provider: phone_numbers.provider,
      supports_outbound: phone_numbers.supports_outbound,
      sip_username: phone_numbers.sip_username,
      sip_server_address: phone_numbers.sip_server_address,
      credentials_version: phone_numbers.credentials_version,
      ownership: phone_numbers.ownership,
    })
    .from(phone_numbers)
    .where(isPhoneNumber(parameters)),
);

type FoundNumber = Pick<
  PhoneNumberState,
  'provider' | 'ownership' | 'supports_outbound' | 'sip_username' | 'sip_server_address'
> & {
  credentials_version: string | null;
};

const findCredentials = query((db, parameters: Placeholders<UpdateParameters>) =>
  db
    .select({
      credentials_version: phone_numbers.credentials_version,
      data_key: phone_numbers.data_key,
      kek_id: phone_numbers.kek_id,
    })
    .from(phone_numbers)
    .where(isPhoneNumber(parameters)),
);

/** The value that a column is to have: the one that is given, which may be null, or else the one that it has. */
export function newValue({ changes }: { changes: Placeholder }, column: SQLiteColumn): SQL {
  const path = sql.raw(`'$.${column.name}'`);
  return sql`iif(json_type(${changes}, ${path}) IS NULL, ${column}, ${changes} ->> ${path})`;
}

const changeable = [
  phone_numbers.integration_id,
  phone_numbers.supports_inbound,
  phone_numbers.supports_outbound,
  phone_numbers.assigned_agent_id,
  phone_numbers.sip_trunk_name,
  phone_numbers.sip_username,
  phone_numbers.sip_server_address,
  phone_numbers.sip_transport,
  phone_numbers.inbound_room_name,
  phone_numbers.media_encryption,
];

/** Predicate: the number moves to an integration of another account, or of one that is not known to be the same. */
export const changesAccount = (
  { organization_id, integration_id }: Placeholders<Pick<UpdateParameters, 'organization_id' | 'integration_id'>>,
  db: Builder,
) => {
  const [before, after] = [alias(integrations, 'before'), alias(integrations, 'after')];
  const isSame = db
    .select({ one: sql`1` })
    .from(before)
    .innerJoin(after, eq(after.account_fingerprint, before.account_fingerprint))
    .where(
      and(
        eq(before.organization_id, organization_id),
        eq(before.integration_id, phone_numbers.integration_id),
        eq(after.organization_id, organization_id),
        eq(after.integration_id, integration_id),
      ),
    );
  return sql`(${integration_id} IS NOT NULL AND ${integration_id} <> ${phone_numbers.integration_id} AND NOT EXISTS ${isSame})`;
};

const newOwnership = (parameters: Placeholders<UpdateParameters>, db: Builder) =>
  sql`iif(${changesAccount(parameters, db)}, coalesce(${parameters.ownership}, 'unconfirmed'), ${phone_numbers.ownership})`;

/** It follows the agent. */
export const newStatus = (parameters: { changes: Placeholder }) =>
  sql`iif(${newValue(parameters, phone_numbers.assigned_agent_id)} IS NULL, 'free', 'assigned')`;

const newValues = (parameters: Placeholders<UpdateParameters>, db: Builder): Readonly<Record<string, SQL>> => ({
  ...Object.fromEntries(changeable.map((column) => [column.name, newValue(parameters, column)])),
  status: newStatus(parameters),
  ownership: newOwnership(parameters, db),
});

const withVersion = (parameters: Placeholders<CredentialsParameters>, db: Builder) => ({
  ...newValues(parameters, db),
  credentials_version: sql`${parameters.credentials_version}`,
});

/** Selects the integration that the number is to move to, if it suits the number and is as it was when it was asked. */
const isSuitable = (parameters: Placeholders<UpdateParameters>) =>
  and(isIntegration(parameters), eq(integrations.provider, phone_numbers.provider), isStillTrue(parameters));

/** Predicate: a SIP number that will support outbound has a server. */
export const hasServer = (parameters: { changes: Placeholder }) =>
  or(
    ne(phone_numbers.provider, 'sip'),
    sql`NOT ${newValue(parameters, phone_numbers.supports_outbound)}`,
    sql`${newValue(parameters, phone_numbers.sip_server_address)} IS NOT NULL`,
  );

/** Selects the number if it can have what is given (docs/contract.md, Phone numbers). {@link refusal} explains it. */
const canHaveIt = (db: Builder, parameters: Placeholders<UpdateParameters>) =>
  and(
    isPhoneNumber(parameters),
    isAsMatched(phone_numbers.revision, parameters),
    or(sql`NOT ${parameters.is_for_sip}`, eq(phone_numbers.provider, 'sip')),
    or(sql`NOT ${parameters.is_for_others}`, ne(phone_numbers.provider, 'sip')),
    or(sql`${parameters.integration_id} IS NULL`, existsIn(db, integrations, isSuitable(parameters))),
    hasServer(parameters),
    sql`(${newValue(parameters, phone_numbers.sip_username)} IS NOT NULL) = coalesce(${parameters.has_password}, ${phone_numbers.sip_username} IS NOT NULL)`,
    or(sql`NOT ${parameters.has_read}`, sql`${phone_numbers.credentials_version} IS ${parameters.read_version}`),
  );

const quotas: Quota[] = ['audit_events'];
/** For a number that was confirmed and will not be. */
const unconfirmed: Quota[] = ['unconfirmed_numbers'];

const storeCredentials = credentialsWriter<UpdateParameters>('phone_numbers:update', (db, parameters) =>
  and(existsIn(db, phone_numbers, canHaveIt(db, parameters)), hasRoomFor(quotas)),
);

const recordIf = <Parameters extends UpdateParameters>(
  changes: (parameters: Placeholders<Parameters>, db: Builder) => Readonly<Record<string, SQL>>,
  isReady?: (db: Builder, parameters: Placeholders<Parameters>) => SQL,
) =>
  eventRecorder<Parameters>({
    table: phone_numbers,
    target_id: phone_numbers.phone_number_id,
    action: 'phone_number.updated',
    where: (db, parameters) =>
      and(
        canHaveIt(db, parameters),
        mayDecide('phone_numbers:update', db, parameters),
        hasRoomFor(quotas),
        or(
          eq(phone_numbers.ownership, 'unconfirmed'),
          sql`${newOwnership(parameters, db)} = 'confirmed'`,
          hasRoomFor(unconfirmed),
        ),
        isReady?.(db, parameters),
      ),
    changes,
  });

const updateTo = (db: Builder, parameters: Placeholders<UpdateParameters>, values: Readonly<Record<string, SQL>>) =>
  db
    .update(phone_numbers)
    .set({
      ...values,
      ownership_due_at: sql`iif(${changesAccount(parameters, db)}, iif(${parameters.ownership} = 'confirmed', NULL, ${parameters.now}), ${phone_numbers.ownership_due_at})`,
      updated_at: updateTime(db, parameters, phone_numbers.updated_at),
      revision: sql`${phone_numbers.revision} + 1`,
    })
    .where(and(isPhoneNumber(parameters), decisionSaw(db, parameters, phone_numbers.revision)));

const applyChanges = query((db, parameters: Placeholders<UpdateParameters>) =>
  updateTo(db, parameters, newValues(parameters, db)),
);

const applyWithCredentials = query((db, parameters: Placeholders<CredentialsParameters>) =>
  updateTo(db, parameters, {
    ...withVersion(parameters, db),
    data_key: sql`${parameters.data_key}`,
    kek_id: sql`${parameters.kek_id}`,
  }),
);

const findFull = fullQuota(quotas);

const found = {
  number: findPhoneNumber,
  target: findTarget,
  unmatched: unmatchedTarget<UpdateParameters>(phone_numbers, isPhoneNumber),
  full: findFull,
  unconfirmedFull: fullQuota(unconfirmed),
};

const decideKeeping = mutation<UpdateParameters, typeof found>('phone_numbers:update', {
  statements: [recordIf(newValues), applyChanges],
  found,
});

const decideRemoval = mutation<CredentialsParameters, typeof found>('phone_numbers:update', {
  statements: [recordIf(withVersion), applyWithCredentials, enqueuePurges],
  found,
});

const decideReplacement = mutation<CredentialsParameters, typeof found>('phone_numbers:update', {
  statements: [recordIf(withVersion, intentStands), applyWithCredentials, enqueuePurges, withdrawIntent, spendIntent],
  found,
});

/**
 * Changes a phone number: its integration, what it supports, its agent, or its SIP trunk (docs/contract.md, Phone
 * numbers).
 *
 * It takes one batch. If the number moves to another account, that account is asked for it before. If there are new SIP
 * credentials, their intent and ciphertext come before, as for an integration's. They are stored together, so where only
 * one is given, the other is read first. The batch then asks that nobody has replaced what was read.
 *
 * @param verify whether the account is asked; else a number that moves to another account is unconfirmed
 * @returns the phone number after the update
 * @throws DomainError `phone_number_not_found`, `integration_not_found`, `precondition_failed`, `validation_failed` for
 *   what the number cannot have, `quota_exceeded`, `phone_number_not_in_account`, `credentials_missing`,
 *   `credentials_refused`, `verification_limited`, `rate_limited`, and the errors of every mutation
 *   (decision/mutation.ts)
 */
export async function updatePhoneNumber(
  call: ApiCall,
  phone_number_id: string,
  changes: Changes,
  verify: boolean,
): Promise<PhoneNumberState> {
  const { sip_password, inbound_pin, ...visible } = changes;
  const given: UpdateParameters = {
    ...mutationParameters(call),
    phone_number_id,
    integration_id: changes.integration_id ?? null,
    changes: JSON.stringify(visible),
    is_for_sip: Number(changes.integration_id === null || sipMembers.some(([name]) => isValue(changes[name]))),
    is_for_others: Number(sipMembers.some(([name, nullable]) => !nullable && changes[name] === null)),
    has_password: sip_password === undefined ? null : Number(sip_password !== null),
    has_read: 0,
    read_version: null,
    ownership: null,
    asked_version: null,
    asked_at: null,
  };
  const event = await beginAgain(async () => {
    const parameters = verify && isValue(changes.integration_id) ? await askAccount(call, given) : given;
    return sip_password === undefined && inbound_pin === undefined
      ? updateKeeping(call, parameters, changes)
      : updateWithCredentials(call, parameters, changes);
  });
  return updatedState(event);
}

/** The number, if it is as matched, would change its account, and no earlier call did so under the Idempotency-Key. */
const findMoving = query((db, parameters: Placeholders<UpdateParameters>) =>
  db
    .select({ phone_number: phone_numbers.phone_number })
    .from(phone_numbers)
    .where(
      and(
        isPhoneNumber(parameters),
        isAsMatched(phone_numbers.revision, parameters),
        sql`${changesAccount(parameters, db)}`,
        existsIn(db, integrations, isSuitable(parameters)),
        isUnanswered(db, parameters),
      ),
    ),
);

/** Asks the account to which the number would move. D1 confirms the caller first. */
async function askAccount(call: ApiCall, given: UpdateParameters): Promise<UpdateParameters> {
  const { integration_id } = given;
  if (integration_id === null) return given;
  const {
    number: [number],
    account: [account],
    full,
  } = await confirmAndRead('phone_numbers:update', call, given, {
    number: findMoving.bind(given),
    account: findAccount.bind({ ...given, integration_id }),
    full: findFull.bind(given),
  });
  if (!number || !account) return given;
  assertRoom(full);
  const { held, absent } = await askForNumbers(call, account, [number.phone_number]);
  if (absent.has(number.phone_number)) throw new DomainError('phone_number_not_in_account', {});
  return {
    ...given,
    // The account may have been slow: the caller's key must still be alive now.
    now: unixNow(),
    ownership: held.has(number.phone_number) ? 'confirmed' : 'unconfirmed',
    asked_version: account.credentials_version,
    asked_at: unixNow(),
  };
}

async function updateKeeping(call: ApiCall, parameters: UpdateParameters, changes: Changes): Promise<Decision> {
  const answer = await decideKeeping(call, parameters);
  if (answer.outcome === 'undecided') {
    throw (
      refusal(changes, parameters, answer.found) ?? new DomainError('temporarily_unavailable', { outcome: 'not_done' })
    );
  }
  return answer.event;
}

interface Held {
  /** Null if the number has no credentials, or there is no number. */
  version: string | null;
  /** Undefined if they cannot be read. */
  credentials: Credentials | undefined;
}

async function readHeld(call: ApiCall, parameters: UpdateParameters): Promise<Held> {
  const {
    row: [row],
  } = await readOnPrimary(call, { row: findCredentials.bind(parameters) });
  const { credentials_version = null, data_key = null, kek_id = null } = row ?? {};
  const { organization_id, phone_number_id: subject_id } = parameters;
  const named = { organization_id, subject_id, credentials_version, data_key, kek_id };
  const { credentials } = await readCredentials(call, named);
  return { version: credentials_version, credentials };
}

async function updateWithCredentials(call: ApiCall, given: UpdateParameters, changes: Changes): Promise<Decision> {
  const isWhole = changes.sip_password !== undefined && changes.inbound_pin !== undefined;
  const held = isWhole ? undefined : await readHeld(call, given);
  const parameters = { ...given, has_read: Number(!isWhole), read_version: held?.version ?? null };
  const { decide, stored } = await prepare(call, parameters, changes, held);
  const answer = await decide(call, { ...parameters, ...stored, now: unixNow() });
  if (answer.outcome === 'undecided') {
    const isOutdated = held && answer.found.number[0]?.credentials_version !== held.version;
    throw refusal(changes, parameters, answer.found) ?? notDone(isOutdated ? noCredentials : stored);
  }
  const { organization_id, credentials_version } = phoneNumberState.parse(JSON.parse(answer.event.state));
  if (decide !== decideKeeping && answer.outcome === 'decided' && credentials_version !== null) {
    const kv_key = credentialsKey(organization_id, given.phone_number_id, credentials_version);
    call.afterAnswer(() => purge(call.env, kv_key));
  }
  return answer.event;
}

/**
 * Stores the credentials that the number is to have, if they are new.
 *
 * @param held what the number has; undefined if both are given, and so nothing was read
 * @returns the batch that must decide, and where the credentials are that it makes live
 */
async function prepare(
  call: ApiCall,
  parameters: UpdateParameters,
  { sip_password, inbound_pin }: Changes,
  held: Held | undefined,
) {
  // Without an intent this batch decides nothing, but it finds what else stands against the call, or a first answer.
  if (held && !held.credentials) return { decide: decideReplacement, stored: noCredentials };
  const old = held?.credentials ?? {};
  const credentials = {
    sip_password: sip_password === undefined ? old['sip_password'] : (sip_password ?? undefined),
    inbound_pin: inbound_pin === undefined ? old['inbound_pin'] : (inbound_pin ?? undefined),
  };
  const count = Object.values(credentials).filter(isValue).length;
  const isNew = isValue(sip_password) || isValue(inbound_pin);
  if (held && !isNew && count === Object.keys(old).length) return { decide: decideKeeping, stored: noCredentials };
  if (count === 0) return { decide: decideRemoval, stored: noCredentials };
  return {
    decide: decideReplacement,
    stored: await storeCredentials(call, parameters, parameters.phone_number_id, credentials),
  };
}

/** Why a phone number was not updated, by what the batch found. */
function refusal(
  changes: Changes,
  { asked_version }: UpdateParameters,
  {
    number: [number],
    target: [target],
    unmatched,
    full,
    unconfirmedFull,
  }: {
    number: FoundNumber[];
    target: Target[];
    unmatched: unknown[];
    full: FullQuota[];
    unconfirmedFull: FullQuota[];
  },
): DomainError | undefined {
  if (!number) return new DomainError('phone_number_not_found', {});
  if (isValue(changes.integration_id) && !target) return new DomainError('integration_not_found', {});
  assertMatched(unmatched);
  const errors = [...integrationFaults(changes, number, target), ...sipFaults(changes, number)];
  if (errors.length > 0) return new DomainError('validation_failed', { errors });
  assertRoom(full);
  if (target && asked_version !== null && target.credentials_version !== asked_version) return notDone(noCredentials);
  if (target && number.ownership === 'confirmed') assertRoom(unconfirmedFull);
  return undefined;
}

export function integrationFaults(
  { integration_id }: Pick<Changes, 'integration_id'>,
  { provider }: Pick<FoundNumber, 'provider'>,
  target: { provider: Provider } | undefined,
): Fault[] {
  const path = 'integration_id';
  if (integration_id === null && provider !== 'sip') return [{ path, message: 'must not be null' }];
  return target && target.provider !== provider
    ? [{ path, message: "must be an integration of the phone number's provider" }]
    : [];
}

function sipFaults(changes: Changes, number: FoundNumber): Fault[] {
  if (number.provider !== 'sip') {
    return sipMembers
      .filter(([name]) => isValue(changes[name]))
      .map(([path]) => ({ path, message: 'is only for SIP numbers' }));
  }
  const nulls = sipMembers
    .filter(([name, nullable]) => !nullable && changes[name] === null)
    .map(([path]) => ({ path, message: 'must not be null' }));
  return [...nulls, ...serverFaults(changes, number), ...authenticationFaults(changes, number)];
}

export function serverFaults(
  { supports_outbound, sip_server_address }: Pick<Changes, 'supports_outbound' | 'sip_server_address'>,
  number: Pick<FoundNumber, 'supports_outbound' | 'sip_server_address'>,
): Fault[] {
  const isOutbound = supports_outbound ?? number.supports_outbound === 1;
  const server = sip_server_address === undefined ? number.sip_server_address : sip_server_address;
  if (!isOutbound || server !== null) return [];
  return sip_server_address === null
    ? [{ path: 'sip_server_address', message: 'must not be null if supports_outbound is true' }]
    : [{ path: 'supports_outbound', message: 'cannot be true for a SIP number without sip_server_address' }];
}

/** A number has a password exactly if it has a user. */
function authenticationFaults({ sip_username, sip_password }: Changes, number: FoundNumber): Fault[] {
  const hadBoth = number.sip_username !== null;
  const hasUser = sip_username === undefined ? hadBoth : sip_username !== null;
  const hasPassword = sip_password === undefined ? hadBoth : sip_password !== null;
  if (hasUser === hasPassword) return [];
  if (hasPassword) {
    return isValue(sip_password)
      ? [{ path: 'sip_username', message: 'is required if sip_password is given' }]
      : [{ path: 'sip_password', message: 'must be null if sip_username is null' }];
  }
  return hadBoth
    ? [{ path: 'sip_username', message: 'must be null if sip_password is null' }]
    : [{ path: 'sip_password', message: 'is required if sip_username is given' }];
}

const isValue = (given: unknown) => given !== undefined && given !== null;
