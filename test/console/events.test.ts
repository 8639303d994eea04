import { describe, expect, it } from 'vitest';
import { csv, filterOf, jsonLines, sentenceOf } from '../../src/console/events.ts';
import type { AuditEvent } from '../../src/console/events.ts';
import { auditActions } from '../../src/worker/core/vocabulary.ts';
import type { AuditAction } from '../../src/worker/core/vocabulary.ts';

const common = { client_id: 'org_test', created_at: '2024-01-15T10:30:00Z' };

const integration = {
  ...common,
  integration_id: 'intg_a1b2c3d4e5f6',
  name: 'Twilio Production',
  provider: 'twilio',
  category: 'telephony',
  status: 'active',
  updated_at: '2024-01-15T10:30:00Z',
  account_hint: null,
  verification: {
    status: 'unverified',
    checked_at: null,
    provider_status: null,
    provider_code: null,
    detail: 'The provider has not been asked about these credentials.',
  },
} as const;

const number = {
  ...common,
  phone_number_id: 'phon_a1b2c3d4e5f6',
  phone_number: '+14155550100',
  provider: 'twilio',
  integration_id: 'intg_a1b2c3d4e5f6',
  status: 'assigned',
  assigned_agent_id: 'agent_7',
  supports_inbound: true,
  supports_outbound: true,
  sip_trunk_name: null,
  sip_username: null,
  sip_server_address: null,
  sip_transport: null,
  inbound_room_name: null,
  media_encryption: null,
  ownership: 'confirmed',
  updated_at: '2024-01-15T10:30:00Z',
} as const;

const key = {
  ...common,
  key_id: 'apikey_b1b2c3d4e5f6',
  name: 'Billing',
  role: 'agent_manager',
  prefix: 'bk_live_x7Yp',
  user_id: 'user_test',
  status: 'active',
  last_used_at: null,
  expires_at: null,
} as const;

const organization = { ...common, name: 'Acme', tier: 'pro', status: 'active' } as const;

const endpoint: AuditEvent['state'] = {
  ...common,
  endpoint_id: 'whep_a1b2c3d4e5f6',
  url: 'https://hooks.example.com/patchbay',
  description: null,
  events: ['*'],
  enabled: true,
  verified_at: '2024-01-15T10:31:00Z',
  last_test: null,
  delivered_until: '2024-01-15T10:30:00Z',
  last_delivered_at: null,
  failing_since: null,
  last_error: null,
  updated_at: '2024-01-15T10:30:00Z',
};

const delivery = {
  delivery_id: 'whdel_a1b2c3d4e5f6',
  endpoint_id: 'whep_a1b2c3d4e5f6',
  event_id: '018d0cab-c440-7abc-9def-0123456789ab',
  event_type: 'integration.created',
  status: 'retrying',
  attempts: 3,
  created_at: '2024-01-15T10:30:00Z',
  attempted_at: '2024-01-15T10:35:00Z',
  next_attempt_at: '2024-01-15T10:40:00Z',
  response_status: 500,
  response_body: null,
  duration_ms: 12,
  last_error: 'The answer had status 500.',
} as const;

const states = {
  integration,
  phone_number: number,
  api_key: key,
  organization,
  credentials: integration,
  webhook_endpoint: endpoint,
  webhook_delivery: delivery,
};

const isSubject = (subject: string): subject is keyof typeof states => subject in states;

const ci = { type: 'api_key', id: 'apikey_a1b2c3d4e5f6', name: 'CI key' } as const;
const system = { type: 'system', id: null, name: null } as const;
const operator = { type: 'operator', id: 'opkey_a1b2c3d4e5f6', name: 'Support' } as const;

function eventOf(action: AuditAction, given: Partial<AuditEvent> = {}): AuditEvent {
  const subject = action.split('.')[0] ?? '';
  if (!isSubject(subject)) throw new Error(`Nothing is a ${subject}`);
  return {
    event_id: '018d0cab-c440-7abc-9def-0123456789ab',
    client_id: 'org_test',
    action,
    outcome: action.endsWith('_refused') ? 'refused' : 'succeeded',
    target_id: 'intg_a1b2c3d4e5f6',
    actor: ci,
    actor_key_id: ci.id,
    request_id: '26e0718a-cc31-4b5b-8be4-4946ebdcbd1c',
    state: states[subject],
    changes: null,
    reason: null,
    created_at: '2024-01-16T08:00:00Z',
    ...given,
  };
}

