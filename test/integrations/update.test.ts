import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import worker from '../../src/worker/index.ts';
import { countedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
  eventsOn,
  everythingKept,
  importNumber,
  keyChanges,
  newClient,
  openCredentials,
  resources,
  rowOf,
  rows,
  start,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const TWO_HOURS = 2 * 3600 * 1000;

let client: Client;
let integration_id: string;

beforeEach(async () => {
  client = await newClient();
  integration_id = await createIntegration(client);
  await env.DB.prepare(
    `UPDATE integrations SET created_at = unixepoch('2024-01-15T10:30:00Z'), updated_at = unixepoch('2024-01-15T10:30:00Z')
     WHERE integration_id = ?`,
  )
    .bind(integration_id)
    .run();
});

afterEach(() => {
  vi.useRealTimers();
});

const update = (body: unknown, by = client, id = integration_id) =>
  call(by, 'PUT', `/api/integrations/${id}`, { body });

const row = () => rowOf('integrations', integration_id);

const ciphertexts = async () =>
  Object.keys((await resources()).CREDENTIALS).filter((kv_key) => kv_key.includes(integration_id));

const loseCredentials = () =>
  env.DB.prepare(`UPDATE integrations SET status = 'credentials_missing' WHERE integration_id = ?`)
    .bind(integration_id)
    .run();

const fresh = { ...twilio, auth_token: 'plaintext-fresh-token' };
const toIso = (seconds: unknown) => new Date(Number(seconds) * 1000).toISOString().replace('.000Z', 'Z');

describe('a new name', () => {
  it('is answered as it is stored, to the character', async () => {
    const { status, text, headers } = await update({ name: 'Twilio Staging' });

    const { updated_at, verification_checked_at } = await row();
    expect(status).toBe(200);
    expect(headers.get('Content-Type')).toBe('application/json');
    expect(text).toBe(
      `{"success":true,"message":"Integration updated successfully","data":{"integration_id":"${integration_id}",` +
        `"client_id":"${client.organization_id}","name":"Twilio Staging","provider":"twilio","category":"telephony",` +
        `"status":"active","created_at":"2024-01-15T10:30:00Z","updated_at":"${toIso(updated_at)}",` +
        `"account_hint":"AC…cdef","verification":{"status":"verified","checked_at":"${toIso(verification_checked_at)}",` +
        '"provider_status":200,"provider_code":null,"detail":"The provider accepted the credentials."}}}',
    );
    expect(Number(updated_at)).toBeGreaterThan(Date.now() / 1000 - 60);
  });

  it('changes the name, the time and the revision, and nothing else', async () => {
    const before = await resources();
    const { updated_at: _, ...unchanged } = await row();

    await update({ name: 'Twilio Staging' });

    expect(await row()).toEqual({
      ...unchanged,
      name: 'Twilio Staging',
      name_folded: 'twilio staging',
      revision: 2,
      updated_at: expect.any(Number),
    });
    const others = ({ integrations }: typeof before) =>
      integrations.filter((found) => found['integration_id'] !== integration_id);
    const after = await resources();
    expect(others(after)).toEqual(others(before));
    expect({ ...after, integrations: [] }).toEqual({ ...before, integrations: [] });
    expect(await openCredentials(integration_id)).toEqual(twilio);
  });

  it('is what a read shows from then on', async () => {
    const { text } = await update({ name: 'Twilio Staging' });

    const read = await call(client, 'GET', `/api/integrations/${integration_id}`);
    expect(JSON.parse(read.text).data).toEqual(JSON.parse(text).data);
  });

  it('may be the old one', async () => {
    expect(await update({ name: 'Twilio Production' })).toMatchObject({ status: 200 });
    expect(await row()).toMatchObject({ name: 'Twilio Production', revision: 2 });
  });

  it.each(['x', '📞'.repeat(100), "Robert'); DROP TABLE integrations;--"])('may be %j', async (name) => {
    expect(await update({ name })).toMatchObject({ status: 200, body: { data: { name } } });
    expect(await row()).toMatchObject({ name });
  });

  it('is given while phone numbers reference the integration, and by a role that holds the permission', async () => {
    await importNumber(client, integration_id, unusedNumber());
    const manager = await newClient({ organization_id: client.organization_id, role: 'agent_manager' });

    expect((await update({ name: 'Twilio Staging' }, manager)).status).toBe(200);
  });

  it('brings no credentials back', async () => {
    await loseCredentials();

    const { body } = await update({ name: 'Twilio Staging' });

    expect(body).toMatchObject({ data: { status: 'credentials_missing' } });
    expect(await row()).toMatchObject({ status: 'credentials_missing' });
  });

  it('costs a warm isolate one batch, and nothing after the answer', async () => {
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'PUT', `/api/integrations/${integration_id}`, { body: { name: 'x' }, bindings });
    await answer.settle();

    expect(calls).toEqual(['DB.batch']);
  });
});

