import { toIso } from '../time.ts';
import type { phone_numbers } from '../schema.ts';

type PhoneNumberRow = typeof phone_numbers.$inferSelect;

/** A phone number's row without what leads to its credentials. */
export type PhoneNumberState = Omit<PhoneNumberRow, 'data_key' | 'kek_id' | 'credentials_version'>;

/** A phone number as clients see it: without its credentials, and with null for what its provider does not have. */
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
    inbound_room_name: state.inbound_room_name,
    media_encryption: state.media_encryption,
    created_at: toIso(state.created_at),
    updated_at: toIso(state.updated_at),
  };
}

export type PhoneNumber = ReturnType<typeof presentPhoneNumber>;
