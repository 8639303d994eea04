/** No secret outside its place: everything stored, logged and answered is searched for every secret that went in. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { simulatedAnswers } from '../src/dev/simulation.ts';
import { hashKey } from '../src/worker/callers/raw-key.ts';
import worker from '../src/worker/index.ts';
import { RECHECK_CRON } from '../src/worker/integrations/recheck.ts';
import { failingBindings } from './bindings.ts';
import { callReader, read } from './credentials-reader/reader.ts';
import {
  call,
  createIntegration,
  everythingStored,
  importNumber,
  newClient,
  newOperator,
  rowOf,
  unusedNumber,
} from './fixtures.ts';
import type { Client } from './fixtures.ts';
import { operatorMutations } from './operator-mutations.ts';
import { verifiedEndpoint, wake } from './webhooks/receivers.ts';

afterEach(() => vi.restoreAllMocks());

const createdKey = z.object({ data: z.object({ raw_key: z.string() }) });

const createdSecret = z.object({ data: z.object({ secret: z.string() }) });

const importedNumber = z.object({ data: z.object({ phone_number_id: z.string() }) });

const secrets = {
  account_sid: 'ACdeadbeefdeadbeefdeadbeefdeadbeef',
  auth_token: 'canary-auth-token',
  api_key: 'canary-api-key',
  api_secret: 'canary-api-secret',
  signature_secret: 'canary-signature-secret',
  // Of the secrets that say what the provider answers.
  provider_secret: 'canary-provider-secret',
  // Of each body of the simulated providers.
  words: 'words of the provider',
  sip_password: 'canary-sip-password',
  inbound_pin: '7741902266',
  // Not a name that an answer may show.
  surplus: 'canary surplus',
  malformed: 'canary-malformed',
};

/** Another Worker reads the credentials, in ways that succeed, that fail, and that are malformed. */
async function readAll({ organization_id }: Client, integration_id: string): Promise<void> {
  const asked = { organization_id, integration_id };
  const { surplus, malformed } = secrets;
  expect(await read('read', asked)).toMatchObject({ ok: true });
  const { bindings: unreadable } = failingBindings('CREDENTIALS.get', { when: 'after', message: 'KV GET failed' });
  const { bindings: lossy } = failingBindings('DB.batch', {
    when: 'after',
    message: 'D1_ERROR: Network connection lost.',
  });
  const row = await rowOf('integrations', integration_id);
  const { keys } = z.object({ keys: z.record(z.string(), z.string()) }).parse(JSON.parse(env.CREDENTIALS_KEKS));
  const otherRing = JSON.stringify({ current: 'k2', keys: { k2: keys['k1'] } });
  for (const bindings of [
    unreadable,
    lossy,
    { ...env, CREDENTIALS_KEKS: otherRing },
    { ...env, CREDENTIALS_KEKS: malformed },
    { ...env, CREDENTIALS_READERS: malformed },
    {
      ...env,
      CREDENTIALS_READERS: JSON.stringify({ 'call-router': { providers: [malformed], organizations: malformed } }),
    },
  ]) {
    const result = await read('read', asked, { bindings });
    expect([true, false]).toContain(Object(result).ok);
  }
  await env.DB.prepare('UPDATE integrations SET data_key = ? WHERE integration_id = ?')
    .bind(btoa('of other bytes'.padEnd(60)), integration_id)
    .run();
  expect(await read('read', asked)).toMatchObject({ ok: false });
  await env.DB.prepare('UPDATE integrations SET data_key = ? WHERE integration_id = ?')
    .bind(row['data_key'], integration_id)
    .run();
  expect(await read('read', asked, { consumer: surplus })).toMatchObject({ ok: false });
  expect(await read('read', { organization_id: surplus, integration_id: malformed })).toMatchObject({ ok: false });
  expect(await read('readByPhoneNumber', { phone_number: malformed })).toMatchObject({ ok: false });
  for (const wrong of [
    { ...asked, purpose: `${malformed}\n` },
    { ...asked, [surplus]: malformed },
    malformed,
    [surplus],
  ]) {
    const thrown: unknown = await callReader('read', wrong).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(TypeError);
    expect(String(thrown)).not.toMatch(/canary/);
  }
}

