import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import document from '../../docs/credentials-reader.md?raw';
import { CALL_MILLISECONDS } from '../../src/worker/core/deadlines.ts';
import { drainPurges } from '../../src/worker/credentials/drain.ts';
import { seal } from '../../src/worker/credentials/envelope.ts';
import { parseKekRing } from '../../src/worker/credentials/kek-ring.ts';
import { credentialsKey } from '../../src/worker/credentials/kv-key.ts';
import { rewrapDataKeys } from '../../src/worker/credentials/rewrap.ts';
import type { Bindings } from '../../src/worker/env.ts';
import wrangler from '../../wrangler.toml?raw';
import { countedBindings, failingBindings, interceptedBindings, laggingBindings } from '../bindings.ts';
import {
  call,
  createIntegration,
  everythingKept,
  importNumber,
  newClient,
  rowOf,
  start,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { importSip, sip } from '../mutations.ts';
import { callReader, LAST_NET, read, startRead } from './reader.ts';
import type { Method } from './reader.ts';

let client: Client;
let organization_id: string;
let integration_id: string;
let phone_number: string;
let phone_number_id: string;

beforeEach(async () => {
  client = await newClient();
  ({ organization_id } = client);
  integration_id = await createIntegration(client);
  phone_number = unusedNumber();
  phone_number_id = await importNumber(client, integration_id, phone_number);
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const byIntegration = (more: object = {}) => ['read', { organization_id, integration_id, ...more }] as const;
const byNumber = (more: object = {}) => ['readByPhoneNumber', { phone_number, ...more }] as const;

/** The two ways to ask for the same credentials. */
const ways: [Method, (more?: object) => readonly [Method, object]][] = [
  ['read', byIntegration],
  ['readByPhoneNumber', byNumber],
];

const versionOf = async (id: string) => {
  const row = await rowOf(id.startsWith('phon') ? 'phone_numbers' : 'integrations', id);
  return String(row['credentials_version']);
};

const replace = (auth_token: string) =>
  call(client, 'PUT', `/api/integrations/${integration_id}`, { body: { credentials: { ...twilio, auth_token } } });

async function remove(): Promise<void> {
  for (const path of [`phone-numbers/${phone_number_id}`, `integrations/${integration_id}`]) {
    expect((await call(client, 'DELETE', `/api/${path}`)).status).toBe(200);
  }
}

/** What is logged, by level. */
function logged() {
  const lines = (level: 'info' | 'error') => {
    const spy = vi.spyOn(console, level).mockImplementation(() => {});
    return (): unknown[] => spy.mock.calls.map(([line]) => JSON.parse(String(line)));
  };
  return { info: lines('info'), error: lines('error') };
}

describe('credentials', () => {
  it('of an integration are what the client sent, with what identifies them', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: new Date('2030-01-15T10:30:00Z') });

    expect(await read(...byIntegration())).toEqual({
      ok: true,
      organization_id,
      integration_id,
      phone_number_id: null,
      ownership: null,
      provider: 'twilio',
      credentials: twilio,
      credentials_version: await versionOf(integration_id),
      read_at: '2030-01-15T10:30:00Z',
    });
  });

  it('of another organization are not found, whichever id is whose', async () => {
    const other = await newClient();
    const others = await createIntegration(other);

    for (const asked of [
      { organization_id, integration_id: others },
      { organization_id: other.organization_id, integration_id },
    ]) {
      expect(await read('read', asked)).toEqual({ ok: false, code: 'integration_not_found' });
    }
  });

  it('of a number are those of its integration', async () => {
    expect(await read(...byNumber())).toEqual({
      ok: true,
      organization_id,
      integration_id,
      phone_number_id,
      ownership: 'unconfirmed',
      provider: 'twilio',
      credentials: twilio,
      credentials_version: await versionOf(integration_id),
      read_at: expect.any(String),
    });
  });

  it('of a SIP number come with its trunk', async () => {
    const number = unusedNumber();
    const { body } = await call(client, 'POST', '/api/phone-numbers', {
      body: {
        ...sip(number),
        supports_outbound: true,
        sip_server_address: 'sip.example.com:5061',
        sip_transport: 'tls',
        media_encryption: 'require',
      },
    });
    const { phone_number_id: id } = Object(body).data;

    expect(await read('readByPhoneNumber', { phone_number: number })).toEqual({
      ok: true,
      organization_id,
      integration_id: null,
      phone_number_id: id,
      ownership: 'unconfirmed',
      provider: 'sip',
      credentials: {
        provider: 'sip',
        sip_server_address: 'sip.example.com:5061',
        sip_transport: 'tls',
        sip_username: 'user',
        sip_password: 'plaintext-sip-password',
        inbound_pin: '4711',
        media_encryption: 'require',
      },
      credentials_version: await versionOf(id),
      read_at: expect.any(String),
    });
  });

  it('of a SIP number without secrets are the trunk alone, and no KV is read', async () => {
    const number = unusedNumber();
    await call(client, 'POST', '/api/phone-numbers', { body: { phone_number: number, provider: 'sip' } });
    const { bindings, calls } = countedBindings();

    const { result } = await startRead('readByPhoneNumber', { phone_number: number }, { bindings });

    expect(result).toMatchObject({
      ok: true,
      credentials: { provider: 'sip', sip_transport: 'auto', media_encryption: 'allow' },
      credentials_version: null,
    });
    expect(result).not.toHaveProperty('credentials.sip_username');
    expect(result).not.toHaveProperty('credentials.sip_password');
    expect(calls).toEqual(['DB.batch']);
  });

  it('of a SIP number that is older than transports have the transport auto', async () => {
    const number = unusedNumber();
    const id = await importSip(client, number);
    await env.DB.prepare('UPDATE phone_numbers SET sip_transport = NULL WHERE phone_number_id = ?').bind(id).run();

    expect(await read('readByPhoneNumber', { phone_number: number })).toMatchObject({
      credentials: { sip_transport: 'auto' },
    });
  });

  it('of a number that was moved are those of its new integration', async () => {
    const other = await createIntegration(client, { ...twilio, auth_token: 'plaintext-other' });
    await call(client, 'PUT', `/api/phone-numbers/${phone_number_id}?verify=false`, {
      body: { integration_id: other },
    });

    expect(await read(...byNumber())).toMatchObject({
      integration_id: other,
      credentials: { auth_token: 'plaintext-other' },
    });
  });

  it('under a key-encryption key that was replaced are read all the time, from a kept ciphertext too', async () => {
    const { keys } = JSON.parse(env.CREDENTIALS_KEKS);
    const under = (current: string, ids: object, bindings: Bindings = env): Bindings => ({
      ...bindings,
      CREDENTIALS_KEKS: JSON.stringify({ current, keys: ids }),
    });
    const both = { ...keys, k2: btoa('the second KEK, of 32 byte chars') };
    const { k2 } = both;
    await read(...byIntegration());

    expect(await read(...byIntegration(), { bindings: under('k1', both) })).toMatchObject({ credentials: twilio });
    await rewrapDataKeys(under('k2', both));
    const { bindings, calls } = countedBindings();
    const { result } = await startRead(...byIntegration(), { bindings: under('k2', { k2 }, bindings) });

    expect(result).toMatchObject({ ok: true, credentials: twilio });
    expect(calls).toEqual(['DB.batch']);
    await rewrapDataKeys(under('k1', both));
  });
});

