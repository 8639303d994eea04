/** `POST /api/integrations/{integration_id}/verify`: the provider is asked now, and what it says is stored at once. */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { countedBindings, failingBindings, interceptedBindings, stallingBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
  eventsOn,
  keyChanges,
  newClient,
  page,
  resources,
  rowOf,
  start,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { answerNow, callsWith, secretAnswering } from '../simulation.ts';

let client: Client;
let secret: string;
let integration_id: string;

const credentialsWith = (api_key: string) => ({ provider: 'telnyx', api_key });

beforeEach(async () => {
  client = await newClient();
  secret = await secretAnswering('good');
  integration_id = await createIntegration(client, credentialsWith(secret));
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const verify = (options: Parameters<typeof call>[3] = {}, by = client) =>
  call(by, 'POST', `/api/integrations/${integration_id}/verify`, options);

const verification = (status: string, others: object = {}) => ({ data: { verification: { status, ...others } } });

describe('a check on demand', () => {
  it('answers the integration as it is then', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: new Date('2030-01-15T10:30:00Z') });

    const { status, body, text } = await verify();

    expect(status).toBe(200);
    expect(body).toMatchObject({ success: true, message: 'Integration checked successfully' });
    expect(body).toMatchObject(verification('verified', { checked_at: '2030-01-15T10:30:00Z', provider_status: 200 }));
    const read = await call(client, 'GET', `/api/integrations/${integration_id}`);
    expect(text).toContain(JSON.stringify(read.body).slice('{"success":true,'.length, -1));
    expect(await callsWith(secret)).toHaveLength(2);
  });

  it('costs a batch, a read of the ciphertext, one call to the provider and a batch', async () => {
    await call(client, 'GET', '/api/nothing');
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'POST', `/api/integrations/${integration_id}/verify`, { bindings });

    expect(answer.status).toBe(200);
    expect(calls).toEqual(['DB.batch', 'CREDENTIALS.get', 'provider.fetch', 'DB.batch']);
  });

  it('stores a refusal at once, and records it; the credentials stay', async () => {
    const before = await resources();
    await answerNow(secret, 'refused');

    const { status, body } = await verify();

    expect(status).toBe(200);
    expect(body).toMatchObject(verification('refused', { provider_status: 401, provider_code: '10009' }));
    expect((await resources()).CREDENTIALS).toEqual(before.CREDENTIALS);
    const [, event] = await eventsOn(integration_id);
    expect(event).toMatchObject({
      action: 'integration.verification_failed',
      actor_type: 'api_key',
      actor_id: client.key_id,
      state: { verification_status: 'verified' },
    });
    expect((await page(client, '/api/audit-events?action=integration.verification_failed')).data).toMatchObject([
      {
        changes: {
          verification: {
            from: { status: 'verified', provider_status: 200 },
            to: { status: 'refused', provider_status: 401, provider_code: '10009' },
          },
        },
      },
    ]);
  });

  it('records that the provider accepts what it had refused, though it gave no answer in between', async () => {
    await answerNow(secret, 'refused', 'broken', 'good', 'good');

    for (let checks = 0; checks < 4; checks += 1) await verify();

    expect(await actionsOn(integration_id)).toEqual([
      'integration.created',
      'integration.verification_failed',
      'integration.verification_recovered',
    ]);
  });

  it('records nothing while the verdict stays the same', async () => {
    await answerNow(secret, 'broken', 'restricted', 'good', 'rate-limited');

    const statuses = [];
    for (let checks = 0; checks < 4; checks += 1) statuses.push((await verify()).body);

    expect(statuses).toMatchObject([
      verification('unreachable'),
      verification('limited'),
      verification('verified'),
      verification('unreachable'),
    ]);
    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  });

  it('leaves the name, the times and the credentials alone', async () => {
    const before = await rowOf('integrations', integration_id);
    await answerNow(secret, 'refused');

    await verify();

    const { name, created_at, updated_at, revision, credentials_version, data_key } = before;
    expect(await rowOf('integrations', integration_id)).toMatchObject({
      name,
      created_at,
      updated_at,
      revision,
      credentials_version,
      data_key,
    });
  });

  it('says which account old credentials are of, once they were opened', async () => {
    const plivo = { provider: 'plivo', auth_id: 'MA0123456789ABCDEFGH', auth_token: secret };
    integration_id = await createIntegration(client, plivo);
    const { account_fingerprint } = await rowOf('integrations', integration_id);
    await env.DB.prepare('UPDATE integrations SET account_hint = NULL, account_fingerprint = NULL').run();

    expect((await verify()).body).toMatchObject({ data: { account_hint: 'MA…EFGH' } });
    expect(await rowOf('integrations', integration_id)).toMatchObject({ account_fingerprint });
  });

  it('does not keep a refused integration from being read and deleted', async () => {
    await answerNow(secret, 'refused');
    await verify();

    expect((await call(client, 'GET', `/api/integrations/${integration_id}`)).status).toBe(200);
    expect((await call(client, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(200);
  });
});

describe('a list by verification', () => {
  it('has the integrations of that status alone', async () => {
    const refused = await createIntegration(client, credentialsWith(await secretAnswering('restricted')));

    const listed = async (query: string) =>
      (await page(client, `/api/integrations?${query}`)).data.map((found) => found['integration_id']);

    expect(await listed('verification=limited')).toEqual([refused]);
    expect(await listed('verification=verified&provider=telnyx')).toEqual([integration_id]);
    expect(await listed('verification=verified&provider=twilio')).toEqual([]);
    expect(await listed('verification=refused')).toEqual([]);
    const { status, body } = await call(client, 'GET', '/api/integrations?verification=good');
    expect(status).toBe(422);
    expect(body).toMatchObject({ errors: [{ path: 'verification' }] });
  });
});

describe('a check that is not made', () => {
  const isUntouched = async (before: unknown) => {
    expect(await resources()).toEqual(before);
    expect(await callsWith(secret)).toHaveLength(1);
  };

  it('is that of another organization’s integration, which is not found', async () => {
    const before = await resources();

    const { status, body } = await verify({}, await newClient());

    expect(status).toBe(404);
    expect(body).toMatchObject({ code: 'integration_not_found' });
    await isUntouched(before);
  });

  it.each(keyChanges)('is that of a key that, cached as alive, %s', async (_, assignment, status, code) => {
    const key = await newClient({ organization_id: client.organization_id });
    await call(key, 'GET', '/api/integrations');
    await changeKey(key, assignment);
    const before = await resources();

    const answer = await verify({}, key);

    expect(answer.status).toBe(status);
    expect(answer.body).toMatchObject({ code });
    await isUntouched(before);
  });

  it('is that of credentials that a restore has lost', async () => {
    await env.DB.prepare(`UPDATE integrations SET status = 'credentials_missing' WHERE integration_id = ?`)
      .bind(integration_id)
      .run();
    const before = await resources();

    const { status, body } = await verify();

    expect(status).toBe(409);
    expect(body).toMatchObject({ code: 'credentials_missing' });
    await isUntouched(before);
  });

  it('is that of credentials whose ciphertext is not there yet, which is done later', async () => {
    const kv_key = Object.keys((await resources()).CREDENTIALS).find((name) => name.includes(integration_id)) ?? '';
    const ciphertext = await env.CREDENTIALS.get(kv_key, 'arrayBuffer');
    await env.CREDENTIALS.delete(kv_key);
    const before = await resources();

    const { status, body } = await verify();

    expect(status).toBe(503);
    expect(body).toMatchObject({ code: 'temporarily_unavailable', outcome: 'not_done' });
    await isUntouched(before);
    await env.CREDENTIALS.put(kv_key, ciphertext ?? '');
    expect((await verify()).status).toBe(200);
  });

  it('is one of many, once 20 credentials that no provider had accepted were refused', async () => {
    const guesses = [];
    const refused = await secretAnswering('refused');
    for (let made = 0; made < 21; made += 1) {
      const { text } = await call(client, 'POST', '/api/integrations?verify=false', {
        body: { name: 'Guess', credentials: credentialsWith(refused) },
      });
      guesses.push(/intg_[a-f0-9]{12}/.exec(text)?.[0]);
    }
    const statuses = [];
    for (const id of guesses) {
      statuses.push((await call(client, 'POST', `/api/integrations/${id}/verify`)).status);
      // The same credentials are no other guess.
      if (statuses.length < 20) await call(client, 'POST', `/api/integrations/${id}/verify`);
    }

    expect(statuses).toEqual([...Array.from({ length: 20 }, () => 200), 429]);
    expect((await verify()).body).toMatchObject({ code: 'verification_limited' });
  });
});

describe('a check while its credentials are replaced', () => {
  it('is of the new ones, where the old ones are gone before they are read', async () => {
    const fresh = await secretAnswering('good');
    let reads = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'CREDENTIALS.get' && (reads += 1) === 1) {
        await call(client, 'PUT', `/api/integrations/${integration_id}`, {
          body: { credentials: credentialsWith(fresh) },
        });
      }
      return carryOut();
    });

    const { status, body } = await verify({ bindings });

    expect(status).toBe(200);
    expect(body).toMatchObject(verification('verified'));
    expect(reads).toBe(2);
    expect(await callsWith(fresh)).toHaveLength(2);
  });
});

