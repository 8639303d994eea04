import { and, eq, not, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import * as z from 'zod';
import { eventExists, eventParameters, eventRecorder } from '../decision/event.ts';
import type { EventParameters } from '../decision/event.ts';
import { isCallerWith } from '../decision/caller.ts';
import {
  beginAgain,
  credentialsWriter,
  intentStands,
  notDone,
  spendIntent,
  withdrawIntent,
} from '../credentials/store.ts';
import type { Operation } from '../env.ts';
import { idSchema, newId } from '../core/ids.ts';
import { findProvider, isIntegration } from '../integrations/integration.ts';
import { mediaEncryptions, providerNames } from '../core/vocabulary.ts';
import { mutation } from '../decision/mutation.ts';
import { assertRoom, fullQuota, hasRoomFor } from '../organizations/quotas.ts';
import { DomainError, invalid } from '../core/errors.ts';
import { existsIn, query, rowColumns } from '../d1/query.ts';
import type { Builder, Placeholders, RowParameters } from '../d1/query.ts';
import { api_keys, integrations, phone_numbers } from '../d1/schema.ts';
import type { Quota } from '../core/vocabulary.ts';
import { unixNow } from '../core/time.ts';
import { printableText } from '../core/text.ts';
import { e164, isPhoneNumber, phoneNumberState, presentPhoneNumber } from './phone-number.ts';
import type { PhoneNumber } from './phone-number.ts';

const anyNumber = () => ({
  phone_number: e164.meta({ description: 'E.164; unique in the whole system.' }),
  supports_inbound: z.boolean().default(false),
  supports_outbound: z.boolean().default(false),
});

const throughIntegration = z.lazy(() =>
  z.strictObject({
    ...anyNumber(),
    provider: z.enum(providerNames),
    integration_id: idSchema('intg').meta({ description: 'An integration of this organization and of that provider.' }),
  }),
);

const throughSip = z.lazy(() =>
  z
    .strictObject({
      ...anyNumber(),
      provider: z.literal('sip'),
      sip_trunk_name: printableText(1, 100).exactOptional(),
      sip_username: printableText(1, 100).exactOptional(),
      sip_password: printableText(1, 256)
        .exactOptional()
        .meta({ description: 'Kept as credentials are: in no answer.' }),
      sip_server_address: printableText(1, 255).exactOptional().meta({ description: 'Required for outbound.' }),
      inbound_room_name: printableText(1, 100).exactOptional(),
      inbound_pin: printableText(4, 10).exactOptional().meta({ description: 'Kept as credentials are: in no answer.' }),
      media_encryption: z.enum(mediaEncryptions).default('allow'),
    })
    .refine(({ supports_outbound, sip_server_address }) => !supports_outbound || sip_server_address !== undefined, {
      path: ['sip_server_address'],
      error: 'is required for outbound',
    })
    .meta({
      if: { required: ['supports_outbound'], properties: { supports_outbound: { const: true } } },
      // oxlint-disable-next-line unicorn/no-thenable -- JSON Schema's own word
      then: { required: ['sip_server_address'], properties: { sip_server_address: true } },
    }),
);

export const newPhoneNumber = z.discriminatedUnion('provider', [throughIntegration, throughSip], {
  error: ({ code }) => (code === 'invalid_union' ? 'must be sip or one of the providers' : undefined),
});

const quotas: Quota[] = ['phone_numbers', 'audit_events'];
const sipQuotas: Quota[] = [...quotas, 'sip_numbers'];

const hasRoom = (db: Builder, parameters: Placeholders<EventParameters>) => hasRoomFor(db, parameters, quotas);
const hasRoomForSip = (db: Builder, parameters: Placeholders<EventParameters>) => hasRoomFor(db, parameters, sipQuotas);

type ImportParameters = EventParameters & RowParameters<typeof phone_numbers> & { kv_key: string | null };

/** By any organization: a number is unique in the whole system. */
const isHeld = ({ phone_number }: Placeholders<{ phone_number: string }>) =>
  eq(phone_numbers.phone_number, phone_number);

const findHolder = query((db, parameters: Placeholders<{ phone_number: string }>) =>
  db
    .select({ taken: sql<number>`1`.as('taken') })
    .from(phone_numbers)
    .where(isHeld(parameters)),
);

const storeCredentials = credentialsWriter<EventParameters & { phone_number: string }>(
  'phone_numbers:create',
  (db, parameters) => sql`${hasRoomForSip(db, parameters)} AND ${not(existsIn(db, phone_numbers, isHeld(parameters)))}`,
);

/** Inserts the number if the caller may, and if what it needs stands; a number that exists is left alone. */
const insertNumberIf = (standing: (db: Builder, parameters: Placeholders<ImportParameters>) => SQL | undefined) =>
  query((db, parameters: Placeholders<ImportParameters>) =>
    db
      .insert(phone_numbers)
      .select(
        db
          .select(rowColumns(phone_numbers, parameters))
          .from(api_keys)
          .where(
            and(
              isCallerWith('phone_numbers:create', db, parameters),
              standing(db, parameters),
              not(eventExists(db, parameters)),
            ),
          ),
      )
      .onConflictDoNothing({ target: phone_numbers.phone_number }),
  );

const insertThroughIntegration = insertNumberIf((db, parameters) =>
  and(
    existsIn(db, integrations, and(isIntegration(parameters), eq(integrations.provider, parameters.provider))),
    hasRoom(db, parameters),
  ),
);
const insertSip = insertNumberIf(hasRoomForSip);
const insertSipWithCredentials = insertNumberIf((db, parameters) =>
  and(hasRoomForSip(db, parameters), intentStands(db, parameters)),
);

const recordImport = eventRecorder<ImportParameters>(
  phone_numbers,
  phone_numbers.phone_number_id,
  'phone_number.imported',
  (_, parameters) => isPhoneNumber(parameters),
);

const explain = { target: findProvider, holders: findHolder, full: fullQuota(quotas) };
const explainSip = { target: findProvider, holders: findHolder, full: fullQuota(sipQuotas) };

const decideThroughIntegration = mutation('phone_numbers:create', {
  explain,
  act: { insertThroughIntegration, recordImport },
});
const decideSip = mutation('phone_numbers:create', { explain: explainSip, act: { insertSip, recordImport } });
const decideSipWithCredentials = mutation<ImportParameters, typeof explainSip>('phone_numbers:create', {
  explain: explainSip,
  act: { insertSipWithCredentials, recordImport },
  settle: { withdrawIntent, spendIntent },
});

/**
 * Imports a phone number, through an integration or by SIP (contract.md, Phone numbers).
 *
 * One batch; before it, where there are SIP credentials, intent and ciphertext as in a create.
 *
 * @throws DomainError `validation_failed` for an integration of another provider, `integration_not_found`,
 *   `phone_number_exists`, `quota_exceeded`, and what any mutation does (mutation.ts)
 */
export async function importPhoneNumber(
  operation: Operation,
  request: z.output<typeof newPhoneNumber>,
): Promise<PhoneNumber> {
  const event = { ...eventParameters(operation), phone_number: request.phone_number };
  return beginAgain(() => attemptImport(operation, event, request));
}

async function attemptImport(
  operation: Operation,
  event: EventParameters & { phone_number: string },
  request: z.output<typeof newPhoneNumber>,
): Promise<PhoneNumber> {
  const phone_number_id = newId('phon');
  const { visible, credentials } = separateCredentials(request);
  const stored = credentials ? await storeCredentials(operation, event, phone_number_id, credentials) : noCredentials;

  const parameters = {
    ...event,
    now: unixNow(),
    phone_number_id,
    integration_id: null,
    status: 'free' as const,
    assigned_agent_id: null,
    sip_trunk_name: null,
    sip_username: null,
    sip_server_address: null,
    inbound_room_name: null,
    media_encryption: null,
    ...visible,
    supports_inbound: Number(visible.supports_inbound),
    supports_outbound: Number(visible.supports_outbound),
    ...stored,
    created_at: event.event_time,
    updated_at: event.event_time,
    revision: 1,
  };
  const decide =
    request.provider !== 'sip' ? decideThroughIntegration : credentials ? decideSipWithCredentials : decideSip;
  const { event: imported, found } = await decide(operation, parameters);
  if (imported) return presentPhoneNumber(phoneNumberState.parse(JSON.parse(imported.state)));

  if (request.provider !== 'sip') {
    const [target] = found.target;
    if (!target) throw new DomainError('integration_not_found', {});
    if (target.provider !== request.provider) {
      throw invalid('integration_id', 'must be an integration of the same provider');
    }
  }
  if (found.holders.length > 0) throw new DomainError('phone_number_exists', {});
  assertRoom(found.full);
  throw notDone(stored);
}

const noCredentials = { kv_key: null, credentials_version: null, data_key: null, kek_id: null };

function separateCredentials(request: z.output<typeof newPhoneNumber>) {
  if (request.provider !== 'sip') return { visible: request };
  const { sip_password, inbound_pin, ...visible } = request;
  if (sip_password === undefined && inbound_pin === undefined) return { visible };
  return { visible, credentials: { sip_password, inbound_pin } };
}