describe('a read', () => {
  let sipNumber: string;

  it.each(ways)(
    'by %s is one D1 call and one KV read where the isolate is cold, one D1 call where it is warm',
    async (_, way) => {
      const cold = countedBindings();
      const first = await startRead(...way(), { bindings: cold.bindings });
      expect(cold.calls).toEqual(['DB.batch', 'CREDENTIALS.get']);
      await first.settle();

      const warm = countedBindings();
      const second = await startRead(...way(), { bindings: warm.bindings });
      await second.settle();
      expect(warm.calls).toEqual(['DB.batch']);
      expect(second.result).toMatchObject({ ok: true, credentials: twilio });
    },
  );

  it.each([
    ...ways.map(([method, way]) => [method, way] as const),
    ['readByPhoneNumber of a SIP number', () => ['readByPhoneNumber', { phone_number: sipNumber }] as const] as const,
  ])('by %s is one statement that reads at most five rows', async (_, way) => {
    sipNumber = unusedNumber();
    await importSip(client, sipNumber);
    const answered: { rows_read: number }[] = [];
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'DB.batch' && Array.isArray(result)) answered.push(...result.map(({ meta }) => meta));
      return result;
    });

    await startRead(...way(), { bindings });

    expect(answered).toHaveLength(1);
    expect(answered[0]?.rows_read).toBeLessThanOrEqual(5);
  });

  it('of another version is cold again', async () => {
    await read(...byIntegration());
    await replace('plaintext-replaced');
    const { bindings, calls } = countedBindings();

    const { result } = await startRead(...byIntegration(), { bindings });

    expect(result).toMatchObject({ credentials: { auth_token: 'plaintext-replaced' } });
    expect(calls).toEqual(['DB.batch', 'CREDENTIALS.get']);
  });

  it('does not use ciphertext that it has kept for ten minutes', async () => {
    await read(...byIntegration());
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 601_000 });
    const { bindings, calls } = countedBindings();

    await startRead(...byIntegration(), { bindings });

    expect(calls).toEqual(['DB.batch', 'CREDENTIALS.get']);
  });

  it('writes nothing but the audit event', async () => {
    const before = await everythingKept();

    await read(...byIntegration());
    await read(...byNumber());

    const after = await everythingKept();
    expect(after.CREDENTIALS).toEqual(before.CREDENTIALS);
    const { audit_events, organizations: _, ...others } = after.d1;
    expect(others).toEqual(Object.fromEntries(Object.keys(others).map((table) => [table, before.d1[table]])));
    expect(audit_events).toHaveLength((before.d1['audit_events']?.length ?? 0) + 1);
  });

  it('erases the bytes of the data key', async () => {
    const decrypt = crypto.subtle.decrypt.bind(crypto.subtle);
    const decrypted: ArrayBuffer[] = [];
    vi.spyOn(crypto.subtle, 'decrypt').mockImplementation(async (...parameters) => {
      const bytes = await decrypt(...parameters);
      decrypted.push(bytes);
      return bytes;
    });

    expect(await read(...byIntegration())).toMatchObject({ ok: true });

    const dataKeys = decrypted.filter(({ byteLength }) => byteLength === 32);
    expect(dataKeys).toHaveLength(1);
    expect(dataKeys.map((bytes) => [...new Uint8Array(bytes)])).toEqual([Array<number>(32).fill(0)]);
  });

  it('keeps the ciphertext of at most 1,000 subjects, those that were read last', async () => {
    const ids = Array.from({ length: 1001 }, (_, index) => `intg_${index.toString(16).padStart(12, '0')}`);
    const ring = await parseKekRing(env.CREDENTIALS_KEKS);
    const rows = await Promise.all(
      ids.map(async (id) => {
        const kv_key = credentialsKey(organization_id, id, 'v');
        const { ciphertext, ...wrapped } = await seal(ring, kv_key, twilio);
        await env.CREDENTIALS.put(kv_key, ciphertext);
        return { id, ...wrapped };
      }),
    );
    await env.DB.prepare(
      `INSERT INTO integrations (organization_id, integration_id, name, provider, category, status, credentials_version,
         data_key, kek_id, created_at, updated_at)
       SELECT ?1, value ->> 'id', 'Many', 'twilio', 'telephony', 'active', 'v', value ->> 'data_key', value ->> 'kek_id', 0, 0
       FROM json_each(?2)`,
    )
      .bind(organization_id, JSON.stringify(rows))
      .run();
    const callsOf = async (id: string | undefined, consumer = 'call-router') => {
      const { bindings, calls } = countedBindings();
      const { result } = await startRead('read', { organization_id, integration_id: id }, { bindings, consumer });
      expect(result).toMatchObject({ ok: true });
      return calls.length;
    };

    // Two consumers: one would reach its rate limit.
    for (const [index, id] of ids.entries()) await callsOf(id, index % 2 ? 'twilio-only' : 'call-router');

    expect(await callsOf(ids.at(-1))).toBe(1);
    expect(await callsOf(ids[0])).toBe(2);
  });
});