describe('new credentials', () => {
  it('open with a new data key; the old ciphertext is gone and the outbox empty', async () => {
    const old = await row();
    const [oldKey] = await ciphertexts();

    const { status, text } = await update({ credentials: fresh });

    expect(status).toBe(200);
    expect(text).not.toContain('plaintext');
    expect(await openCredentials(integration_id)).toEqual(fresh);
    const { credentials_version, data_key, name, revision, status: state } = await row();
    expect([credentials_version, data_key]).not.toContain(old['credentials_version']);
    expect(data_key).not.toBe(old['data_key']);
    expect({ name, revision, status: state }).toEqual({ name: 'Twilio Production', revision: 2, status: 'active' });
    expect(await ciphertexts()).toEqual([
      `v1/${client.organization_id}/${integration_id}/${String(credentials_version)}`,
    ]);
    expect(await ciphertexts()).not.toContain(oldKey);
    expect(await rows('credential_purges')).toEqual([]);
  });

  it('are a new version with a new data key even where they are the old ones', async () => {
    const { credentials_version, data_key } = await row();

    expect((await update({ credentials: twilio })).status).toBe(200);

    const after = await row();
    expect(after['credentials_version']).not.toBe(credentials_version);
    expect(after['data_key']).not.toBe(data_key);
    expect(await openCredentials(integration_id)).toEqual(twilio);
  });

  it('come with a new name in one update', async () => {
    const { body } = await update({ name: 'Twilio Staging', credentials: fresh });

    expect(body).toMatchObject({ data: { name: 'Twilio Staging' } });
    expect(await row()).toMatchObject({ name: 'Twilio Staging', revision: 2 });
    expect(await openCredentials(integration_id)).toEqual(fresh);
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.updated']);
  });

  it.each([
    [
      'twilio',
      {
        ...twilio,
        auth_token: undefined,
        api_key_sid: 'SK0123456789abcdef0123456789abcdef',
        api_key_secret: 'plaintext-fresh-secret',
      },
    ],
    ['telnyx', { provider: 'telnyx', api_key: 'plaintext-fresh-key' }],
    ['vonage', { provider: 'vonage', api_key: 'k', api_secret: 'plaintext-fresh-secret' }],
    ['plivo', { provider: 'plivo', auth_id: 'MA0123456789ABCDEFGH', auth_token: 'plaintext-fresh-token' }],
  ])('may be of another form of %s', async (provider, credentials) => {
    const old = {
      telnyx: { api_key: 'old' },
      vonage: { api_key: 'o', api_secret: 'o' },
      plivo: { auth_id: 'MA0123456789ABCDEFGH', auth_token: 'o' },
    };
    const given = Object.entries(old).find(([name]) => name === provider)?.[1];
    if (given) integration_id = await createIntegration(client, { provider, ...given });

    expect((await update({ credentials })).status).toBe(200);

    expect(await openCredentials(integration_id)).toEqual(JSON.parse(JSON.stringify(credentials)));
  });

  it('make an integration active that had lost them', async () => {
    await loseCredentials();

    const { body } = await update({ credentials: fresh });

    expect(body).toMatchObject({ data: { status: 'active' } });
    expect(await row()).toMatchObject({ status: 'active' });
    expect(await openCredentials(integration_id)).toEqual(fresh);
  });

  it('cost a warm isolate an intent, a call to the provider, a put and a batch, and after the answer a KV delete and a batch', async () => {
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'PUT', `/api/integrations/${integration_id}`, {
      body: { name: 'x', credentials: fresh },
      bindings,
    });

    expect(calls).toEqual(['DB.batch', 'provider.fetch', 'CREDENTIALS.put', 'DB.batch']);
    await answer.settle();
    expect(calls.slice(4)).toEqual(['CREDENTIALS.delete', 'DB.batch']);
  });
});