describe('a check that is repeated under its Idempotency-Key', () => {
  const headers = { 'Idempotency-Key': 'once' };

  it('asks nobody, and says the same, if it was recorded', async () => {
    await answerNow(secret, 'refused', 'good');
    const first = await verify({ headers });

    const second = await verify({ headers });

    expect(second.text).toBe(first.text);
    expect(second.headers.get('Idempotency-Replayed')).toBe('true');
    expect(await callsWith(secret)).toHaveLength(2);
  });

  it('says the same of an integration whose account was not known before', async () => {
    const plivo = { provider: 'plivo', auth_id: 'MA0123456789ABCDEFGH', auth_token: secret };
    integration_id = await createIntegration(client, plivo);
    await env.DB.prepare('UPDATE integrations SET account_hint = NULL, account_fingerprint = NULL').run();
    await answerNow(secret, 'refused');
    const first = await verify({ headers });

    expect(first.body).toMatchObject({ data: { account_hint: 'MA…EFGH' } });
    expect((await verify({ headers })).text).toBe(first.text);
  });

  it('says the same even after the integration has gone', async () => {
    await answerNow(secret, 'refused');
    const first = await verify({ headers });
    await call(client, 'DELETE', `/api/integrations/${integration_id}`);

    expect((await verify({ headers })).text).toBe(first.text);
    expect((await verify()).status).toBe(404);
  });
});