describe.each(ways)('where a replica is behind, %s', (method, way) => {
  const notFound = { ok: false, code: method === 'read' ? 'integration_not_found' : 'phone_number_not_found' };

  it('asks the nearest one, and the primary if it must be fresh', async () => {
    const { bindings, asked } = laggingBindings();

    await startRead(...way(), { bindings });
    await startRead(...way({ fresh: true }), { bindings });

    expect(asked).toEqual(['first-unconstrained', 'first-primary']);
  });

  it('may give the credentials from before a rotation, and gives the new ones if it must be fresh', async () => {
    const { bindings } = laggingBindings();
    await read(...way(), { bindings });
    await replace('plaintext-replaced');

    expect(await read(...way(), { bindings })).toMatchObject({ ok: true, credentials: twilio });
    expect(await read(...way({ fresh: true }), { bindings })).toMatchObject({
      ok: true,
      credentials: { auth_token: 'plaintext-replaced' },
    });
  });

  it('may give the credentials from before a deletion, and none if it must be fresh', async () => {
    const { bindings } = laggingBindings();
    await read(...way(), { bindings });
    await remove();

    expect(await read(...way(), { bindings })).toMatchObject({ ok: true, credentials: twilio });
    expect(await read(...way({ fresh: true }), { bindings })).toEqual(notFound);
  });

  it('asks the primary if the ciphertext of what the replica names is gone', async () => {
    const { error } = logged();
    const { bindings, asked } = laggingBindings();
    // The isolate keeps nothing of it: KV fails.
    const { bindings: failing } = failingBindings('CREDENTIALS.get', { when: 'before', message: 'KV GET failed' });
    await startRead(...way(), { bindings: { ...bindings, CREDENTIALS: failing.CREDENTIALS } });
    await replace('plaintext-replaced');
    await drainPurges(env);
    asked.length = 0;

    expect(await read(...way(), { bindings })).toMatchObject({
      ok: true,
      credentials: { auth_token: 'plaintext-replaced' },
    });
    expect(asked).toEqual(['first-unconstrained', 'first-primary']);

    await remove();
    expect(await read(...way(), { bindings })).toEqual(notFound);
    expect(error()).not.toContainEqual(expect.objectContaining({ event: 'credentials_lost' }));
  });
});

