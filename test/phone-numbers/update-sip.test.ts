/** Updates of what only SIP numbers have: their trunk, and their credentials, which are a new version each time. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { opens } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { credentialsKey } from '../../src/worker/credentials/kv-key.ts';
import type { Bindings } from '../../src/worker/env.ts';
import worker from '../../src/worker/index.ts';
import { countedBindings, failingBindings, interceptedBindings, stallingBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
  everythingKept,
  importNumber,
  keyChanges,
  newClient,
  openCredentials,
  page,
  resources,
  rowOf,
  rows,
  start,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const TWO_HOURS = 2 * 3600 * 1000;
const secrets = { sip_password: 'plaintext-old', inbound_pin: '0042' };
const trunk = {
  sip_trunk_name: 'Front desk',
  sip_username: 'frontdesk',
  sip_server_address: 'sip.example.com',
  sip_transport: 'udp',
  inbound_room_name: 'Lobby',
  media_encryption: 'allow',
};
const empty = {
  sip_trunk_name: null,
  sip_username: null,
  sip_server_address: null,
  sip_transport: 'auto',
  inbound_room_name: null,
  media_encryption: 'allow',
};
const sipMembers = Object.keys({ ...trunk, ...secrets });
const nullable = sipMembers.filter((name) => !['sip_transport', 'media_encryption'].includes(name));

let client: Client;
let id: string;

const imported = z.object({ data: z.object({ phone_number_id: z.string() }) });

async function importSip(members: object = {}): Promise<string> {
  const { body } = await call(client, 'POST', '/api/phone-numbers', {
    body: { provider: 'sip', phone_number: unusedNumber(), ...members },
  });
  return imported.parse(body).data.phone_number_id;
}

beforeEach(async () => {
  client = await newClient();
  id = await importSip({ ...trunk, ...secrets });
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const update = (body: unknown, bindings: Bindings = env, by = client) =>
  call(by, 'PUT', `/api/phone-numbers/${id}`, { body, bindings });

const row = () => rowOf('phone_numbers', id);
const credentialsOfRow = async () => {
  const { credentials_version, data_key, kek_id } = await row();
  return { credentials_version, data_key, kek_id };
};

const shown = z.object({ data: z.record(z.string(), z.unknown()) });

async function shownTrunk(): Promise<object> {
  const { data } = shown.parse((await call(client, 'GET', `/api/phone-numbers/${id}`)).body);
  return Object.fromEntries(Object.keys(trunk).map((name) => [name, data[name]]));
}

const ciphertexts = async () => Object.keys((await resources()).CREDENTIALS).filter((kv_key) => kv_key.includes(id));

/** The number's one ciphertext is the one that its row names, and it is the only thing left. */
async function expectOneCiphertext() {
  const { credentials_version } = await row();
  expect(await ciphertexts()).toEqual([credentialsKey(client.organization_id, id, String(credentials_version))]);
}

async function drainLater() {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + TWO_HOURS });
  await worker.scheduled(createScheduledController(), env);
  vi.useRealTimers();
}

/** Refused: nothing at all is stored, and nothing was put. */
async function refusal(body: unknown, by = client) {
  const before = await everythingKept();
  const { bindings, calls } = countedBindings();
  const answer = await update(body, bindings, by);
  expect(await everythingKept()).toEqual(before);
  expect(calls).not.toContain('CREDENTIALS.put');
  return answer;
}

const problem = z.object({ code: z.literal('validation_failed'), errors: z.array(z.unknown()) });

async function faultsOf(body: object) {
  const { status, body: answered } = await refusal(body);
  expect(status).toBe(422);
  return problem.parse(answered).errors;
}