describe('the audit event of an update', () => {
  it('has the state before it, who did it and when, and nothing that leads to credentials', async () => {
    const before = await row();

    const { headers } = await update({ name: 'Twilio Staging', credentials: fresh });

    const kept = ['data_key', 'kek_id', 'phone_number_count', 'account_fingerprint', 'last_verdict', 'check_count'];
    const keptToo = [...kept, 'recheck_from', 'checking_until', 'name_folded'];
    const state = Object.fromEntries(Object.entries(before).filter(([name]) => !keptToo.includes(name)));
    expect((await eventsOn(integration_id)).slice(1)).toEqual([
      expect.objectContaining({
        action: 'integration.updated',
        actor_key_id: client.key_id,
        request_id: headers.get('X-Request-Id'),
        created_at: (await row())['updated_at'],
        state,
      }),
    ]);
  });

  it('is one for each, each with the revision that it replaced', async () => {
    await update({ name: 'Second' });
    await update({ credentials: fresh });
    await update({ name: 'Third' });

    expect((await eventsOn(integration_id)).slice(1)).toMatchObject([
      { action: 'integration.updated', state: { name: 'Twilio Production', revision: 1 } },
      { action: 'integration.updated', state: { name: 'Second', revision: 2 } },
      { action: 'integration.updated', state: { name: 'Second', revision: 3 } },
    ]);
    expect(await row()).toMatchObject({ name: 'Third', revision: 4 });
  });
});

describe('an update that is refused', () => {
  async function refusal(body: unknown, by = client, id = integration_id) {
    const before = await everythingKept();
    const { bindings, calls } = countedBindings();
    const answer = await call(by, 'PUT', `/api/integrations/${id}`, { body, bindings });
    expect(await everythingKept()).toEqual(before);
    expect(calls).not.toContain('CREDENTIALS.put');
    return answer;
  }

  const telnyx = { provider: 'telnyx', api_key: 'plaintext-key' };

  it.each<[string, unknown, string]>([
    ['nothing', {}, ''],
    ['no object', [], ''],
    ['null', null, ''],
    ['a name that is null', { name: null }, 'name'],
    ['a name of 0 characters', { name: '' }, 'name'],
    ['a name of 101 characters', { name: 'x'.repeat(101) }, 'name'],
    ['a name with a line break', { name: 'a\nb' }, 'name'],
    ['a surplus member', { name: 'x', status: 'active' }, 'status'],
    ['a provider beside a name', { name: 'x', provider: 'telnyx' }, 'provider'],
    ['credentials that are null', { credentials: null }, 'credentials'],
    ['credentials of no provider', { credentials: { api_key: 'plaintext' } }, 'credentials.provider'],
    ['credentials of an unknown provider', { credentials: { ...telnyx, provider: 'acme' } }, 'credentials.provider'],
    [
      'half of the credentials',
      { credentials: { provider: 'twilio', account_sid: twilio.account_sid } },
      'credentials',
    ],
    [
      'one credential alone',
      { credentials: { provider: 'twilio', auth_token: 'plaintext' } },
      'credentials.account_sid',
    ],
    ['a name, and credentials that are not valid', { name: 'x', credentials: {} }, 'credentials.provider'],
  ])('is a 422 by %s', async (_, body, path) => {
    const { status, body: problem, text } = await refusal(body);

    expect(status).toBe(422);
    expect(problem).toMatchObject({ code: 'validation_failed', errors: [{ path, message: expect.any(String) }] });
    expect(text).not.toContain('plaintext');
  });

  it.each([{ credentials: telnyx }, { name: 'Telnyx', credentials: telnyx }])(
    'is a 422 by credentials of another provider, and nothing at all is stored: %j',
    async (body) => {
      const { status, body: problem, text } = await refusal(body);

      expect(status).toBe(422);
      expect(problem).toMatchObject({
        code: 'validation_failed',
        errors: [{ path: 'credentials.provider', message: 'must be the same provider as before' }],
      });
      expect(text).not.toContain('plaintext');
      expect(await actionsOn(integration_id)).toEqual(['integration.created']);
    },
  );

  it.each([{ name: 'x' }, { credentials: fresh }, { name: 'x', credentials: telnyx }])(
    'is one and the same 404 where the integration is missing and where it is another organization’s: %j',
    async (body) => {
      const stranger = await newClient();
      await call(stranger, 'GET', '/api/nothing');

      const foreign = await refusal(body, stranger);
      const missing = await refusal(body, stranger, 'intg_000000000000');

      expect(foreign).toMatchObject({ status: 404, body: { code: 'integration_not_found' } });
      const withoutRequestId = (text: string) => text.replace(/"request_id":"[^"]*"/, '');
      expect(withoutRequestId(foreign.text)).toBe(withoutRequestId(missing.text));
    },
  );

  it('is a 422 by a malformed id', async () => {
    expect(await refusal({ name: 'x' }, client, 'intg_A1B2C3D4E5F6')).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'integration_id' }] },
    });
  });

  describe.each(keyChanges)('by a key that, cached as alive, %s', (_, assignment, status, code) => {
    it.each([{ name: 'Taken over' }, { credentials: fresh }, { name: 'Taken over', credentials: fresh }])(
      'changes nothing: %j',
      async (body) => {
        await changeKey(client, assignment);

        expect(await refusal(body)).toMatchObject({ status, body: { code } });
        expect(await actionsOn(integration_id)).toEqual(['integration.created']);
        expect(await openCredentials(integration_id)).toEqual(twilio);
      },
    );
  });

  it('tells a downgraded key which permission it lost', async () => {
    await changeKey(client, `role = 'user'`);

    expect((await refusal({ name: 'x' })).body).toMatchObject({ required_permission: 'integrations:update' });
  });

  it('changes nothing with a key that D1 knows as another organization’s', async () => {
    const stranger = await newClient();
    await changeKey(client, `organization_id = '${stranger.organization_id}'`);

    expect(await refusal({ name: 'x' })).toMatchObject({ status: 401 });
    // The isolate has forgotten the key, and learns whose it is.
    expect(await refusal({ credentials: fresh })).toMatchObject({
      status: 403,
      body: { code: 'organization_mismatch' },
    });
  });
});

