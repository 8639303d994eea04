import * as z from 'zod';
import { DomainError } from '../worker/core/errors.ts';
import {
  mediaEncryptions,
  ownerships,
  phoneNumberStatuses,
  providerNames,
  sipTransports,
} from '../worker/core/vocabulary.ts';
import { detailOf } from '../worker/http/problem.ts';
import { bulkDeletion } from '../worker/phone-numbers/bulk-delete.ts';
import { bulkChanges } from '../worker/phone-numbers/bulk-update.ts';
import { newPhoneNumbers } from '../worker/phone-numbers/bulk.ts';
import { throughIntegration, throughSip } from '../worker/phone-numbers/import.ts';
import { presentPhoneNumber } from '../worker/phone-numbers/phone-number.ts';
import type { PhoneNumber } from '../worker/phone-numbers/phone-number.ts';
import { phoneNumbersQuery } from '../worker/phone-numbers/read.ts';
import { bulkQuery, ownershipQuery } from '../worker/phone-numbers/routes.ts';
import { phoneNumberChanges } from '../worker/phone-numbers/update.ts';
import { deletionResultsSchema, doneResult, updateResultsSchema } from './act-results.ts';
import { importResultsSchema } from './import-results.ts';
import { described, named, separated } from './json-schema.ts';
import { action, agentId, entity, id, page, time } from './operation.ts';
import type { Operations } from './operation.ts';

described(ownershipQuery, {
  verify:
    'Whether the account of the integration is asked if it holds the number. `true` if it is absent; with `false` the number ' +
    'is unconfirmed.',
});
const alone = 'Goes with `phone_number` or `phone_number_prefix`, and without `phone_number` with no other filter.';
described(phoneNumbersQuery, {
  phone_number: 'This number. In a URL, `+` is written `%2B`.',
  phone_number_prefix: 'What the numbers begin with. In a URL, `+` is written `%2B`. Not with `phone_number`.',
  provider: alone,
  assigned_agent_id: alone,
});
described(bulkQuery, {
  verify:
    'Whether the account is asked about numbers that move to another account. `true` if it is absent; with `false` they are ' +
    'unconfirmed. A deletion asks nobody.',
  dry_run: 'With `true` nothing is done, and the answer says what would be. `false` if it is absent.',
});
const selection = {
  phone_number_ids: 'The numbers with these ids, none twice. Either this or `integration_id` is given.',
  integration_id: 'All numbers of this integration, at most 10,000. Either this or `phone_number_ids` is given.',
};
described(bulkChanges, {
  ...selection,
  set: 'What all of them are to have. What is absent stays as it is.',
});
described(bulkDeletion, selection);
separated(bulkChanges, [
  { id: 'ChangesByIds', title: 'Of numbers by their ids', required: ['phone_number_ids'] },
  { id: 'ChangesOfIntegration', title: 'Of the numbers of an integration', required: ['integration_id'] },
]);
separated(bulkDeletion, [
  { id: 'DeletionByIds', title: 'Of numbers by their ids', required: ['phone_number_ids'] },
  { id: 'DeletionOfIntegration', title: 'Of the numbers of an integration', required: ['integration_id'] },
]);
described(newPhoneNumbers, {
  phone_numbers: 'In E.164 format. A number that is given twice is imported once.',
  supports_inbound: 'Of all these numbers.',
  supports_outbound: 'Of all these numbers.',
});
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
    ownership: z.enum(ownerships).meta({
      description:
        '`confirmed`: the account of the integration holds the number. `unconfirmed`: it was not asked, could not say, or ' +
        'does not hold it any more. A SIP number is unconfirmed.',
    }),
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
  supports_inbound: 1,
  supports_outbound: 0,
  sip_trunk_name: null,
  sip_username: null,
  sip_server_address: null,
  sip_transport: null,
  inbound_room_name: null,
  media_encryption: null,
  ownership: 'confirmed',
  created_at: 1_705_314_600,
  updated_at: 1_705_314_600,
  revision: 1,
});