describe('the trunk of a SIP number', () => {
  it.each([
    { sip_trunk_name: 'Back desk' },
    { sip_trunk_name: null },
    { sip_username: 'backdesk' },
    { sip_server_address: '[2001:db8::1]:5061' },
    { sip_server_address: null },
    { sip_transport: 'auto' },
    { sip_transport: 'tcp' },
    { sip_transport: 'tls' },
    { inbound_room_name: 'Hall' },
    { inbound_room_name: null },
    { media_encryption: 'require' },
    { media_encryption: 'disable' },
    {
      sip_trunk_name: 'Back desk',
      sip_username: 'backdesk',
      sip_server_address: null,
      sip_transport: 'tls',
      inbound_room_name: null,
      media_encryption: 'require',
    },
  ])('becomes what it is told, and stays otherwise: %j', async (changes) => {
    const { CREDENTIALS, credential_purges } = await resources();
    const credentials = await credentialsOfRow();

    const { status, body } = await update(changes);

    expect(status).toBe(200);
    expect(body).toMatchObject({ data: { ...trunk, ...changes } });
    expect(await shownTrunk()).toEqual({ ...trunk, ...changes });
    expect(await row()).toMatchObject({ ...trunk, ...changes, ...credentials, revision: 2 });
    expect(await resources()).toMatchObject({ CREDENTIALS, credential_purges });
  });

  it('has its server in lower case', async () => {
    expect(await update({ sip_server_address: 'SIP.Example.COM' })).toMatchObject({
      body: { data: { sip_server_address: 'sip.example.com' } },
    });
    expect(await row()).toMatchObject({ sip_server_address: 'sip.example.com' });
  });

  it('costs a warm isolate one batch, and nothing after the answer', async () => {
    const { bindings, calls } = countedBindings();

    await update({ ...trunk, sip_username: 'backdesk' }, bindings);

    expect(calls).toEqual(['DB.batch']);
  });

  it.each([...nullable, 'all'])('that has nothing is sent null, and stays so: %s', async (name) => {
    id = await importSip();
    const before = await resources();
    const changes = Object.fromEntries((name === 'all' ? nullable : [name]).map((member) => [member, null]));

    expect((await update(changes)).status).toBe(200);

    expect(await shownTrunk()).toEqual(empty);
    const { phone_numbers: _, ...rest } = before;
    expect(await resources()).toMatchObject(rest);
    expect(await row()).toMatchObject({ credentials_version: null, data_key: null, kek_id: null });
  });

  it('that is older than the choice of a transport has any, and says no word of it in its events', async () => {
    await env.DB.prepare('UPDATE phone_numbers SET sip_transport = NULL').run();

    expect(await update({ sip_trunk_name: 'Back desk' })).toMatchObject({ body: { data: { sip_transport: 'auto' } } });

    const { data } = await page(client, `/api/audit-events?target_id=${id}`);
    expect(data[1]).toMatchObject({ state: { sip_transport: 'auto' } });
    expect(data[1]?.['changes']).toEqual({ sip_trunk_name: { from: 'Front desk', to: 'Back desk' } });
  });

  it.each([
    [{ sip_trunk_name: ' x' }, 'sip_trunk_name'],
    [{ sip_username: 'a:b' }, 'sip_username'],
    [{ sip_password: 'Bearer plaintext' }, 'sip_password'],
    [{ sip_server_address: 'localhost' }, 'sip_server_address'],
    [{ sip_transport: 'sctp' }, 'sip_transport'],
    [{ inbound_room_name: '' }, 'inbound_room_name'],
    [{ inbound_pin: '123' }, 'inbound_pin'],
    [{ media_encryption: 'maybe' }, 'media_encryption'],
  ])('must be right as in an import: %j', async (changes, path) => {
    const { text } = await refusal({ supports_inbound: true, ...changes });

    expect(JSON.parse(text)).toMatchObject({ status: 422, errors: [{ path }] });
    expect(text).not.toContain('plaintext');
  });

  it.each(['sip_transport', 'media_encryption'])('always has a %s', async (path) => {
    expect(await faultsOf({ [path]: null, sip_trunk_name: 'x' })).toEqual([{ path, message: 'must not be null' }]);
  });
});