describe('what cannot be read', () => {
  const unavailable = { ok: false, code: 'temporarily_unavailable' };

  it.each([
    ['D1', 'DB.batch', 'D1_ERROR: Network connection lost.'],
    ['KV', 'CREDENTIALS.get', 'KV GET failed: 500'],
  ] as const)(
    'because %s fails is temporarily unavailable, and is logged without a value',
    async (_, failing, message) => {
      const { error } = logged();
      const { bindings } = failingBindings(failing, { when: 'before', message });

      expect(await read(...byIntegration(), { bindings })).toEqual(unavailable);

      expect(error()).toContainEqual(expect.objectContaining({ request_id: expect.any(String) }));
      expect(JSON.stringify(error())).toContain(message);
      expect(JSON.stringify(error())).not.toMatch(/select |plaintext/i);
    },
  );

  it.each(['DB.batch', 'CREDENTIALS.get'] as const)('because %s stalls is answered in time', async (stalling) => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    logged();
    const goesOn = Promise.withResolvers<void>();
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === stalling) await goesOn.promise;
      return carryOut();
    });
    const answers: unknown[] = [];
    const answer = startRead(...byIntegration(), { bindings }).then(({ result }) => answers.push(result));
    while (answers.length === 0) {
      await vi.advanceTimersByTimeAsync(CALL_MILLISECONDS / 10);
      await new Promise((resolve) => setImmediate(resolve));
    }

    await answer;
    expect(answers).toEqual([unavailable]);
    goesOn.resolve();
  });

  it('because its ciphertext is another is temporarily unavailable, raises an alert, and is not kept', async () => {
    const { error } = logged();
    const kv_key = credentialsKey(organization_id, integration_id, await versionOf(integration_id));
    const right = await env.CREDENTIALS.get(kv_key, 'arrayBuffer');
    if (!right) throw new Error('no ciphertext');
    const wrong = new Uint8Array(right.slice(0));
    wrong[20] = (wrong[20] ?? 0) ^ 1;
    await env.CREDENTIALS.put(kv_key, wrong);

    expect(await read(...byIntegration())).toEqual(unavailable);
    expect(error()).toEqual([expect.objectContaining({ event: 'credentials_unopened' })]);

    await env.CREDENTIALS.put(kv_key, right);
    expect(await read(...byIntegration())).toMatchObject({ ok: true, credentials: twilio });
  });

  it.each([false, true])('because its ciphertext was purged under it is read as it is now: fresh %s', async (fresh) => {
    const { error } = logged();
    let reads = 0;
    const overtaken = (change: () => Promise<unknown>) =>
      interceptedBindings(async (name, carryOut) => {
        if (name === 'CREDENTIALS.get' && (reads += 1) === 1) {
          await change();
          await drainPurges(env);
        }
        return carryOut();
      });
    const bindings = overtaken(() => replace('plaintext-replaced'));

    expect(await read(...byIntegration({ fresh }), { bindings })).toMatchObject({
      ok: true,
      credentials: { auth_token: 'plaintext-replaced' },
    });
    reads = 0;
    await replace('plaintext-again');
    expect(await read(...byIntegration({ fresh }), { bindings: overtaken(remove) })).toEqual({
      ok: false,
      code: 'integration_not_found',
    });
    expect(error()).not.toContainEqual(expect.objectContaining({ event: 'credentials_lost' }));
  });

  it('because it is replaced whenever it is read is temporarily unavailable', async () => {
    const { error } = logged();
    let replaced = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name === 'CREDENTIALS.get') {
        await replace(`plaintext-${(replaced += 1)}`);
        await drainPurges(env);
      }
      return carryOut();
    });

    expect(await read(...byIntegration({ fresh: true }), { bindings })).toEqual(unavailable);

    expect(replaced).toBe(4);
    expect(error()).not.toContainEqual(expect.objectContaining({ event: 'credentials_lost' }));
  });

  it('because it was not encrypted as an object is temporarily unavailable, and not a word of it is logged', async () => {
    const { error } = logged();
    const ring = await parseKekRing(env.CREDENTIALS_KEKS);
    const kv_key = credentialsKey(organization_id, integration_id, await versionOf(integration_id));
    vi.spyOn(JSON, 'stringify').mockImplementationOnce(() => 'plaintext of another form');
    const { ciphertext, data_key } = await seal(ring, kv_key, twilio);
    await env.CREDENTIALS.put(kv_key, ciphertext);
    await env.DB.prepare('UPDATE integrations SET data_key = ? WHERE integration_id = ?')
      .bind(data_key, integration_id)
      .run();

    expect(await read(...byIntegration())).toEqual(unavailable);

    expect(error()).toEqual([expect.objectContaining({ event: 'credentials_unopened' })]);
    expect(JSON.stringify(error())).not.toContain('plaintext');
  });

  it('because KV has lost its ciphertext is missing, and raises an alert', async () => {
    const { error } = logged();
    await env.CREDENTIALS.delete(credentialsKey(organization_id, integration_id, await versionOf(integration_id)));

    expect(await read(...byIntegration())).toEqual({ ok: false, code: 'credentials_missing' });

    expect(error()).toContainEqual({ event: 'credentials_lost', organization_id, subject_id: integration_id });
  });

  it.each([
    ['is no JSON', '{', 'CREDENTIALS_READERS is not JSON'],
    [
      'lacks the organizations',
      '{"call-router": {"providers": ["twilio"]}}',
      'call-router.organizations: must be "*", or an array of ids like org_abc123',
    ],
    [
      'names an unknown provider',
      '{"call-router": {"providers": ["skype"], "organizations": "*"}}',
      'call-router.providers.0: must be one of twilio, telnyx, vonage, plivo, sip',
    ],
    [
      'has a number in place of organizations',
      '{"call-router": {"providers": ["twilio"], "organizations": 5}}',
      'call-router.organizations: must be "*", or an array of ids like org_abc123',
    ],
    [
      'has a star among organizations',
      '{"call-router": {"providers": ["twilio"], "organizations": ["*"]}}',
      'call-router.organizations.0: must be an id like org_abc123',
    ],
    [
      'has an unknown member',
      '{"call-router": {"provider": ["twilio"], "providers": [], "organizations": "*"}}',
      '`call-router.provider` is not a known field',
    ],
    [
      'names a consumer that cannot be',
      '{"Call Router": {"providers": [], "organizations": "*"}}',
      'Call Router: must be a name of the form',
    ],
  ])(
    'because CREDENTIALS_READERS %s is temporarily unavailable for all, and raises an alert',
    async (_, setting, message) => {
      const { error } = logged();
      const { bindings, calls } = countedBindings();

      for (const consumer of ['call-router', 'other']) {
        const { result } = await startRead(...byIntegration(), {
          consumer,
          bindings: { ...bindings, CREDENTIALS_READERS: setting },
        });
        expect(result).toEqual(unavailable);
      }

      expect(calls).toEqual([]);
      const alerts = error().filter((line) => Object(line).event === 'credentials_readers_invalid');
      expect(alerts).toHaveLength(2);
      expect(JSON.stringify(alerts).replaceAll(String.raw`\"`, '"')).toContain(message);
    },
  );
});