export const phoneNumberOperations: Operations = {
  'POST /api/phone-numbers': {
    operationId: 'importPhoneNumber',
    tag,
    summary: 'Import a phone number',
    description:
      'Imports through an integration of the number’s provider, or by SIP. The account of the integration is asked whether it ' +
      'holds the number. No two organizations can have the same number: one that the account holds is taken from an ' +
      'organization that has it unconfirmed.',
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
    headers: ['ETag'],
    problems: [
      'integration_not_found',
      'phone_number_exists',
      'quota_exceeded',
      'credentials_missing',
      'phone_number_not_in_account',
      'credentials_refused',
      'verification_limited',
    ],
  },
  'POST /api/phone-numbers/bulk': {
    operationId: 'importPhoneNumbers',
    tag,
    summary: 'Import phone numbers',
    description:
      'Imports up to 100 numbers through an integration, each of them wholly or not at all, and says what came of each. A ' +
      'repeat under the same `Idempotency-Key` gives the same answer for those that were imported, and tries the others again.',
    body: {
      name: 'NewPhoneNumbers',
      examples: {
        two: {
          integration_id: 'intg_a1b2c3d4e5f6',
          phone_numbers: [phoneNumberExample.phone_number, '+12345678901'],
          supports_inbound: true,
        },
      },
    },
    answer: action(200, '1 of 2 phone numbers imported successfully', importResultsSchema, {
      results: [
        {
          phone_number: phoneNumberExample.phone_number,
          status: 'imported',
          phone_number_id: phoneNumberExample.phone_number_id,
          code: null,
          detail: null,
        },
        {
          phone_number: '+12345678901',
          status: 'failed',
          phone_number_id: null,
          code: 'phone_number_exists',
          detail: detailOf(new DomainError('phone_number_exists', {})),
        },
      ],
    }),
    problems: [
      'integration_not_found',
      'quota_exceeded',
      'credentials_missing',
      'phone_numbers_not_imported',
      'credentials_refused',
      'verification_limited',
    ],
  },
  'POST /api/phone-numbers/bulk-update': {
    operationId: 'updatePhoneNumbers',
    tag,
    summary: 'Update phone numbers',
    description:
      'Changes up to 1,000 numbers by their ids, or up to 10,000 of an integration: all of them, or none if one of them ' +
      'cannot be changed. The same rules hold as for a single number.',
    body: {
      name: 'PhoneNumbersChanges',
      examples: {
        move: {
          phone_number_ids: [phoneNumberExample.phone_number_id, 'phon_0f1e2d3c4b5a'],
          set: { integration_id: 'intg_0f1e2d3c4b5a' },
        },
        unassign: { integration_id: 'intg_a1b2c3d4e5f6', set: { assigned_agent_id: null } },
      },
    },
    answer: action(200, '1 phone number updated successfully', updateResultsSchema, {
      results: [doneResult('updated')],
    }),
    problems: [
      'integration_not_found',
      'quota_exceeded',
      'credentials_missing',
      'phone_numbers_not_updated',
      'too_many_references',
      'too_many_to_verify',
      'credentials_refused',
      'verification_limited',
    ],
  },
  'POST /api/phone-numbers/bulk-delete': {
    operationId: 'deletePhoneNumbers',
    tag,
    summary: 'Delete phone numbers',
    description:
      'Deletes up to 1,000 numbers by their ids, or up to 10,000 of an integration, with their SIP credentials: all of them, ' +
      'or none if one of them is assigned to an agent.',
    body: {
      name: 'PhoneNumbersDeletion',
      examples: {
        byIds: { phone_number_ids: [phoneNumberExample.phone_number_id] },
        ofIntegration: { integration_id: 'intg_a1b2c3d4e5f6' },
      },
    },
    answer: action(200, '1 phone number deleted successfully', deletionResultsSchema, {
      results: [doneResult('deleted')],
    }),
    problems: ['integration_not_found', 'phone_numbers_not_deleted', 'too_many_references'],
  },
  'GET /api/phone-numbers': {
    operationId: 'listPhoneNumbers',
    tag,
    summary: 'List phone numbers',
    description: 'By number.',
    answer: page(phoneNumberSchema, phoneNumberExample),
  },
  'GET /api/phone-numbers/{phone_number_id}': {
    operationId: 'getPhoneNumber',
    tag,
    summary: 'Get a phone number',
    answer: entity(phoneNumberSchema, phoneNumberExample),
    headers: ['ETag'],
    problems: ['phone_number_not_found'],
  },
  'PUT /api/phone-numbers/{phone_number_id}': {
    operationId: 'updatePhoneNumber',
    tag,
    summary: 'Update a phone number',
    description:
      'Moves the number to another integration, changes what it supports, assigns it to an agent or unassigns it, or ' +
      'changes its SIP trunk. If the new integration is of another account, that is asked whether it holds the number. ' +
      '`status` follows `assigned_agent_id`. A new `sip_password` or `inbound_pin` replaces the old ' +
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
    headers: ['ETag'],
    problems: [
      'phone_number_not_found',
      'integration_not_found',
      'quota_exceeded',
      'credentials_missing',
      'phone_number_not_in_account',
      'credentials_refused',
      'verification_limited',
    ],
  },
  'POST /api/phone-numbers/{phone_number_id}/verify': {
    operationId: 'verifyPhoneNumber',
    tag,
    summary: 'Confirm a phone number',
    description:
      'Asks the account of the number’s integration now whether it holds the number, and stores what it says as `ownership`.',
    answer: action(200, 'Phone number checked successfully', phoneNumberSchema, phoneNumberExample),
    headers: ['ETag'],
    problems: [
      'phone_number_not_found',
      'quota_exceeded',
      'credentials_missing',
      'credentials_refused',
      'credentials_limited',
      'verification_limited',
      'provider_unavailable',
    ],
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