it('is in D1, in either KV namespace, in the log or in an answer', async () => {
  const logged: unknown[][] = [];
  for (const method of ['debug', 'error', 'info', 'log', 'warn'] as const) {
    vi.spyOn(console, method).mockImplementation((...parameters) => void logged.push(parameters));
  }
  const client = await newClient();
  const answers: string[] = [];
  const clientsOwn = 'canary-idempotency-key';
  const send = async (method: string, path: string, body?: unknown, bindings = env, by = client) => {
    const { text, headers, status } = await call(by, method, path, {
      body,
      bindings,
      headers: { 'Idempotency-Key': `${clientsOwn}-${answers.length}` },
    });
    answers.push(`${status} ${JSON.stringify([...headers])} ${text}`);
    return status;
  };
  const post = (path: string, body: unknown, bindings = env) => send('POST', path, body, bindings);
  const { account_sid, auth_token, api_key, api_secret, sip_password, inbound_pin, surplus, malformed } = secrets;
  const vonage = { name: 'Vonage', credentials: { provider: 'vonage', api_key, api_secret } };
  const sip = () => ({
    phone_number: unusedNumber(),
    provider: 'sip',
    sip_username: 'user',
    sip_password,
    inbound_pin,
  });

  const statuses = [
    await post('/api/integrations', { name: 'Twilio', credentials: { provider: 'twilio', account_sid, auth_token } }),
    await post('/api/integrations', vonage),
    await post('/api/phone-numbers', sip()),
    await post('/api/integrations', { ...vonage, [surplus]: surplus }),
    await post('/api/integrations', { ...vonage, credentials: { ...vonage.credentials, surplus, api_key: [api_key] } }),
    await post('/api/integrations', { ...vonage, credentials: { provider: auth_token } }),
    await post('/api/integrations', `{"name": ${malformed}`),
    await post('/api/phone-numbers', { ...sip(), inbound_pin: inbound_pin.repeat(2) }),
    await post('/api/phone-numbers', { ...sip(), phone_number: auth_token }),
  ];
  expect(statuses).toEqual([201, 201, 201, 422, 422, 422, 400, 422, 422]);

  for (const failing of ['DB.batch', 'CREDENTIALS.put', 'KEY_CACHE.get'] as const) {
    for (const message of ['Network connection lost.', 'near "x": syntax error: SQLITE_ERROR']) {
      const { bindings } = failingBindings(failing, { when: 'after', message });
      await post('/api/integrations', vonage, bindings);
      await post('/api/phone-numbers', sip(), bindings);
    }
  }
  const integration_id = await createIntegration(client, { provider: 'twilio', account_sid, auth_token });
  const path = `/api/integrations/${integration_id}`;
  const newer = { provider: 'twilio', account_sid, auth_token };
  const { bindings: unreadable } = failingBindings('CREDENTIALS.get', { when: 'after', message: 'KV GET failed' });
  const { bindings: lossy } = failingBindings('DB.batch', { when: 'after', message: 'Network connection lost.' });
  const updates = [
    await send('PUT', path, { credentials: newer }),
    await send('PUT', path, { credentials: vonage.credentials }),
    await send('PUT', path, { credentials: { ...newer, api_secret } }),
    await send('PUT', path, { credentials: newer }, lossy),
  ];
  expect(updates).toEqual([200, 422, 422, 503]);
  for (const word of simulatedAnswers.filter((answer) => !['stalls', 'breaks-off'].includes(answer))) {
    const { provider_secret, signature_secret } = secrets;
    const secret = `${provider_secret}-${word}`;
    const accounts = [
      { provider: 'twilio', account_sid, auth_token: secret },
      { provider: 'telnyx', api_key: secret },
      { provider: 'vonage', api_key, api_secret: secret, signature_secret },
      { provider: 'plivo', auth_id: 'MA0123456789ABCDEFGH', auth_token: secret },
    ];
    const checker = await newClient();
    for (const credentials of accounts) {
      await send('POST', '/api/integrations', { name: 'Checked', credentials }, env, checker);
      const check = `/api/integrations/${await createIntegration(checker, credentials, '?verify=false')}/verify`;
      expect(await send('POST', check, undefined, env, checker)).toBe(200);
      await send('POST', check, undefined, unreadable, checker);
    }
  }
  await post(`${path}/verify`, undefined, { ...env, PROVIDER_ORIGINS: `https://${secrets.surplus}` });
  await env.DB.prepare('UPDATE integrations SET recheck_from = 0').run();
  await worker.scheduled(createScheduledController({ cron: RECHECK_CRON }), env);
  const number = await call(client, 'POST', '/api/phone-numbers', { body: sip() });
  const sipNumber = `/api/phone-numbers/${importedNumber.parse(number.body).data.phone_number_id}`;
  const ofIntegration = `/api/phone-numbers/${await importNumber(client, integration_id, unusedNumber())}`;
  const { bindings: unwritable } = failingBindings('CREDENTIALS.put', { when: 'after', message: 'KV PUT failed' });
  const numberUpdates = [
    await send('PUT', sipNumber, { sip_password }),
    await send('PUT', sipNumber, { inbound_pin }),
    await send('PUT', sipNumber, { sip_password, inbound_pin }),
    await send('PUT', sipNumber, { sip_password, inbound_pin: inbound_pin.repeat(2) }),
    await send('PUT', sipNumber, { sip_password: `Bearer ${sip_password}` }),
    await send('PUT', sipNumber, { sip_password, sip_username: null }),
    await send('PUT', ofIntegration, { sip_password, inbound_pin }),
    await send('PUT', sipNumber, { inbound_pin }, lossy),
    await send('PUT', sipNumber, { inbound_pin }, unreadable),
    await send('PUT', sipNumber, { inbound_pin }, unwritable),
  ];
  expect(numberUpdates).toEqual([200, 200, 200, 422, 422, 422, 422, 503, 503, 503]);
  await readAll(client, integration_id);
  const made = await call(client, 'POST', '/api/api-keys', { body: { name: 'Second', role: 'admin' } });
  const { raw_key } = createdKey.parse(made.body).data;
  expect(await send('POST', '/api/api-keys', { name: 'Lost', role: 'admin' }, lossy)).toBe(503);
  const { key_id } = await newClient({ organization_id: client.organization_id });
  const rotated = await call(client, 'POST', `/api/api-keys/${key_id}/rotate`, {
    body: { overlap_seconds: 60 },
    headers: { 'Idempotency-Key': clientsOwn },
  });
  const successor = createdKey.parse(rotated.body).data.raw_key;
  const { path: endpoint, secret: firstSecret } = await verifiedEndpoint(client);
  const rotation = { body: { overlap_seconds: 60 }, headers: { 'Idempotency-Key': clientsOwn } };
  const { text: newSecret } = await call(client, 'POST', `${endpoint}/rotate-secret`, rotation);
  const secondSecret = createdSecret.parse(JSON.parse(newSecret)).data.secret;
  answers.push((await call(client, 'POST', `${endpoint}/rotate-secret`, rotation)).text);
  expect(await send('PUT', endpoint, { url: `https://${surplus}/` })).toBe(422);
  expect(await send('PUT', endpoint, { enabled: true }, lossy)).toBe(503);
  await wake([client.organization_id]);
  for (const shown of [endpoint, `${endpoint}/deliveries`, '/api/webhook-endpoints']) await send('GET', shown);
  for (const list of ['integrations', 'phone-numbers', 'api-keys', 'audit-events', `audit-events?cursor=${surplus}`]) {
    await send('GET', `/api/${list}`);
  }
  await importNumber(client, integration_id, unusedNumber());
  const refused = await call(client, 'DELETE', `/api/integrations/${integration_id}`);
  await env.DB.prepare('DELETE FROM phone_numbers WHERE integration_id = ?').bind(integration_id).run();
  const { bindings } = failingBindings('CREDENTIALS.delete', { when: 'before', message: 'KV DELETE failed', times: 1 });
  const deleted = await call(client, 'DELETE', `/api/integrations/${integration_id}`, { bindings });
  expect([refused.status, deleted.status]).toEqual([409, 200]);
  answers.push(refused.text, deleted.text);
  const stored = await everythingStored();
  await worker.scheduled(createScheduledController(), env);

  expect(Object.keys(stored.CREDENTIALS).length).toBeGreaterThan(0);
  expect(Object.keys(stored.KEY_CACHE).length).toBeGreaterThan(0);
  expect(logged.length).toBeGreaterThan(answers.length);
  const places = {
    stored: JSON.stringify(stored),
    logged: JSON.stringify(logged),
    answers: JSON.stringify(answers),
  };
  for (const [place, text] of Object.entries(places)) {
    expect(text).not.toMatch(/Basic [A-Za-z0-9+/]|Bearer [a-z]/);
    for (const secret of [
      ...Object.values(secrets),
      btoa(`${account_sid}:${secrets.provider_secret}`).slice(0, -4),
      client.raw_key,
      raw_key,
      successor,
      firstSecret.slice('whsec_'.length),
      secondSecret.slice('whsec_'.length),
      env.CREDENTIALS_KEKS,
    ]) {
      expect(text.includes(secret), `${secret} in ${place}`).toBe(false);
    }
  }
  expect(stored.d1['idempotency_keys']?.length).toBeGreaterThan(0);
  expect(places.logged).not.toContain(clientsOwn);
  expect(places.answers).not.toMatch(/select |insert |SQLITE|stack/i);
  expect(places.logged).not.toMatch(/select |insert /i);
});