describe('a grant', () => {
  it('ends once it is taken out of the configuration', async () => {
    const grant = { providers: ['twilio'], organizations: [organization_id] };
    const withGrants = (setting: object) => ({ bindings: { ...env, CREDENTIALS_READERS: JSON.stringify(setting) } });

    expect(await read(...byIntegration(), withGrants({ 'call-router': grant }))).toMatchObject({ ok: true });
    expect(await read(...byIntegration(), withGrants({}))).toEqual({ ok: false, code: 'not_granted' });
    const bindings = { ...env, CREDENTIALS_READERS: '' };
    expect(await read(...byIntegration(), { bindings })).toEqual({ ok: false, code: 'not_granted' });
    expect(await read(...byNumber(), withGrants({ other: grant }))).toEqual({ ok: false, code: 'not_granted' });
  });

  it.each(ways)(
    'that does not name the organization asks nothing where it is known before (%s)',
    async (method, way) => {
      const { bindings, calls } = countedBindings();

      const { result } = await startRead(...way(), { bindings, consumer: 'one-organization' });

      expect(result).toEqual({ ok: false, code: 'not_granted' });
      expect(calls).toEqual(method === 'read' ? [] : ['DB.batch']);
    },
  );
});

describe('the rate limit', () => {
  it('is told to consumers as wrangler.toml has it', () => {
    const [, limit, period] =
      /name = "CREDENTIALS_READER_LIMIT"\s+namespace_id = "\d+"\s+simple = { limit = (\d+), period = (\d+) }/.exec(
        wrangler,
      ) ?? [];

    expect(document).toContain(`more than ${Number(limit).toLocaleString('en')} times in ${period} s`);
  });

  it('is each consumer’s own, and is asked before D1', async () => {
    const { info } = logged();
    const { bindings: counted, calls } = countedBindings();
    // A real limiter with a lower limit, which is reached within its period on any machine.
    const bindings = { ...counted, CREDENTIALS_READER_LIMIT: env.STARTER_MUTATIONS_LIMIT };
    const consumer = 'twilio-only';

    const result = await vi.waitFor(async () => {
      while ((await env.STARTER_MUTATIONS_LIMIT.limit({ key: consumer })).success);
      calls.length = 0;
      const limited = await startRead(...byIntegration(), { bindings, consumer });
      // A new period may just have begun.
      expect(limited.result).toMatchObject({ ok: false });
      return limited.result;
    }, LAST_NET);

    expect(result).toEqual({ ok: false, code: 'rate_limited' });
    expect(calls).toEqual([]);
    expect(info().at(-1)).toMatchObject({ consumer, outcome: 'rate_limited' });
    expect(await read(...byIntegration(), { bindings })).toMatchObject({ ok: true });
  });
});

