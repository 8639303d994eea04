import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { expect, it } from 'vitest';
import worker from '../src/index.ts';
import { createOperatorKey } from '../src/api-keys/create.ts';

it('works', async () => {
  const { raw_key, key } = await createOperatorKey(env.DB, { organization_id: 'org_a', role: 'admin', name: 'x', expires_at: null });
  console.log(key);
  const call = async (method: string, path: string, body?: unknown) => {
    const ctx = createExecutionContext();
    const r = await worker.fetch(new Request('http://x' + path, { method, headers: { 'x-api-key': raw_key, 'x-organization-id': 'org_a', 'content-type': 'application/json' }, ...(body ? { body: JSON.stringify(body) } : {}) }) as never, env, ctx);
    const text = await r.text();
    await waitOnExecutionContext(ctx);
    console.log(method, path, r.status, text);
    return JSON.parse(text);
  };
  const { data } = await call('POST', '/api/integrations', { name: 'T', credentials: { provider: 'twilio', account_sid: 'AC' + 'a'.repeat(32), auth_token: 'tok' } });
  await call('POST', '/api/phone-numbers', { phone_number: '+14155550100', provider: 'twilio', integration_id: data.integration_id });
  await call('POST', '/api/phone-numbers', { phone_number: '+14155550100', provider: 'twilio', integration_id: data.integration_id });
  await call('POST', '/api/phone-numbers', { phone_number: '+14155550101', provider: 'telnyx', integration_id: data.integration_id });
  await call('POST', '/api/phone-numbers', { phone_number: '+14155550102', provider: 'sip', sip_password: 'abcdef' });
  await call('DELETE', '/api/integrations/' + data.integration_id);
  await env.DB.prepare('DELETE FROM phone_numbers').run();
  await call('DELETE', '/api/integrations/' + data.integration_id);
  await call('DELETE', '/api/integrations/' + data.integration_id);
  await call('PUT', '/api/integrations/' + data.integration_id);
  await call('PUT', '/api/zzz');
  await call('POST', '/api/integrations', { name: '', credentials: { provider: 'twili', account_sid: 'AC' + 'a'.repeat(32), auth_token: 'tok' } });
  await call('POST', '/api/integrations', { name: 'x', zz: 1, credentials: { provider: 'telnyx', account_sid: 'AC' + 'a'.repeat(32), auth_token: 'tok' } });
  console.log((await env.DB.prepare('select * from audit_events').all()).results, (await env.DB.prepare('select * from credential_purges').all()).results, (await env.CREDENTIALS.list()).keys);
  expect(1).toBe(1);
});