describe('the sentence of an event', () => {
  it('is known for every action', () => {
    expect(Object.fromEntries(auditActions.map((action) => [action, sentenceOf(eventOf(action))]))).toEqual({
      'organization.created': 'CI key created the organization.',
      'organization.updated': 'CI key updated the organization.',
      'organization.suspended': 'CI key suspended the organization.',
      'organization.resumed': 'CI key resumed the organization.',
      'organization.offboarded': 'CI key ended the organization.',
      'api_key.created': 'CI key created key Billing, with the role agent manager.',
      'api_key.updated': 'CI key updated key Billing.',
      'api_key.rotated': 'CI key rotated key Billing.',
      'api_key.revoked': 'CI key revoked key Billing.',
      'integration.created': 'CI key created integration Twilio Production.',
      'integration.updated': 'CI key updated integration Twilio Production.',
      'integration.deleted': 'CI key deleted integration Twilio Production.',
      'integration.delete_refused':
        'CI key could not delete integration Twilio Production, because phone numbers use it.',
      'integration.credentials_missing':
        'A restore of the database lost the credentials of integration Twilio Production.',
      'integration.verification_failed':
        'The provider refused the credentials of integration Twilio Production when CI key asked.',
      'integration.verification_recovered':
        'The provider accepts the credentials of integration Twilio Production again when CI key asked.',
      'phone_number.imported': 'CI key imported number +14155550100 through intg_a1b2c3d4e5f6.',
      'phone_number.updated': 'CI key updated number +14155550100.',
      'phone_number.deleted': 'CI key deleted number +14155550100.',
      'phone_number.delete_refused': 'CI key could not delete number +14155550100, because agent_7 holds it.',
      'phone_number.released': 'CI key took number +14155550100 from this organization.',
      'credentials.read': 'CI key read the credentials of integration Twilio Production.',
      'webhook_endpoint.created': 'CI key created webhook endpoint https://hooks.example.com/patchbay.',
      'webhook_endpoint.updated': 'CI key updated webhook endpoint https://hooks.example.com/patchbay.',
      'webhook_endpoint.tested': 'CI key sent a test to webhook endpoint https://hooks.example.com/patchbay.',
      'webhook_endpoint.secret_rotated':
        'CI key rotated the secret of webhook endpoint https://hooks.example.com/patchbay.',
      'webhook_endpoint.replayed':
        'CI key had events sent again to webhook endpoint https://hooks.example.com/patchbay.',
      'webhook_endpoint.disabled':
        'CI key disabled webhook endpoint https://hooks.example.com/patchbay, because it failed for 5 days.',
      'webhook_endpoint.deleted': 'CI key deleted webhook endpoint https://hooks.example.com/patchbay.',
      'webhook_delivery.retried': 'CI key retried the delivery of integration.created.',
      'webhook_delivery.dead': 'CI key gave up the delivery of integration.created.',
    });
  });

  it.each([
    [ci, 'CI key revoked key Billing.'],
    [{ ...ci, name: null }, 'apikey_a1b2c3d4e5f6 revoked key Billing.'],
    [operator, 'Operator Support revoked key Billing.'],
    [{ type: 'operator', id: null, name: null }, 'An operator revoked key Billing.'],
    [{ type: 'service', id: 'call-router', name: 'call-router' }, 'Service call-router revoked key Billing.'],
    [system, 'The system revoked key Billing.'],
  ] as const)('names %o', (actor, sentence) => {
    expect(sentenceOf(eventOf('api_key.revoked', { actor }))).toBe(sentence);
  });

  it.each([
    [{ name: { from: 'A', to: 'B' } }, 'renamed number +14155550100 to B'],
    [
      { integration_id: { from: 'intg_a', to: 'intg_b' }, provider: { from: 'twilio', to: 'telnyx' } },
      'moved number +14155550100 from intg_a to intg_b',
    ],
    [
      { integration_id: { from: 'intg_a', to: 'intg_b' }, ownership: { from: 'confirmed', to: 'unconfirmed' } },
      'moved number +14155550100 from intg_a to intg_b, and left it unconfirmed',
    ],
    [
      { assigned_agent_id: { from: null, to: 'agent_1' }, status: { from: 'free', to: 'assigned' } },
      'assigned number +14155550100 to agent_1',
    ],
    [
      { assigned_agent_id: { from: 'agent_1', to: null }, status: { from: 'assigned', to: 'free' } },
      'freed number +14155550100 from agent_1',
    ],
    [
      { assigned_agent_id: { from: 'agent_1', to: 'agent_2' } },
      'reassigned number +14155550100 from agent_1 to agent_2',
    ],
    [{ ownership: { from: 'unconfirmed', to: 'confirmed' } }, 'confirmed that the account holds number +14155550100'],
    [
      { ownership: { from: 'confirmed', to: 'unconfirmed' } },
      'found that the account does not hold number +14155550100',
    ],
    [
      { credentials: { from: '[redacted]', to: '[redacted]' }, sip_transport: { from: null, to: 'tls' } },
      'replaced the credentials of number +14155550100, and changed sip_transport of it from none to tls',
    ],
    [
      { supports_inbound: { from: true, to: false } },
      'changed supports_inbound of number +14155550100 from true to false',
    ],
    [{}, 'saved number +14155550100 as it was'],
  ])('tells the changes %o', (changes, told) => {
    expect(sentenceOf(eventOf('phone_number.updated', { changes }))).toBe(`CI key ${told}.`);
  });

  it('does not tell what comes of new credentials by itself', () => {
    const changes = {
      name: { from: 'Twilio Production', to: 'Europe' },
      credentials: { from: '[redacted]', to: '[redacted]' },
      verification: { from: { status: 'refused' }, to: { status: 'verified' } },
      account_hint: { from: null, to: 'AC…89ef' },
      status: { from: 'credentials_missing', to: 'active' },
    };
    expect(sentenceOf(eventOf('integration.updated', { changes }))).toBe(
      'CI key renamed integration Twilio Production to Europe, and replaced the credentials of it.',
    );
  });

  it.each([
    [{ enabled: { from: true, to: false } }, 'disabled webhook endpoint https://hooks.example.com/patchbay'],
    [{ enabled: { from: false, to: true } }, 'enabled webhook endpoint https://hooks.example.com/patchbay'],
    [
      {
        url: { from: 'https://hooks.example.com/patchbay', to: 'https://example.net/' },
        verified_at: { from: '2024-01-15T10:31:00Z', to: null },
      },
      'changed url of webhook endpoint https://hooks.example.com/patchbay from https://hooks.example.com/patchbay to https://example.net/',
    ],
  ])('tells the changes of a webhook endpoint %o', (changes, told) => {
    expect(sentenceOf(eventOf('webhook_endpoint.updated', { changes }))).toBe(`CI key ${told}.`);
  });

  it('tells what only the event says', () => {
    expect(sentenceOf(eventOf('integration.verification_failed', { actor: system }))).toBe(
      'The provider refused the credentials of integration Twilio Production.',
    );
    expect(
      sentenceOf(eventOf('phone_number.released', { actor: system, reason: 'ownership_confirmed_elsewhere' })),
    ).toBe('The system took number +14155550100 from this organization, because another account holds it.');
    expect(
      sentenceOf(eventOf('phone_number.imported', { state: { ...number, provider: 'sip', integration_id: null } })),
    ).toBe('CI key imported number +14155550100 by SIP.');
    expect(sentenceOf(eventOf('organization.updated', { actor: operator, changes: {} }))).toBe(
      'Operator Support changed what only operators see of the organization.',
    );
    expect(sentenceOf(eventOf('credentials.read', { state: number }))).toBe(
      'CI key read the credentials of number +14155550100.',
    );
  });
});