const valid = { organization_id: 'org_a', integration_id: 'intg_000000000000', purpose: 'place call' };

describe('a malformed request', () => {
  it.each<[string, unknown, string]>([
    ['none', undefined, 'the request is required.'],
    ['a string', 'intg_000000000000', 'the request must be an object.'],
    ['a list', [valid], 'the request must be an object.'],
    ['no purpose', { ...valid, purpose: undefined }, 'purpose: is required.'],
    ['an empty purpose', { ...valid, purpose: '' }, 'purpose: must be 1 to 100 characters long'],
    [
      'a purpose of 101 characters',
      { ...valid, purpose: 'x'.repeat(101) },
      'purpose: must be 1 to 100 characters long',
    ],
    ['a purpose of two lines', { ...valid, purpose: 'place\ncall' }, 'purpose: must be 1 to 100 characters long'],
    [
      'a purpose that is not seen',
      { ...valid, purpose: '\u200B' },
      'purpose: must have at least one visible character',
    ],
    ['a purpose that turns the text around', { ...valid, purpose: 'a\u202Eb' }, 'purpose: must not contain'],
    ['a purpose that is no text', { ...valid, purpose: { toString: 'x' } }, 'purpose: must be a string.'],
    ['a number as the id', { ...valid, integration_id: 5 }, 'integration_id: must be a string.'],
    ['a text as fresh', { ...valid, fresh: 'true' }, 'fresh: must be true or false.'],
    ['a member that is not known', { ...valid, integrationId: 'x' }, '`integrationId` is not a known field'],
    ['the members of the other method', { phone_number: '+14155550100', purpose: 'x' }, 'organization_id: is required'],
  ])('with %s is a TypeError that says what is wrong, and nothing is asked', async (_, request, message) => {
    const { info } = logged();
    const { bindings, calls } = countedBindings();

    const thrown: unknown = await callReader('read', request, { bindings }).catch((error: unknown) => error);

    expect(thrown).toBeInstanceOf(TypeError);
    expect(thrown).toMatchObject({ message: expect.stringContaining(message) });
    expect(calls).toEqual([]);
    expect(info()).toEqual([
      {
        event: 'credentials_read',
        request_id: expect.any(String),
        consumer: 'call-router',
        outcome: 'invalid_request',
      },
    ]);
  });

  it.each(['a'.repeat(100), '¡Llamada!', '呼び出し', 'place call #7'])('has not the purpose %s', async (purpose) => {
    expect(await read(...byIntegration({ purpose }))).toMatchObject({ ok: true });
  });

  it.each([
    ['read', { organization_id: 'org_' }, 'integration_not_found'],
    ['read', { organization_id: '*' }, 'integration_not_found'],
    ['read', { organization_id: `org_${'x'.repeat(1_000_000)}` }, 'integration_not_found'],
    ['read', { integration_id: 'phon_000000000000' }, 'integration_not_found'],
    ['read', { integration_id: `intg_000000000000' OR 1 --` }, 'integration_not_found'],
    ['readByPhoneNumber', { phone_number: '' }, 'phone_number_not_found'],
    ['readByPhoneNumber', { phone_number: 'anonymous' }, 'phone_number_not_found'],
    ['readByPhoneNumber', { phone_number: 'sip:user@example.com' }, 'phone_number_not_found'],
    ['readByPhoneNumber', { phone_number: '+1%' }, 'phone_number_not_found'],
  ] as const)(
    'is not one with an id that nothing can have: %s %o is not found, asks nothing, and is not logged',
    async (method, given, code) => {
      const { info } = logged();
      const { bindings, calls } = countedBindings();
      const asked = method === 'read' ? { organization_id, integration_id, ...given } : given;

      const { result } = await startRead(method, asked, { bindings });

      expect(result).toEqual({ ok: false, code });
      expect(calls).toEqual([]);
      expect(info()).toEqual([
        {
          event: 'credentials_read',
          request_id: expect.any(String),
          consumer: 'call-router',
          purpose: 'test of a call',
          outcome: code,
        },
      ]);
    },
  );
});

