import * as z from 'zod';
import { mediaEncryptions, phoneNumberStatuses, providerNames, sipTransports } from '../worker/core/vocabulary.ts';
import { throughIntegration, throughSip } from '../worker/phone-numbers/import.ts';
import { presentPhoneNumber } from '../worker/phone-numbers/phone-number.ts';
import type { PhoneNumber } from '../worker/phone-numbers/phone-number.ts';
import { phoneNumberChanges } from '../worker/phone-numbers/update.ts';
import { described, named } from './json-schema.ts';
import { action, agentId, entity, id, page, time } from './operation.ts';
import type { Operations } from './operation.ts';

named('NewProviderNumber', throughIntegration, 'Through an integration');
named('NewSipNumber', throughSip, 'By SIP');

const onlyForSip = 'Only a SIP number has it.';
const numberSentence = 'In E.164 format. No two organizations can have the same number.';
const credentialSentence = 'A credential: no answer contains it.';

described(throughIntegration, {
  phone_number: numberSentence,
  integration_id: 'An integration of this organization and of the same provider.',
});
described(throughSip, {
  phone_number: numberSentence,
  sip_username: 'Required if `sip_password` is given. Without both, the trunk has no authentication.',
  sip_password: `Required if \`sip_username\` is given. ${credentialSentence}`,
  sip_server_address:
    'A host name, an IPv4 address or an [IPv6] address, with or without a port. Required if `supports_outbound` is true.',
  inbound_pin: credentialSentence,
});
described(phoneNumberChanges, {
  integration_id:
    'Moves the number to this integration, which must be of the same organization and provider. Only a SIP number can have null.',
  assigned_agent_id: 'The agent that the number is assigned to; null unassigns it.',
  sip_trunk_name: onlyForSip,
  sip_username: `${onlyForSip} Null together with \`sip_password\`: the trunk has no authentication.`,
  sip_password: `${onlyForSip} ${credentialSentence}`,
  sip_server_address: `${onlyForSip} It cannot be null if \`supports_outbound\` is true.`,
  sip_transport: `${onlyForSip} Of a SIP number it cannot be null.`,
  inbound_room_name: onlyForSip,
  inbound_pin: `${onlyForSip} ${credentialSentence}`,
  media_encryption: `${onlyForSip} Of a SIP number it cannot be null.`,
});

const tag = 'Phone numbers';

const ofSip = { description: 'SIP numbers only, otherwise null.' };

export const phoneNumberSchema = z
  .object({
    phone_number_id: id('phon'),
    client_id: z.string().meta({ description: 'The organization.' }),
    phone_number: z.string().regex(/^\+[1-9]\d{6,14}$/),
    provider: z.enum([...providerNames, 'sip']),
    integration_id: id('intg').nullable().meta({ description: 'Null for a SIP number.' }),
    status: z.enum(phoneNumberStatuses),
    assigned_agent_id: agentId.nullable(),
    supports_inbound: z.boolean(),
    supports_outbound: z.boolean(),
    sip_trunk_name: z.string().nullable().meta(ofSip),
    sip_username: z.string().nullable().meta(ofSip),
    sip_server_address: z.string().nullable().meta(ofSip),
    sip_transport: z.enum(sipTransports).nullable().meta(ofSip),
    inbound_room_name: z.string().nullable().meta(ofSip),
    media_encryption: z.enum(mediaEncryptions).nullable().meta(ofSip),
    created_at: time,
    updated_at: time,
  })
  .meta({
    id: 'PhoneNumber',
    title: 'Phone number',
    description: 'A phone number. `sip_password` and `inbound_pin` are credentials: no answer contains them.',
  }) satisfies z.ZodType<PhoneNumber>;

export const phoneNumberExample = presentPhoneNumber({
  phone_number_id: 'phon_a1b2c3d4e5f6',
  organization_id: 'org_abc123',
  phone_number: '+1234567890',
  provider: 'twilio',
  integration_id: 'intg_a1b2c3d4e5f6',
  status: 'free',
  assigned_agent_id: null,
  supports_inbound: true,
  supports_outbound: false,
  sip_trunk_name: null,
  sip_username: null,
  sip_server_address: null,
  sip_transport: null,
  inbound_room_name: null,
  media_encryption: null,
  created_at: 1_705_314_600,
  updated_at: 1_705_314_600,
});

export const phoneNumberOperations: Operations = {
  'POST /api/phone-numbers': {
    operationId: 'importPhoneNumber',
    tag,
    summary: 'Import a phone number',
    description:
      'Imports through an integration of the number’s provider, or by SIP. No two organizations can have the same number.',
    body: {
      name: 'NewPhoneNumber',
      examples: {
        twilio: {
          phone_number: phoneNumberExample.phone_number,
          provider: 'twilio',
          integration_id: 'intg_a1b2c3d4e5f6',
          supports_inbound: true,
        },
        sip: {
          phone_number: '+12345678901',
          provider: 'sip',
          supports_inbound: true,
          supports_outbound: true,
          sip_trunk_name: 'Front desk',
          sip_username: 'frontdesk',
          sip_password: 'your-sip-password',
          sip_server_address: 'sip.example.com',
          sip_transport: 'tls',
          inbound_pin: '4711',
          media_encryption: 'require',
        },
      },
    },
    answer: action(201, 'Phone number imported successfully with twilio', phoneNumberSchema, phoneNumberExample),
    problems: ['integration_not_found', 'phone_number_exists', 'quota_exceeded'],
  },
  'GET /api/phone-numbers': {
    operationId: 'listPhoneNumbers',
    tag,
    summary: 'List phone numbers',
    description: 'By number, ascending.',
    answer: page(phoneNumberSchema, phoneNumberExample),
  },
  'GET /api/phone-numbers/{phone_number_id}': {
    operationId: 'getPhoneNumber',
    tag,
    summary: 'Get a phone number',
    answer: entity(phoneNumberSchema, phoneNumberExample),
    problems: ['phone_number_not_found'],
  },
  'PUT /api/phone-numbers/{phone_number_id}': {
    operationId: 'updatePhoneNumber',
    tag,
    summary: 'Update a phone number',
    description:
      'Moves the number to another integration, changes what it supports, assigns it to an agent or unassigns it, or ' +
      'changes its SIP trunk. `status` follows `assigned_agent_id`. A new `sip_password` or `inbound_pin` replaces the old ' +
      'one, which cannot be read any more, and leaves the other as it is.',
    body: {
      name: 'PhoneNumberChanges',
      examples: {
        reassign: { integration_id: 'intg_0f1e2d3c4b5a' },
        supports: { supports_inbound: true, supports_outbound: true },
        assign: { assigned_agent_id: 'agent_a1b2c3d4e5f6' },
        unassign: { assigned_agent_id: null },
        newPassword: { sip_password: 'your-new-sip-password' },
        trunk: { sip_server_address: 'sip.example.com:5061', sip_transport: 'tls', media_encryption: 'require' },
        withoutAuthentication: { sip_username: null, sip_password: null },
      },
    },
    answer: action(200, 'Phone number updated successfully', phoneNumberSchema, phoneNumberExample),
    problems: ['phone_number_not_found', 'integration_not_found', 'quota_exceeded'],
  },
  'DELETE /api/phone-numbers/{phone_number_id}': {
    operationId: 'deletePhoneNumber',
    tag,
    summary: 'Delete a phone number',
    description: 'Deletes the number and its SIP credentials. Refused while it is assigned to an agent.',
    answer: action(200, 'Phone number deleted successfully', phoneNumberSchema, phoneNumberExample),
    problems: ['phone_number_not_found', 'phone_number_assigned'],
  },
};
