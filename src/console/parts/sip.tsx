import { mediaEncryptions, sipTransports } from '../../worker/core/vocabulary.ts';
import { sipFields } from '../../worker/phone-numbers/sip-trunk.ts';
import type { PhoneNumber } from '../numbers.ts';
import { faultBy, oneOf } from '../rules.ts';
import { useState } from '../state.ts';
import { asOptions, CheckField, SelectField, textOf, TextField } from './form.tsx';

const rules = sipFields();

/** The fields of a SIP number's trunk. @param number the one that is edited, if one is */
export function SipFields({ number }: { number?: PhoneNumber }) {
  const [isWithoutUser, setWithoutUser] = useState(false);
  const [isWithoutPin, setWithoutPin] = useState(false);
  const kept = number ? 'Empty keeps the present one. It is never shown.' : 'It is never shown again.';
  return (
    <>
      <TextField
        name="sip_trunk_name"
        label="Trunk name"
        value={number?.sip_trunk_name ?? ''}
        check={faultBy(rules.sip_trunk_name)}
      />
      <TextField
        name="sip_server_address"
        label="Server address"
        value={number?.sip_server_address ?? ''}
        hint="A host name or address, and perhaps a port: sip.example.com:5061. Outbound calls need it."
        check={faultBy(rules.sip_server_address)}
      />
      <SelectField
        name="sip_transport"
        label="Transport"
        options={asOptions(sipTransports)}
        value={number?.sip_transport ?? 'auto'}
      />
      <SelectField
        name="media_encryption"
        label="Media encryption"
        options={asOptions(mediaEncryptions)}
        value={number?.media_encryption ?? 'allow'}
      />
      {number && number.sip_username !== null && (
        <CheckField
          name="without_user"
          label="Remove the user name and the password"
          hint="The trunk then asks for no authentication."
          onChoose={setWithoutUser}
        />
      )}
      <TextField
        name="sip_username"
        label="User name"
        value={number?.sip_username ?? ''}
        hint="With a password, or neither of them."
        isDisabled={isWithoutUser}
        check={faultBy(rules.sip_username)}
      />
      <TextField
        name="sip_password"
        type="password"
        label="Password"
        hint={kept}
        isDisabled={isWithoutUser}
        check={faultBy(rules.sip_password)}
      />
      <TextField
        name="inbound_room_name"
        label="Inbound room name"
        value={number?.inbound_room_name ?? ''}
        check={faultBy(rules.inbound_room_name)}
      />
      <TextField
        name="inbound_pin"
        type="password"
        label="Inbound PIN"
        hint={`4 to 10 digits. ${kept}`}
        isDisabled={isWithoutPin}
        check={faultBy(rules.inbound_pin)}
      />
      {number && (
        <CheckField name="without_pin" label="Remove the inbound PIN, if there is one" onChoose={setWithoutPin} />
      )}
    </>
  );
}

/** What the fields say. What is empty is null; also the secrets, which are empty where they stay as they are. */
export function trunkOf(values: FormData) {
  const text = (name: string) => textOf(values, name) || null;
  return {
    sip_trunk_name: text('sip_trunk_name'),
    sip_username: text('sip_username'),
    sip_password: text('sip_password'),
    sip_server_address: text('sip_server_address'),
    sip_transport: oneOf(sipTransports, text('sip_transport')) ?? null,
    inbound_room_name: text('inbound_room_name'),
    inbound_pin: text('inbound_pin'),
    media_encryption: oneOf(mediaEncryptions, text('media_encryption')) ?? null,
  };
}
