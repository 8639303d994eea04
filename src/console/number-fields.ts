/** The fields of a number that can be changed: their names, and how two states of them differ. */
import { nameIn } from './integrations.ts';
import type { ListedIntegration } from './integrations.ts';
import type { PhoneNumber } from './numbers.ts';
import { textOf } from './parts/form.tsx';
import { trunkOf } from './parts/sip.tsx';
import type { Api } from './session.ts';

type Put = Api['phone-numbers'][':phone_number_id']['$put'];
export type Changes = NonNullable<Parameters<Put>[0]['json']>;

export const trunkFields = [
  'sip_trunk_name',
  'sip_server_address',
  'sip_transport',
  'media_encryption',
  'sip_username',
  'inbound_room_name',
] as const;
/** What of a number can be changed and is shown. */
export const comparable = [
  'assigned_agent_id',
  'integration_id',
  'supports_inbound',
  'supports_outbound',
  ...trunkFields,
] as const;
export const secrets = ['sip_password', 'inbound_pin'] as const;
type Field = (typeof comparable)[number];

export const labels = {
  assigned_agent_id: 'Agent',
  integration_id: 'Integration',
  supports_inbound: 'Supports inbound calls',
  supports_outbound: 'Supports outbound calls',
  sip_trunk_name: 'Trunk name',
  sip_username: 'User name',
  sip_password: 'Password',
  sip_server_address: 'Server address',
  sip_transport: 'Transport',
  inbound_room_name: 'Inbound room name',
  inbound_pin: 'Inbound PIN',
  media_encryption: 'Media encryption',
};

function textFor(name: Field, value: Changes[Field], integrations: ListedIntegration[] | undefined): string {
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (name === 'integration_id' && value) return nameIn(integrations, value);
  return value ?? 'none';
}

/** The fields of which two sides say something else. */
export function differences(
  fields: readonly Field[],
  mine: Changes,
  theirs: PhoneNumber,
  integrations: ListedIntegration[] | undefined,
) {
  return fields
    .filter((name) => mine[name] !== theirs[name])
    .map((name) => ({
      name: labels[name],
      mine: textFor(name, mine[name], integrations),
      theirs: textFor(name, theirs[name], integrations),
    }));
}

/** What differs from the number as it is. A secret is changed if it is given. */
export function changesOf(values: FormData, number: PhoneNumber): Changes {
  const { sip_password, inbound_pin, ...trunk } = trunkOf(values);
  const changes: Changes = {
    assigned_agent_id: textOf(values, 'assigned_agent_id').trim() || null,
    supports_inbound: values.has('supports_inbound'),
    supports_outbound: values.has('supports_outbound'),
    ...(number.provider === 'sip' ? trunk : { integration_id: textOf(values, 'integration_id') }),
    ...(sip_password !== null || values.has('without_user') ? { sip_password } : {}),
    ...(inbound_pin !== null || values.has('without_pin') ? { inbound_pin } : {}),
  };
  for (const name of comparable) if (changes[name] === number[name]) delete changes[name];
  return changes;
}
