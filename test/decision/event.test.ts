import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import { call, createIntegration, importNumber, newClient, unusedNumber } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

/** The one event of an action on a target. */
async function eventOf(action: string, target_id: string) {
  const { results } = await env.DB.prepare('SELECT * FROM audit_events WHERE action = ? AND target_id = ?')
    .bind(action, target_id)
    .all();
  expect(results).toHaveLength(1);
  return { ...results[0], state: JSON.parse(String(results[0]?.['state'])) };
}

const integrationMembers = [
  'organization_id',
  'integration_id',
  'name',
  'provider',
  'category',
  'status',
  'credentials_version',
  'created_at',
  'updated_at',
  'revision',
  'account_hint',
  'verification_status',
  'verification_checked_at',
  'verification_provider_status',
  'verification_provider_code',
];

describe('an audit event', () => {
  it('says who did what to what, by which request', async () => {
    const integration_id = await createIntegration(client);
    const { headers } = await call(client, 'DELETE', `/api/integrations/${integration_id}`);

    expect(await eventOf('integration.deleted', integration_id)).toEqual({
      organization_id: client.organization_id,
      event_id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/),
      action: 'integration.deleted',
      target_id: integration_id,
      actor_type: 'api_key',
      actor_id: client.key_id,
      actor_name: 'Test',
      actor_key_id: client.key_id,
      request_id: headers.get('X-Request-Id'),
      state: expect.objectContaining({ integration_id, name: 'Twilio Production' }),
      created_at: expect.any(Number),
      sequence: 3,
      changes: null,
      reason: null,
    });
  });

  it.each(['integration.created', 'integration.delete_refused', 'integration.deleted'])(
    'has, for %s, the state of the integration, and nothing that leads to its credentials',
    async (action) => {
      const integration_id = await createIntegration(client);
      const phone_number_id = await importNumber(client, integration_id, unusedNumber());
      await call(client, 'DELETE', `/api/integrations/${integration_id}`);
      await env.DB.prepare('DELETE FROM phone_numbers WHERE phone_number_id = ?').bind(phone_number_id).run();
      await call(client, 'DELETE', `/api/integrations/${integration_id}`);

      const { state } = await eventOf(action, integration_id);

      expect(Object.keys(state)).toEqual(integrationMembers);
    },
  );

  it('has, for an import, the state of the number, and nothing that leads to its credentials', async () => {
    const phone_number = unusedNumber();
    await call(client, 'POST', '/api/phone-numbers', {
      body: { provider: 'sip', phone_number, sip_username: 'user', sip_password: 'plaintext-password' },
    });
    const row = await env.DB.prepare('SELECT phone_number_id FROM phone_numbers WHERE phone_number = ?')
      .bind(phone_number)
      .first();

    const { state } = await eventOf('phone_number.imported', String(row?.['phone_number_id']));

    expect(Object.keys(state)).toEqual([
      'phone_number_id',
      'organization_id',
      'integration_id',
      'phone_number',
      'provider',
      'status',
      'assigned_agent_id',
      'supports_inbound',
      'supports_outbound',
      'sip_trunk_name',
      'sip_username',
      'sip_server_address',
      'inbound_room_name',
      'media_encryption',
      'credentials_version',
      'created_at',
      'updated_at',
      'revision',
      'sip_transport',
      'ownership',
    ]);
  });
});