describe('simultaneous updates', () => {
  it('are all done, one after the other, each on record', async () => {
    const names = Array.from({ length: 12 }, (_, index) => `Name ${index}`);

    const answers = await Promise.all(names.map((name) => update({ name })));

    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(await row()).toMatchObject({ name: expect.stringMatching(/^Name/), revision: 13 });
    const states = (await eventsOn(integration_id)).slice(1).map(({ state }) => state);
    const revisions = states.map((state) => Number(Object(state).revision)).toSorted((a, b) => a - b);
    expect(revisions).toEqual(Array.from({ length: 12 }, (_, index) => index + 1));
  });

  it('of credentials leave one version, which opens, and no other ciphertext', async () => {
    const tokens = Array.from({ length: 6 }, (_, index) => `plaintext-token-${index}`);

    const answers = await Promise.all(tokens.map((auth_token) => update({ credentials: { ...twilio, auth_token } })));

    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(await openCredentials(integration_id)).toMatchObject({
      auth_token: expect.stringMatching(/^plaintext-token-/),
    });
    expect(await ciphertexts()).toHaveLength(1);
    expect(await rows('credential_purges')).toEqual([]);
  });

  it('and deletes leave no ciphertext behind, in 40 races', async () => {
    const outcomes = new Set<string>();
    for (let race = 0; race < 40; race += 1) {
      const contested = await createIntegration(client);
      const updating = update({ credentials: fresh }, client, `${contested}?verify=false`);
      for (let turn = 0; turn < race % 4; turn += 1) await scheduler.wait(0);
      const [updated, deleted] = await Promise.all([
        updating,
        call(client, 'DELETE', `/api/integrations/${contested}`),
      ]);
      outcomes.add(`${deleted.status} ${updated.status}`);
    }

    expect([...outcomes].toSorted()).toEqual(['200 200', '200 404']);
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + TWO_HOURS });
    await worker.scheduled(createScheduledController(), env);
    expect(await rows('credential_purges')).toEqual([]);
    const live = (await rows('integrations')).map((found) => String(found['integration_id']));
    const kept = Object.keys((await resources()).CREDENTIALS).map((kv_key) => kv_key.split('/')[2]);
    expect(kept).toHaveLength(live.length);
    expect(new Set(kept)).toEqual(new Set(live));
  });
});