describe('an outcome that comes late', () => {
  it('is not written to credentials that were replaced meanwhile', async () => {
    await answerNow(secret, 'refused');
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const verifying = verify({ bindings });
    await stalls;
    const replaced = await call(client, 'PUT', `/api/integrations/${integration_id}`, {
      body: { credentials: credentialsWith(await secretAnswering('good')) },
    });
    expect(replaced.status).toBe(200);
    letGo();

    const { status, body } = await verifying;

    expect(status).toBe(200);
    expect(body).toMatchObject(verification('verified'));
    expect(await rowOf('integrations', integration_id)).toMatchObject({ verification_status: 'verified' });
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.updated']);
  });

  it('does not overwrite that of a check which began later', async () => {
    await answerNow(secret, 'refused');
    const answered = Promise.withResolvers<void>();
    const goesOn = Promise.withResolvers<void>();
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'provider.fetch') {
        answered.resolve();
        await goesOn.promise;
      }
      return result;
    });
    const verifying = verify({ bindings });
    await answered.promise;
    await answerNow(secret, 'good');
    await verify();
    goesOn.resolve();

    expect((await verifying).status).toBe(200);
    expect(await rowOf('integrations', integration_id)).toMatchObject({ verification_status: 'verified' });
  });

  it.each(keyChanges)('is not written by a key that meanwhile %s', async (_, assignment, status, code) => {
    await answerNow(secret, 'refused');
    const key = await newClient({ organization_id: client.organization_id });
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const verifying = verify({ bindings }, key);
    await stalls;
    await changeKey(key, assignment);
    const before = await resources();
    letGo();

    const answer = await verifying;

    expect(answer.status).toBe(status);
    expect(answer.body).toMatchObject({ code });
    expect(await resources()).toEqual(before);
  });

  it('is a 404 for an integration that was deleted meanwhile, and brings nothing back', async () => {
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const verifying = verify({ bindings });
    await stalls;
    expect((await call(client, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(200);
    letGo();

    expect((await verifying).body).toMatchObject({ code: 'integration_not_found' });
  });

  it('is written once, though the answer of its batch is lost', async () => {
    await answerNow(secret, 'refused');
    const before = await rowOf('integrations', integration_id);
    const { bindings } = failingBindings('DB.batch', {
      when: 'after',
      message: 'D1_ERROR: Network connection lost.',
      times: 2,
    });

    const { status, body } = await verify({ bindings });

    expect(status).toBe(200);
    expect(body).toMatchObject(verification('refused'));
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.verification_failed']);
    const { check_count } = await rowOf('integrations', integration_id);
    expect(check_count).toBe(Number(before['check_count']) + 1);
  });
});