it('of an operator is stored as its hash alone: its raw key, and those that it makes, are nowhere else', async () => {
  const logged: unknown[][] = [];
  for (const method of ['debug', 'error', 'info', 'log', 'warn'] as const) {
    vi.spyOn(console, method).mockImplementation((...parameters) => void logged.push(parameters));
  }
  const operators: string[] = [];
  const made: string[] = [];
  const answers: string[] = [];
  const { bindings: lossy } = failingBindings('DB.batch', { when: 'after', message: 'Network connection lost.' });
  const { bindings: unreadable } = failingBindings('KEY_CACHE.get', { when: 'after', message: 'KV GET failed' });
  for (const { prepare } of operatorMutations) {
    const { method, path, body } = await prepare(await newClient());
    const operator = await newOperator();
    operators.push(operator.raw_key);
    for (const bindings of [unreadable, env, lossy]) {
      for (const sent of [body, { ...body, surplus: operator.raw_key }]) {
        const { status, headers, text } = await call(operator, method, path, {
          body: sent,
          bindings,
          headers: { 'Idempotency-Key': 'once' },
        });
        const [shown] = /bk_live_\w+/.exec(/"raw_key":"(\w+)"/.exec(text)?.[1] ?? '') ?? [];
        if (shown !== undefined) made.push(shown);
        // What has been made is shown in the answer to the request that made it.
        answers.push(
          `${status} ${JSON.stringify([...headers])} ${shown === undefined ? text : text.replace(shown, '')}`,
        );
      }
    }
    const malformed = { ...operator, raw_key: `${operator.raw_key}x` };
    for (const caller of [operator, malformed]) {
      for (const list of ['organizations', 'audit-events', `audit-events?cursor=${operator.raw_key}`]) {
        answers.push((await call(caller, 'GET', `/operator/${list}`)).text);
      }
    }
    answers.push(
      (await call(operator, 'GET', '/api/integrations', { headers: { 'X-API-Key': operator.raw_key } })).text,
    );
  }
  await worker.scheduled(createScheduledController(), env);

  const { d1, KEY_CACHE, CREDENTIALS } = await everythingStored();
  const { operator_keys, api_keys, ...others } = d1;
  const places = { logged: JSON.stringify(logged), answers: JSON.stringify(answers) };
  const stored = JSON.stringify({ d1, KEY_CACHE, CREDENTIALS });
  expect(made.length).toBeGreaterThan(2);
  for (const raw_key of [...operators, ...made]) {
    const key_hash = await hashKey(raw_key);
    for (const [place, text] of Object.entries({ ...places, stored })) {
      expect(text.includes(raw_key), `a raw key in ${place}`).toBe(false);
    }
    const elsewhere = { ...places, others: JSON.stringify([others, CREDENTIALS]) };
    for (const [place, text] of Object.entries(elsewhere)) {
      expect(text.includes(key_hash), `a key's hash in ${place}`).toBe(false);
    }
    expect(JSON.stringify([operator_keys, api_keys])).toContain(key_hash);
  }
  for (const raw_key of operators) expect(Object.keys(KEY_CACHE)).toContain(await hashKey(raw_key));
});
