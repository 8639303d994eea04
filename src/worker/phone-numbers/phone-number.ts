import { and, eq } from 'drizzle-orm';
import * as z from 'zod';
import { toIso } from '../core/time.ts';
import { mediaEncryptions, phoneNumberStatuses, providerNames, sipTransports } from '../core/vocabulary.ts';
import { columnsOf } from '../d1/columns.ts';
import type { Placeholders } from '../d1/query.ts';
import { phone_numbers } from '../d1/schema.ts';

export const e164 = z
  .string()
  .regex(/^\+[1-9]\d{6,14}$/, 'must be in E.164 format: + and 7 to 15 digits, the first of them not 0');

const sqliteBoolean = () => z.int().transform(Boolean);

/** A phone number as it is in the `state` of its audit events. */
export const phoneNumberState = z.lazy(() =>
  z.object({
    phone_number_id: z.string(),
    organization_id: z.string(),
    integration_id: z.string().nullable(),
    phone_number: z.string(),
    provider: z.enum([...providerNames, 'sip']),
    status: z.enum(phoneNumberStatuses),
    assigned_agent_id: z.string().nullable(),
    supports_inbound: sqliteBoolean(),
    supports_outbound: sqliteBoolean(),
    sip_trunk_name: z.string().nullable(),
    sip_username: z.string().nullable(),
    sip_server_address: z.string().nullable(),
    /** The events of earlier versions lack it. */
    sip_transport: z.enum(sipTransports).nullable().default(null),
    inbound_room_name: z.string().nullable(),
    media_encryption: z.enum(mediaEncryptions).nullable(),
    credentials_version: z.string().nullable(),
    created_at: z.int(),
    updated_at: z.int(),
  }),
);

export type PhoneNumberState = Omit<z.output<typeof phoneNumberState>, 'credentials_version'>;

interface PhoneNumberParameters {
  organization_id: string;
  phone_number_id: string;
}

/** Selects one phone number of one organization. */
export const isPhoneNumber = ({ organization_id, phone_number_id }: Placeholders<PhoneNumberParameters>) =>
  and(eq(phone_numbers.phone_number_id, phone_number_id), eq(phone_numbers.organization_id, organization_id));

/** In place of where credentials are stored, for a number that has none. */
export const noCredentials = { kv_key: null, credentials_version: null, data_key: null, kek_id: null };

/** The columns that {@link presentPhoneNumber} needs. */
export const phoneNumberColumns = () =>
  columnsOf(phone_numbers, phoneNumberState.unwrap().omit({ credentials_version: true }));

/** A phone number as clients see it, without its credentials. Members that its provider does not have are null. */
export function presentPhoneNumber(state: PhoneNumberState) {
  return {
    phone_number_id: state.phone_number_id,
    client_id: state.organization_id,
    phone_number: state.phone_number,
    provider: state.provider,
    integration_id: state.integration_id,
    status: state.status,
    assigned_agent_id: state.assigned_agent_id,
    supports_inbound: state.supports_inbound,
    supports_outbound: state.supports_outbound,
    sip_trunk_name: state.sip_trunk_name,
    sip_username: state.sip_username,
    sip_server_address: state.sip_server_address,
    sip_transport: state.sip_transport ?? (state.provider === 'sip' ? ('auto' as const) : null),
    inbound_room_name: state.inbound_room_name,
    media_encryption: state.media_encryption,
    created_at: toIso(state.created_at),
    updated_at: toIso(state.updated_at),
  };
}

export type PhoneNumber = ReturnType<typeof presentPhoneNumber>;