describe('a SIP number that supports outbound', () => {
  const path = 'sip_server_address';
  const message = 'must not be null if supports_outbound is true';

  it('keeps its server', async () => {
    await update({ supports_outbound: true });

    expect(await faultsOf({ sip_server_address: null })).toEqual([{ path, message }]);
    expect(await faultsOf({ sip_server_address: null, inbound_pin: '0815' })).toEqual([{ path, message }]);
  });

  it('does not become one while it loses its server', async () => {
    expect(await faultsOf({ sip_server_address: null, supports_outbound: true })).toEqual([{ path, message }]);
  });

  it('may lose its server as it ceases to support outbound, and get one as it begins to', async () => {
    await update({ supports_outbound: true });
    expect((await update({ supports_outbound: false, sip_server_address: null })).status).toBe(200);
    expect(await row()).toMatchObject({ supports_outbound: 0, sip_server_address: null });

    const changes = { supports_outbound: true, sip_server_address: 'sip.example.com' };
    expect((await update(changes)).status).toBe(200);
    expect(await row()).toMatchObject({ ...changes, supports_outbound: 1 });
  });

  it('has a server after any race', async () => {
    const outcomes = new Set<string>();
    for (let race = 0; race < 20; race += 1) {
      await update({ supports_outbound: false, sip_server_address: 'sip.example.com' });
      const bodies = [{ supports_outbound: true }, { sip_server_address: null }];
      const answers = await Promise.all((race % 2 ? bodies : bodies.toReversed()).map((body) => update(body)));
      outcomes.add(answers.map(({ status }) => status).join(' '));
      const { supports_outbound, sip_server_address } = await row();
      expect([
        [1, 'sip.example.com'],
        [0, null],
      ]).toContainEqual([supports_outbound, sip_server_address]);
    }
    expect([...outcomes].filter((outcome) => !/^(?:200 422|422 200)$/.test(outcome))).toEqual([]);
  });
});

describe('the user and the password of a SIP number', () => {
  it.each<[string, object, string, string]>([
    ['a user', { sip_username: 'user' }, 'sip_password', 'is required if sip_username is given'],
    ['a password', { sip_password: 'plaintext' }, 'sip_username', 'is required if sip_password is given'],
    [
      'a user and no password',
      { sip_username: 'user', sip_password: null },
      'sip_password',
      'is required if sip_username is given',
    ],
    [
      'a password and no user',
      { sip_password: 'plaintext', sip_username: null },
      'sip_username',
      'is required if sip_password is given',
    ],
  ])('where it has neither are not %s alone', async (_, changes, path, message) => {
    id = await importSip({ inbound_pin: '0042' });

    expect(await faultsOf(changes)).toEqual([{ path, message }]);
    expect(await openCredentials(id)).toEqual({ inbound_pin: '0042' });
  });

  it.each<[string, object, string, string]>([
    ['the user', { sip_username: null }, 'sip_password', 'must be null if sip_username is null'],
    ['the password', { sip_password: null }, 'sip_username', 'must be null if sip_password is null'],
    [
      'the password, for another user',
      { sip_password: null, sip_username: 'other' },
      'sip_username',
      'must be null if sip_password is null',
    ],
    [
      'the user, for another password',
      { sip_password: 'plaintext-new', sip_username: null },
      'sip_username',
      'is required if sip_password is given',
    ],
  ])('are not removed one by one: %s', async (_, changes, path, message) => {
    expect(await faultsOf(changes)).toEqual([{ path, message }]);
    expect(await faultsOf({ ...changes, inbound_pin: '0815' })).toEqual([{ path, message }]);
    expect(await openCredentials(id)).toEqual(secrets);
  });

  it('come together and go together', async () => {
    id = await importSip();
    const both = { sip_username: 'user', sip_password: 'plaintext-new' };

    expect((await update(both)).status).toBe(200);
    expect(await row()).toMatchObject({ sip_username: 'user' });
    expect(await openCredentials(id)).toEqual({ sip_password: 'plaintext-new' });

    expect((await update({ sip_username: null, sip_password: null })).status).toBe(200);
    expect(await row()).toMatchObject({ sip_username: null, credentials_version: null });
    expect(await ciphertexts()).toEqual([]);
  });
});

describe('a number that is not a SIP number', () => {
  beforeEach(async () => {
    id = await importNumber(client, await createIntegration(client), unusedNumber());
  });

  it.each(sipMembers)('has no %s', async (path) => {
    const value = { ...trunk, ...secrets }[path];

    expect(await faultsOf({ [path]: value, supports_inbound: true })).toEqual([
      { path, message: 'is only for SIP numbers' },
    ]);
  });

  it('is told of each of them', async () => {
    const { text } = await refusal({ ...trunk, ...secrets });

    const errors = JSON.parse(text).errors.map((error: { path: string }) => error.path);
    expect(errors.toSorted()).toEqual(sipMembers.toSorted());
  });

  it('may be sent null for all of them, as it has them', async () => {
    const { phone_numbers: _, ...rest } = await resources();
    const nulls = Object.fromEntries(sipMembers.map((name) => [name, null]));

    const { status, body } = await update({ ...nulls, supports_inbound: true });

    expect(status).toBe(200);
    expect(body).toMatchObject({ data: { ...empty, sip_transport: null, media_encryption: null } });
    expect(body).toMatchObject({ data: { supports_inbound: true } });
    expect(await row()).toMatchObject({ sip_transport: null, credentials_version: null, revision: 2 });
    expect(await resources()).toMatchObject(rest);
  });
});