describe('the log', () => {
  const line = (outcome: string, more: object) => ({
    event: 'credentials_read',
    request_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
    consumer: 'call-router',
    purpose: 'test of a call',
    outcome,
    ...more,
  });

  it('has one line for each read: who, why, whose, which version, and what came of it', async () => {
    const { info } = logged();
    const credentials_version = await versionOf(integration_id);
    const ofIntegration = { organization_id, subject_id: integration_id };

    await read(...byIntegration());
    await read(...byNumber());
    await read('read', { organization_id, integration_id: 'intg_000000000000' });
    await read('readByPhoneNumber', { phone_number: unusedNumber() });
    await read(...byNumber(), { consumer: 'one-organization' });
    await read(...byIntegration(), { consumer: 'unknown' });
    await read(...byIntegration(), { consumer: 'no name\n{"event":"forged"}' });

    expect(info()).toEqual([
      line('ok', { ...ofIntegration, credentials_version }),
      line('ok', { ...ofIntegration, credentials_version }),
      line('integration_not_found', { organization_id, subject_id: 'intg_000000000000' }),
      line('phone_number_not_found', {}),
      line('not_granted', { ...ofIntegration, credentials_version, consumer: 'one-organization' }),
      line('not_granted', { ...ofIntegration, consumer: 'unknown' }),
      { ...line('not_granted', ofIntegration), consumer: undefined },
    ]);
  });

  it('names the SIP number whose credentials were read', async () => {
    const number = unusedNumber();
    const subject_id = await importSip(client, number);
    const { info } = logged();

    await read('readByPhoneNumber', { phone_number: number });

    const credentials_version = await versionOf(subject_id);
    expect(info()).toEqual([line('ok', { organization_id, subject_id, credentials_version })]);
  });
});

describe('HTTP', () => {
  it.each(['/CredentialsReader', '/api/credentials', '/api/integrations/read'])(
    'does not lead to the reader: %s',
    async (path) => {
      const { status, text } = await start(client, 'POST', path, { body: { organization_id, integration_id } });

      expect([404, 405]).toContain(status);
      expect(text).not.toContain('plaintext');
    },
  );
});
