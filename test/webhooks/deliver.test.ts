import { describe, expect, it } from 'vitest';
import { call, createIntegration, newClient } from '../fixtures.ts';
import { createEndpoint, messagesAt, wake } from './receivers.ts';

describe('a webhook endpoint', () => {
  it('gets a test, and then the events', async () => {
    const client = await newClient();
    const endpoint = await createEndpoint(client);
    const integration_id = await createIntegration(client);
    await wake([client.organization_id]);
    await wake([client.organization_id]);
    const { body } = await call(client, 'GET', endpoint.path);
    console.log(JSON.stringify(body));
    const messages = await messagesAt(endpoint.url, endpoint.secret);
    console.log(JSON.stringify(messages, null, 1));
    expect(messages.map(({ type }) => type)).toEqual(['webhook_endpoint.test', 'integration.created']);
    expect(messages[1]?.data['target_id']).toBe(integration_id);
  });
});