describe('new SIP credentials', () => {
  it.each<[string, object, object]>([
    ['a password keeps the PIN', { sip_password: 'plaintext-new' }, { ...secrets, sip_password: 'plaintext-new' }],
    ['a PIN keeps the password', { inbound_pin: '0815' }, { ...secrets, inbound_pin: '0815' }],
    [
      'both are new',
      { sip_password: 'plaintext-new', inbound_pin: '0815' },
      { sip_password: 'plaintext-new', inbound_pin: '0815' },
    ],
    ['they may be the old ones', secrets, secrets],
    ['no PIN keeps the password', { inbound_pin: null }, { sip_password: 'plaintext-old' }],
    ['no user and no password keep the PIN', { sip_username: null, sip_password: null }, { inbound_pin: '0042' }],
    [
      'a password without a PIN',
      { sip_password: 'plaintext-new', inbound_pin: null },
      { sip_password: 'plaintext-new' },
    ],
  ])('are a new version, and the old one is gone: %s', async (_, changes, expected) => {
    const before = await row();
    const kv_key = credentialsKey(client.organization_id, id, String(before['credentials_version']));
    const old = new Uint8Array((await env.CREDENTIALS.get(kv_key, 'arrayBuffer')) ?? []);

    const { status, text } = await update(changes);

    expect(status).toBe(200);
    expect(text).not.toMatch(/plaintext|0815|0042/);
    expect(await openCredentials(id)).toEqual(expected);
    const after = await row();
    expect(after['credentials_version']).not.toBe(before['credentials_version']);
    expect(after['data_key']).not.toBe(before['data_key']);
    await expectOneCiphertext();
    expect(await rows('credential_purges')).toEqual([]);
    // What somebody has kept of the old ciphertext opens with nothing that is stored now.
    const wrapped = { data_key: String(after['data_key']), kek_id: String(after['kek_id']) };
    expect(await opens(await parseKekRing(env.CREDENTIALS_KEKS), kv_key, wrapped, old)).toBe(false);
  });

  it('come with other changes in one update', async () => {
    const changes = { sip_username: 'backdesk', sip_transport: 'tls', assigned_agent_id: 'agent_1' };

    const { body } = await update({ ...changes, sip_password: 'plaintext-new' });

    expect(body).toMatchObject({ data: { ...changes, status: 'assigned' } });
    expect(await row()).toMatchObject({ ...changes, status: 'assigned', revision: 2 });
    expect(await openCredentials(id)).toEqual({ ...secrets, sip_password: 'plaintext-new' });
    expect(await actionsOn(id)).toEqual(['phone_number.imported', 'phone_number.updated']);
  });

  it('may be a number’s first', async () => {
    id = await importSip();

    await update({ inbound_pin: '0815' });
    expect(await openCredentials(id)).toEqual({ inbound_pin: '0815' });
    await update({ sip_username: 'user', sip_password: 'plaintext-new' });
    expect(await openCredentials(id)).toEqual({ inbound_pin: '0815', sip_password: 'plaintext-new' });
    await expectOneCiphertext();
  });

  it('are none where all are null: the row has none, and the ciphertext is gone', async () => {
    expect((await update({ sip_username: null, sip_password: null, inbound_pin: null })).status).toBe(200);

    expect(await row()).toMatchObject({ credentials_version: null, data_key: null, kek_id: null, revision: 2 });
    expect(await ciphertexts()).toEqual([]);
    expect(await rows('credential_purges')).toEqual([]);
  });

  it('are none where the only one is null', async () => {
    id = await importSip({ inbound_pin: '0042' });

    expect((await update({ inbound_pin: null })).status).toBe(200);

    expect(await row()).toMatchObject({ credentials_version: null, data_key: null, kek_id: null });
    expect(await ciphertexts()).toEqual([]);
    expect(await rows('credential_purges')).toEqual([]);
  });

  it('are not made where null changes nothing', async () => {
    id = await importSip({ sip_username: 'user', sip_password: 'plaintext-old' });
    const credentials = await credentialsOfRow();

    expect((await update({ inbound_pin: null, supports_inbound: true })).status).toBe(200);

    expect(await credentialsOfRow()).toEqual(credentials);
    expect(await row()).toMatchObject({ supports_inbound: 1 });
    expect(await openCredentials(id)).toEqual({ sip_password: 'plaintext-old' });
  });

  it.each<[string, object, string[], string[]]>([
    [
      'for one of two: a batch and a KV get before an intent, a put and a batch',
      { sip_password: 'plaintext-new' },
      ['DB.batch', 'CREDENTIALS.get', 'DB.batch', 'CREDENTIALS.put', 'DB.batch'],
      ['CREDENTIALS.delete', 'DB.batch'],
    ],
    [
      'for both: an intent, a put and a batch',
      { sip_password: 'plaintext-new', inbound_pin: null },
      ['DB.batch', 'CREDENTIALS.put', 'DB.batch'],
      ['CREDENTIALS.delete', 'DB.batch'],
    ],
    [
      'for the removal of both: a batch',
      { sip_username: null, sip_password: null, inbound_pin: null },
      ['DB.batch'],
      ['CREDENTIALS.delete', 'DB.batch'],
    ],
  ])('cost a warm isolate %s, and after the answer a KV delete and a batch', async (_, body, before, after) => {
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'PUT', `/api/phone-numbers/${id}`, { body, bindings });

    expect(calls).toEqual(before);
    await answer.settle();
    expect(calls.slice(before.length)).toEqual(after);
  });

  it.each([
    { sip_password: 'plaintext-new' },
    { sip_username: null, sip_password: null, inbound_pin: null },
    { sip_username: 'other', ...secrets },
  ])('leave the old ciphertext to the cron where KV fails after the answer: %j', async (body) => {
    vi.spyOn(console, 'error').mockImplementation(() => {});
    const [old] = await ciphertexts();
    const { bindings } = failingBindings('CREDENTIALS.delete', { when: 'before', message: 'KV DELETE failed: 500' });

    expect((await update(body, bindings)).status).toBe(200);

    expect(await rows('credential_purges')).toMatchObject([{ kv_key: old, state: 'owed' }]);
    await worker.scheduled(createScheduledController(), env);
    expect(await rows('credential_purges')).toEqual([]);
    expect(await ciphertexts()).not.toContain(old);
  });

  it('are told in the audit trail, without themselves', async () => {
    await update({ sip_password: 'plaintext-new', sip_transport: 'tls' });
    await update({ sip_username: null, sip_password: null, inbound_pin: null });
    await update({ inbound_pin: null });

    const { data } = await page(client, `/api/audit-events?target_id=${id}`);
    const credentials = { from: '[redacted]', to: '[redacted]' };
    expect(data.map(({ action, changes }) => [action, changes])).toEqual([
      ['phone_number.imported', null],
      ['phone_number.updated', { sip_transport: { from: 'udp', to: 'tls' }, credentials }],
      ['phone_number.updated', { sip_username: { from: 'frontdesk', to: null }, credentials }],
      ['phone_number.updated', {}],
    ]);
    expect(JSON.stringify(data)).not.toMatch(/plaintext|password|0042/);
  });

  it('are made once under an Idempotency-Key', async () => {
    const headers = { 'Idempotency-Key': 'once' };
    const send = () =>
      call(client, 'PUT', `/api/phone-numbers/${id}`, { body: { sip_password: 'plaintext-new' }, headers });
    const first = await send();
    await update({ inbound_pin: '0815' });
    const before = await resources();

    const again = await send();

    expect(again.headers.get('Idempotency-Replayed')).toBe('true');
    expect(again.body).toEqual(first.body);
    expect(await resources()).toEqual(before);
    expect(await openCredentials(id)).toEqual({ sip_password: 'plaintext-new', inbound_pin: '0815' });
  });
});

