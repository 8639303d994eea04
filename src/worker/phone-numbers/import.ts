import { and, eq, not, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { absent, onceTheRestIsRight, optional, withDefault } from '../core/fields.ts';
import { idSchema, newId } from '../core/ids.ts';
import { unixNow } from '../core/time.ts';
import { providerNames } from '../core/vocabulary.ts';
import type { Quota } from '../core/vocabulary.ts';
import { intentStands, spendIntent, withdrawIntent } from '../credentials/outbox.ts';
import type { IntentParameters } from '../credentials/outbox.ts';
import { beginAgain, credentialsWriter, notDone } from '../credentials/store.ts';
import { existsIn, rowColumns } from '../d1/columns.ts';
import type { RowParameters } from '../d1/columns.ts';
import { query } from '../d1/query.ts';
import type { Builder, Placeholders } from '../d1/query.ts';
import { organizations, phone_numbers } from '../d1/schema.ts';
import type { ApiCall } from '../decision/call.ts';
import { mayDecide } from '../decision/caller.ts';
import { eventRecorder, hasDecided } from '../decision/event.ts';
import { mutation, mutationParameters } from '../decision/mutation.ts';
import type { MutationParameters } from '../decision/mutation.ts';
import { isOrganization } from '../organizations/organization.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { e164 } from './e164.ts';
import { importNumbers } from './import-numbers.ts';
import { isPhoneNumber, noCredentials, phoneNumberState } from './phone-number.ts';
import type { PhoneNumberState } from './phone-number.ts';
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
    .check(
      z.refine(({ supports_outbound, sip_server_address }) => !supports_outbound || sip_server_address !== undefined, {
        path: ['sip_server_address'],
        error: 'is required if supports_outbound is true',
        ...onceTheRestIsRight,
      }),
      z.refine(({ sip_username, sip_password }) => sip_username === undefined || sip_password !== undefined, {
        path: ['sip_password'],
        error: 'is required if sip_username is given',
        ...onceTheRestIsRight,
      }),
      z.refine(({ sip_username, sip_password }) => sip_password === undefined || sip_username !== undefined, {
        path: ['sip_username'],
        error: 'is required if sip_password is given',
        ...onceTheRestIsRight,
      }),
    );
});

export const newPhoneNumber = z.discriminatedUnion('provider', [throughIntegration, throughSip]);

type NewPhoneNumber = z.output<typeof newPhoneNumber>;

const quotas: Quota[] = ['phone_numbers', 'audit_events', 'unconfirmed_numbers'];

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
  (db, parameters) => and(hasRoomFor(quotas), not(existsIn(db, phone_numbers, isHeld(parameters)))),
);

/** Makes the statement that inserts the number, if the caller may and `isReady` holds. An existing number is left alone. */
const insertNumberIf = (isReady?: (db: Builder, parameters: Placeholders<ImportParameters>) => SQL) =>
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
              hasRoomFor(quotas),
              isReady?.(db, parameters),
              not(hasDecided(db, parameters)),
            ),
          ),
      )
      .onConflictDoNothing({ target: phone_numbers.phone_number }),
  );

const recordImport = eventRecorder<ImportParameters>({
  table: phone_numbers,
  target_id: phone_numbers.phone_number_id,
  action: 'phone_number.imported',
  where: (_, parameters) => isPhoneNumber(parameters),
});

const found = { holders: findHolder, full: fullQuota(quotas) };

const decideSip = mutation('phone_numbers:create', { statements: [insertNumberIf(), recordImport], found });
const decideSipWithCredentials = mutation('phone_numbers:create', {
  statements: [insertNumberIf(intentStands), recordImport, withdrawIntent, spendIntent],
  found,
});

/**
 * Imports a phone number, through an integration (import-numbers.ts) or by SIP (docs/contract.md, Phone numbers).
 *
 * By SIP it takes one batch. If there are credentials, their intent and ciphertext come before it, as for a new
 * integration.
 *
 * @param verify whether the account of the integration is asked for the number
 * @throws DomainError `phone_number_exists`, `phone_number_not_in_account`, `quota_exceeded`, the errors of
 *   {@link importNumbers}, and those of every mutation (decision/mutation.ts)
 */
export async function importPhoneNumber(
  call: ApiCall,
  request: NewPhoneNumber,
  verify: boolean,
): Promise<PhoneNumberState> {
  const { phone_number } = request;
  if (request.provider === 'sip') {
    const event = { ...mutationParameters(call), phone_number };
    return beginAgain(() => importSip(call, event, request));
  }
  const outcomes = await importNumbers(call, { ...request, phone_numbers: [phone_number] }, verify, false);
  const outcome = outcomes.get(phone_number);
  if (!outcome || outcome instanceof DomainError) throw outcome;
  return outcome;
}

async function importSip(
  call: ApiCall,
  event: MutationParameters & { phone_number: string },
  request: z.output<typeof throughSip>,
): Promise<PhoneNumberState> {
  const phone_number_id = newId('phon');
  const credentials = credentialsOf(request);
  const stored = credentials ? await storeCredentials(call, event, phone_number_id, credentials) : noCredentials;

  const decide = credentials ? decideSipWithCredentials : decideSip;
  const answer = await decide(call, {
    ...event,
    now: unixNow(),
    phone_number_id,
    provider: 'sip',
    integration_id: null,
    status: 'free',
    assigned_agent_id: null,
    supports_inbound: Number(request.supports_inbound),
    supports_outbound: Number(request.supports_outbound),
    sip_trunk_name: request.sip_trunk_name ?? null,
    sip_username: request.sip_username ?? null,
    sip_server_address: request.sip_server_address ?? null,
    inbound_room_name: request.inbound_room_name ?? null,
    media_encryption: request.media_encryption,
    sip_transport: request.sip_transport,
    ...stored,
    created_at: event.event_time,
    updated_at: event.event_time,
    revision: 1,
    ownership: 'unconfirmed',
    ownership_due_at: null,
  });
  if (answer.outcome === 'undecided') {
    if (answer.found.holders.length > 0) throw new DomainError('phone_number_exists', {});
    assertRoom(answer.found.full);
    throw notDone(stored);
  }
  return phoneNumberState.parse(JSON.parse(answer.event.state));
}

function credentialsOf({ sip_password, inbound_pin }: z.output<typeof throughSip>) {
  return sip_password === undefined && inbound_pin === undefined ? undefined : { sip_password, inbound_pin };
}