describe('the filter of an address', () => {
  const parse = (query: string) => filterOf(new URLSearchParams(query));

  it('has times, and one of the alternatives', () => {
    expect(parse('since=2024-01-01T00:00:00Z&until=2024-02-01T00:00:00Z&action=api_key.revoked')).toEqual({
      since: '2024-01-01T00:00:00Z',
      until: '2024-02-01T00:00:00Z',
      action: 'api_key.revoked',
    });
    expect(parse('target_id=intg_1&actor_key_id=apikey_1')).toEqual({ target_id: 'intg_1' });
    expect(parse('actor_key_id=apikey_1')).toEqual({ actor_key_id: 'apikey_1' });
    expect(parse('action=nothing')).toEqual({});
  });
});

describe('a file of events', () => {
  const named = (name: string) => eventOf('api_key.revoked', { actor: { ...ci, name } });
  const cellOfName = (name: string) => csv.line(named(name));

  it('has a line of JSON for each event', () => {
    const event = named('Line\nbreak');
    expect(jsonLines.header).toBe('');
    expect(jsonLines.line(event)).toMatch(/^[^\n]+\n$/);
    expect(JSON.parse(jsonLines.line(event))).toEqual(event);
  });

  it('has columns of CSV by RFC 4180', () => {
    expect(csv.header).toBe(
      'created_at,sentence,action,outcome,target_id,actor_type,actor_id,actor_name,reason,request_id,event_id,changes,state\r\n',
    );
    expect(cellOfName('CI key')).toBe(
      [
        '2024-01-16T08:00:00Z,CI key revoked key Billing.,api_key.revoked,succeeded,intg_a1b2c3d4e5f6,api_key',
        'apikey_a1b2c3d4e5f6,CI key,,26e0718a-cc31-4b5b-8be4-4946ebdcbd1c,018d0cab-c440-7abc-9def-0123456789ab,',
        `"${JSON.stringify(key).replaceAll('"', '""')}"\r\n`,
      ].join(','),
    );
    expect(cellOfName('a "b", c')).toContain(',"a ""b"", c",');
  });

  it.each(['=1+1', '+14155550100', '-1', '@SUM(A1)', '\t=1', '\r=1'])('makes text of the formula %j in CSV', (name) => {
    const line = cellOfName(name);
    expect(line).toMatch(/,"?'[=+\-@\t\r]/);
    expect(line).not.toMatch(/,"?[=+\-@\t\r]/);
  });
});