describe('new SIP credentials that are refused', () => {
  const bodies = [
    { sip_password: 'plaintext-new' },
    { inbound_pin: '0815' },
    { sip_password: 'plaintext-new', inbound_pin: '0815' },
    { inbound_pin: null },
    { sip_username: null, sip_password: null, inbound_pin: null },
  ];

  it.each(bodies)('are one and the same 404 for another organization’s number and for none: %j', async (body) => {
    const stranger = await newClient();
    await call(stranger, 'GET', '/api/nothing');

    const foreign = await refusal(body, stranger);
    expect(foreign).toMatchObject({ status: 404, body: { code: 'phone_number_not_found' } });
    expect(await openCredentials(id)).toEqual(secrets);
    id = 'phon_000000000000';
    const missing = await refusal(body, stranger);

    const withoutRequestId = (text: string) => text.replace(/"request_id":"[^"]*"/, '');
    expect(withoutRequestId(foreign.text)).toBe(withoutRequestId(missing.text));
  });

  it.each(keyChanges)('change nothing by a key that, cached as alive, %s', async (_, assignment, status, code) => {
    await changeKey(client, assignment);

    for (const body of bodies) expect(await refusal(body)).toMatchObject({ status, body: { code } });
    expect(await actionsOn(id)).toEqual(['phone_number.imported']);
    expect(await openCredentials(id)).toEqual(secrets);
  });

  it('change nothing where the audit trail is full', async () => {
    await env.DB.prepare('UPDATE organizations SET max_audit_events = audit_event_count').run();

    for (const body of bodies) {
      expect(await refusal(body)).toMatchObject({ status: 409, body: { code: 'quota_exceeded' } });
    }
    expect(await openCredentials(id)).toEqual(secrets);
  });
});

