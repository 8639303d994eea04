import { and, eq } from 'drizzle-orm';
import * as z from 'zod/mini';
import { toIso } from '../core/time.ts';
import { mediaEncryptions, ownerships, phoneNumberStatuses, providerNames, sipTransports } from '../core/vocabulary.ts';
import { columnsOf } from '../d1/columns.ts';
import type { Placeholders } from '../d1/query.ts';
import { phone_numbers } from '../d1/schema.ts';
import { changesOf } from '../decision/event.ts';
import type { Decision } from '../decision/mutation.ts';
import { entityTag } from '../http/entity-tags.ts';

const fields = () => ({
  phone_number_id: z.string(),
  organization_id: z.string(),
  integration_id: z.nullable(z.string()),
  phone_number: z.string(),
  provider: z.enum([...providerNames, 'sip']),
  status: z.enum(phoneNumberStatuses),
  assigned_agent_id: z.nullable(z.string()),
  /** 0 or 1. */
  supports_inbound: z.int(),
  supports_outbound: z.int(),
  sip_trunk_name: z.nullable(z.string()),
  sip_username: z.nullable(z.string()),
  sip_server_address: z.nullable(z.string()),
  /** The events of earlier versions lack it. */
  sip_transport: z._default(z.nullable(z.enum(sipTransports)), null),
  inbound_room_name: z.nullable(z.string()),
  media_encryption: z.nullable(z.enum(mediaEncryptions)),
  credentials_version: z.nullable(z.string()),
  created_at: z.int(),
  updated_at: z.int(),
  /** The events of earlier versions lack the next two. */
  revision: z._default(z.int(), 1),
  ownership: z._default(z.enum(ownerships), 'unconfirmed'),
});

/** A phone number as it is in the `state` of its audit events. */
export const phoneNumberState = z.lazy(() => z.object(fields()));

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
export const phoneNumberColumns = () => {
  const { credentials_version: _, ...shown } = fields();
  return columnsOf(phone_numbers, shown);
};

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
    supports_inbound: state.supports_inbound === 1,
    supports_outbound: state.supports_outbound === 1,
    sip_trunk_name: state.sip_trunk_name,
    sip_username: state.sip_username,
    sip_server_address: state.sip_server_address,
    sip_transport: state.sip_transport ?? (state.provider === 'sip' ? ('auto' as const) : null),
    inbound_room_name: state.inbound_room_name,
    media_encryption: state.media_encryption,
    ownership: state.ownership,
    created_at: toIso(state.created_at),
    updated_at: toIso(state.updated_at),
  };
}

/** A phone number as the update left it that this event records. */
export function updatedState(event: Decision): PhoneNumberState {
  const before = phoneNumberState.parse(JSON.parse(event.state));
  const after = phoneNumberState.parse({ ...JSON.parse(event.state), ...changesOf(event) });
  return {
    ...after,
    updated_at: Math.max(before.updated_at, event.created_at),
    revision: before.revision + 1,
  };
}

/** The ETag of a phone number. Nothing of it changes without its revision. */
export const tagOf = ({ revision }: PhoneNumberState) => entityTag(revision, 0);

export type PhoneNumber = ReturnType<typeof presentPhoneNumber>;
