import { and, eq, not, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import * as z from 'zod';
import { DomainError, invalid } from '../core/errors.ts';
import { absent, onceTheRestIsRight, optional, withDefault } from '../core/fields.ts';
import { idSchema, newId } from '../core/ids.ts';
import { unixNow } from '../core/time.ts';
import { providerNames } from '../core/vocabulary.ts';
import type { Provider, Quota } from '../core/vocabulary.ts';
import { intentStands, spendIntent, withdrawIntent } from '../credentials/outbox.ts';
import type { IntentParameters } from '../credentials/outbox.ts';
import { beginAgain, credentialsWriter, notDone } from '../credentials/store.ts';
import { existsIn, rowColumns } from '../d1/columns.ts';
import type { RowParameters } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { integrations, organizations, phone_numbers } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { mayDecide } from '../decision/caller.ts';
import { eventRecorder, hasDecided } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { findProvider, isIntegration } from '../integrations/integration.ts';
import { isOrganization } from '../organizations/organization.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import type { FullQuota } from '../organizations/quotas.ts';
import { e164, isPhoneNumber, noCredentials, phoneNumberState, presentPhoneNumber } from './phone-number.ts';
import type { PhoneNumber } from './phone-number.ts';
import { sipFields } from './sip-trunk.ts';

const anyNumber = () => ({
  phone_number: e164,
  supports_inbound: withDefault(z.boolean(), false),
  supports_outbound: withDefault(z.boolean(), false),
});

const forSip = () => absent('is only for SIP numbers');

export const throughIntegration = z.lazy(() =>
  z.strictObject({
    ...anyNumber(),
    provider: z.enum(providerNames),
    integration_id: idSchema('intg'),
    sip_trunk_name: forSip(),
    sip_username: forSip(),
    sip_password: forSip(),
    sip_server_address: forSip(),
    sip_transport: forSip(),
    inbound_room_name: forSip(),
    inbound_pin: forSip(),
    media_encryption: forSip(),
  }),
);

export const throughSip = z.lazy(() => {
  const fields = sipFields();
  return z
    .strictObject({
      ...anyNumber(),
      provider: z.literal('sip'),
      integration_id: absent('must not be given for a SIP number'),
      sip_trunk_name: optional(fields.sip_trunk_name),
      sip_username: optional(fields.sip_username),
      sip_password: optional(fields.sip_password),
      sip_server_address: optional(fields.sip_server_address),
      sip_transport: withDefault(fields.sip_transport, 'auto'),
      inbound_room_name: optional(fields.inbound_room_name),
      inbound_pin: optional(fields.inbound_pin),
      media_encryption: withDefault(fields.media_encryption, 'allow'),
    })
    .refine(({ supports_outbound, sip_server_address }) => !supports_outbound || sip_server_address !== undefined, {
      path: ['sip_server_address'],
      error: 'is required if supports_outbound is true',
      ...onceTheRestIsRight,
    })
    .refine(({ sip_username, sip_password }) => sip_username === undefined || sip_password !== undefined, {
      path: ['sip_password'],
      error: 'is required if sip_username is given',
      ...onceTheRestIsRight,
    })
    .refine(({ sip_username, sip_password }) => sip_password === undefined || sip_username !== undefined, {
      path: ['sip_username'],
      error: 'is required if sip_password is given',
      ...onceTheRestIsRight,
    });
});

export const newPhoneNumber = z.discriminatedUnion('provider', [throughIntegration, throughSip]);

type NewPhoneNumber = z.output<typeof newPhoneNumber>;

const quotas: Quota[] = ['phone_numbers', 'audit_events'];
const sipQuotas: Quota[] = [...quotas, 'sip_numbers'];

type ImportParameters = MutationParameters & RowParameters<typeof phone_numbers> & IntentParameters;

/** Predicate: some organization has this number. A number is unique in the whole system. */
const isHeld = ({ phone_number }: Placeholders<{ phone_number: string }>) =>
  eq(phone_numbers.phone_number, phone_number);

const findHolder = query((db, parameters: Placeholders<{ phone_number: string }>) =>
  db
    .select({ taken: sql<number>`1`.as('taken') })
    .from(phone_numbers)
    .where(isHeld(parameters)),
);

const storeCredentials = credentialsWriter<MutationParameters & { phone_number: string }>(
  'phone_numbers:create',
  (db, parameters) => and(hasRoomFor(sipQuotas), not(existsIn(db, phone_numbers, isHeld(parameters)))),
);

/**
 * Makes the statement that inserts the number, if the caller may and `isReady` holds. An existing number is left alone.
 */
const insertNumberIf = (isReady: (db: Builder, parameters: Placeholders<ImportParameters>) => SQL | undefined) =>
  query((db, parameters: Placeholders<ImportParameters>) =>
    db
      .insert(phone_numbers)
      .select(
        db
          .select(rowColumns(phone_numbers, parameters))
          .from(organizations)
          .where(
            and(
              isOrganization(parameters),
              mayDecide('phone_numbers:create', db, parameters),
              isReady(db, parameters),
              not(hasDecided(db, parameters)),
            ),
          ),
      )
      .onConflictDoNothing({ target: phone_numbers.phone_number }),
  );

const insertThroughIntegration = insertNumberIf((db, parameters) =>
  and(
    existsIn(db, integrations, and(isIntegration(parameters), eq(integrations.provider, parameters.provider))),
    hasRoomFor(quotas),
  ),
);
const insertSip = insertNumberIf(() => hasRoomFor(sipQuotas));
const insertSipWithCredentials = insertNumberIf((db, parameters) =>
  and(hasRoomFor(sipQuotas), intentStands(db, parameters)),
);

const recordImport = eventRecorder<ImportParameters>({
  table: phone_numbers,
  target_id: phone_numbers.phone_number_id,
  action: 'phone_number.imported',
  where: (_, parameters) => isPhoneNumber(parameters),
});

const found = { target: findProvider, holders: findHolder, full: fullQuota(quotas) };
const foundOfSip = { ...found, full: fullQuota(sipQuotas) };

const decideThroughIntegration = mutation('phone_numbers:create', {
  statements: [insertThroughIntegration, recordImport],
  found,
});
const decideSip = mutation('phone_numbers:create', { statements: [insertSip, recordImport], found: foundOfSip });
const decideSipWithCredentials = mutation('phone_numbers:create', {
  statements: [insertSipWithCredentials, recordImport, withdrawIntent, spendIntent],
  found: foundOfSip,
});

/**
 * Imports a phone number, through an integration or by SIP (docs/contract.md, Phone numbers).
 *
 * It takes one batch. If there are SIP credentials, their intent and ciphertext come before it, as for a new
 * integration.
 *
 * @throws DomainError `validation_failed` for an integration of another provider, `integration_not_found`,
 *   `phone_number_exists`, `quota_exceeded`, and the errors of every mutation (decision/mutation.ts)
 */
export async function importPhoneNumber(call: ApiCall, request: NewPhoneNumber): Promise<PhoneNumber> {
  const event = { ...mutationParameters(call), phone_number: request.phone_number };
  return beginAgain(() => attemptImport(call, event, request));
}

async function attemptImport(
  call: ApiCall,
  event: MutationParameters & { phone_number: string },
  request: NewPhoneNumber,
): Promise<PhoneNumber> {
  const phone_number_id = newId('phon');
  const credentials = credentialsOf(request);
  const stored = credentials ? await storeCredentials(call, event, phone_number_id, credentials) : noCredentials;

  const parameters = {
    ...event,
    now: unixNow(),
    phone_number_id,
    provider: request.provider,
    integration_id: request.integration_id ?? null,
    status: 'free' as const,
    assigned_agent_id: null,
    supports_inbound: Number(request.supports_inbound),
    supports_outbound: Number(request.supports_outbound),
    sip_trunk_name: request.sip_trunk_name ?? null,
    sip_username: request.sip_username ?? null,
    sip_server_address: request.sip_server_address ?? null,
    inbound_room_name: request.inbound_room_name ?? null,
    media_encryption: request.media_encryption ?? null,
    sip_transport: request.sip_transport ?? null,
    ...stored,
    created_at: event.event_time,
    updated_at: event.event_time,
    revision: 1,
  };
  const decide =
    request.provider !== 'sip' ? decideThroughIntegration : credentials ? decideSipWithCredentials : decideSip;
  const answer = await decide(call, parameters);
  if (answer.outcome === 'undecided') throw refusal(request, answer.found) ?? notDone(stored);
  return presentPhoneNumber(phoneNumberState.parse(JSON.parse(answer.event.state)));
}

/** Why a phone number was not imported, by what the batch found. */
function refusal(
  request: NewPhoneNumber,
  { target: [target], holders, full }: { target: { provider: Provider }[]; holders: object[]; full: FullQuota[] },
): DomainError | undefined {
  if (request.provider !== 'sip') {
    if (!target) return new DomainError('integration_not_found', {});
    if (target.provider !== request.provider) {
      return invalid('integration_id', "must be an integration of the phone number's provider");
    }
  }
  if (holders.length > 0) return new DomainError('phone_number_exists', {});
  assertRoom(full);
  return undefined;
}

function credentialsOf({ sip_password, inbound_pin }: NewPhoneNumber) {
  return sip_password === undefined && inbound_pin === undefined ? undefined : { sip_password, inbound_pin };
}