describe('SIP credentials that cannot be read', () => {
  let logged: string[];

  beforeEach(async () => {
    logged = [];
    vi.spyOn(Math, 'random').mockReturnValue(0);
    vi.spyOn(console, 'error').mockImplementation((line: string) => void logged.push(line));
    for (const kv_key of await ciphertexts()) await env.CREDENTIALS.delete(kv_key);
  });

  it.each([{ sip_password: 'plaintext-new' }, { inbound_pin: '0815' }, { inbound_pin: null }])(
    'cannot be kept, and nothing is done: %j',
    async (body) => {
      expect(await refusal(body)).toMatchObject({
        status: 503,
        body: { code: 'temporarily_unavailable', outcome: 'not_done' },
      });
      expect(await actionsOn(id)).toEqual(['phone_number.imported']);
      expect(logged.filter((line) => line.includes('"credentials_unread"'))).toHaveLength(3);
    },
  );

  it.each<[object, object]>([
    [
      { sip_password: 'plaintext-new', inbound_pin: '0815' },
      { sip_password: 'plaintext-new', inbound_pin: '0815' },
    ],
    [{ sip_password: 'plaintext-new', inbound_pin: null }, { sip_password: 'plaintext-new' }],
  ])('need not be read where both are given: %j', async (body, expected) => {
    expect((await update(body)).status).toBe(200);

    expect(await openCredentials(id)).toEqual(expected);
  });

  it('need not be read where both are removed', async () => {
    expect((await update({ sip_username: null, sip_password: null, inbound_pin: null })).status).toBe(200);

    expect(await row()).toMatchObject({ credentials_version: null });
  });

  it('do not hide what else stands against the call', async () => {
    const fault = { path: 'sip_password', message: 'must be null if sip_username is null' };
    expect(await faultsOf({ sip_username: null, inbound_pin: '0815' })).toEqual([fault]);

    await changeKey(client, `role = 'user'`);
    expect(await refusal({ inbound_pin: '0815' })).toMatchObject({ status: 403 });
  });

  it('do not hide a first answer', async () => {
    const send = () =>
      call(client, 'PUT', `/api/phone-numbers/${id}`, {
        body: { sip_password: 'plaintext-new' },
        headers: { 'Idempotency-Key': 'once' },
      });
    await update({ sip_password: 'plaintext-old', inbound_pin: '0042' });
    const first = await send();
    for (const kv_key of await ciphertexts()) await env.CREDENTIALS.delete(kv_key);

    const again = await send();

    expect(again.headers.get('Idempotency-Replayed')).toBe('true');
    expect(again.body).toEqual(first.body);
  });

  it('are read again, in case KV was only late', async () => {
    await update(secrets);
    let gets = 0;
    const bindings = interceptedBindings((name, carryOut) => {
      if (name === 'CREDENTIALS.get' && (gets += 1) === 1) return Promise.resolve(null);
      return carryOut();
    });

    expect((await update({ sip_password: 'plaintext-new' }, bindings)).status).toBe(200);

    expect(await openCredentials(id)).toEqual({ ...secrets, sip_password: 'plaintext-new' });
  });
});

describe('simultaneous changes of SIP credentials', () => {
  beforeEach(() => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
  });

  it.each(['CREDENTIALS.get', 'CREDENTIALS.put'] as const)(
    'lose none, where one stalls at its %s while the other is done',
    async (stalling) => {
      vi.spyOn(console, 'error').mockImplementation(() => {});
      const { bindings, stalls, letGo } = stallingBindings(stalling);
      const first = update({ sip_password: 'plaintext-new' }, bindings);
      await stalls;

      const second = await update({ inbound_pin: '0815' });
      expect(await openCredentials(id)).toEqual({ ...secrets, inbound_pin: '0815' });
      letGo();

      expect([(await first).status, second.status]).toEqual([200, 200]);
      expect(await openCredentials(id)).toEqual({ sip_password: 'plaintext-new', inbound_pin: '0815' });
      expect(await row()).toMatchObject({ revision: 3 });
      expect(await actionsOn(id)).toEqual(['phone_number.imported', 'phone_number.updated', 'phone_number.updated']);
      await drainLater();
      await expectOneCiphertext();
      expect(await rows('credential_purges')).toEqual([]);
      expect(await openCredentials(id)).toEqual({ sip_password: 'plaintext-new', inbound_pin: '0815' });
    },
  );

  it('remove a PIN that was given while its removal found none', async () => {
    id = await importSip({ sip_username: 'user', sip_password: 'plaintext-old' });
    const { bindings, stalls, letGo } = stallingBindings('CREDENTIALS.get');
    const removal = update({ inbound_pin: null }, bindings);
    await stalls;
    await update({ sip_password: 'plaintext-new', inbound_pin: '0815' });
    vi.spyOn(console, 'error').mockImplementation(() => {});
    letGo();

    expect((await removal).status).toBe(200);

    expect(await openCredentials(id)).toEqual({ sip_password: 'plaintext-new' });
    await expectOneCiphertext();
  });

  it('of which each gives both are all done, and one version is left', async () => {
    const answers = await Promise.all(
      Array.from({ length: 6 }, (_, index) =>
        update({ sip_password: `plaintext-${index}`, inbound_pin: `000${index}` }),
      ),
    );

    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    const left = z.object({ sip_password: z.string(), inbound_pin: z.string() }).parse(await openCredentials(id));
    expect(left.sip_password.at(-1)).toBe(left.inbound_pin.at(-1));
    await expectOneCiphertext();
    expect(await rows('credential_purges')).toEqual([]);
  });

  it('end as not done where others are always faster, and leave theirs in force', async () => {
    let puts = 0;
    const others: number[] = [];
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'CREDENTIALS.put') {
        puts += 1;
        others.push((await update({ sip_password: `plaintext-${puts}` })).status);
      }
      return result;
    });

    expect(await update({ inbound_pin: '0815' }, bindings)).toMatchObject({
      status: 503,
      body: { code: 'temporarily_unavailable', outcome: 'not_done' },
    });

    expect(others).toEqual([200, 200, 200]);
    expect(await openCredentials(id)).toEqual({ ...secrets, sip_password: 'plaintext-3' });
    await drainLater();
    await expectOneCiphertext();
    expect(await rows('credential_purges')).toEqual([]);
  });

  it('are a 404 where the number is deleted between the intent and the batch, and leave nothing', async () => {
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'CREDENTIALS.put') await call(client, 'DELETE', `/api/phone-numbers/${id}`);
      return result;
    });

    expect(await update({ sip_password: 'plaintext-new' }, bindings)).toMatchObject({
      status: 404,
      body: { code: 'phone_number_not_found' },
    });

    await expect(row()).rejects.toThrow('no row');
    await drainLater();
    expect(await ciphertexts()).toEqual([]);
    expect(await rows('credential_purges')).toEqual([]);
  });

  it('do not give a password to a number whose user was removed meanwhile', async () => {
    const { bindings, stalls, letGo } = stallingBindings('CREDENTIALS.put');
    const first = update({ sip_password: 'plaintext-new' }, bindings);
    await stalls;
    await update({ sip_username: null, sip_password: null });
    letGo();

    expect(await first).toMatchObject({ status: 422, body: { errors: [{ path: 'sip_username' }] } });

    expect(await openCredentials(id)).toEqual({ inbound_pin: '0042' });
    await drainLater();
    await expectOneCiphertext();
  });
});
