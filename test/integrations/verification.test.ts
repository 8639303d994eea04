/** Credentials are checked with their provider before they are stored. The simulation answers for the providers. */
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import type { SimulatedAnswer } from '../../src/dev/simulation.ts';
import type { Bindings } from '../../src/worker/env.ts';
import { VERSION } from '../../src/worker/version.ts';
import { countedBindings, failingBindings, interceptedBindings, stallingBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
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
import type { Answer, Client } from '../fixtures.ts';
import { callsWith, secretAnswering } from '../simulation.ts';

const account_sid = 'AC0123456789abcdef0123456789abcdef';
const api_key_sid = 'SK0123456789abcdef0123456789abcdef';

/** Credentials of each form, with this secret. */
const forms = {
  twilio: (auth_token: string) => ({ provider: 'twilio', account_sid, auth_token }),
  'twilio by API key': (api_key_secret: string) => ({ provider: 'twilio', account_sid, api_key_sid, api_key_secret }),
  telnyx: (api_key: string) => ({ provider: 'telnyx', api_key }),
  vonage: (api_secret: string) => ({ provider: 'vonage', api_key: 'abcd1234', api_secret }),
  plivo: (auth_token: string) => ({ provider: 'plivo', auth_id: 'MA0123456789ABCDEFGH', auth_token }),
};
type Form = keyof typeof forms;
const formNames: Form[] = ['twilio', 'twilio by API key', 'telnyx', 'vonage', 'plivo'];

const codes: Record<Form, { refused: string | null; restricted: string | null }> = {
  twilio: { refused: '20003', restricted: '20003' },
  'twilio by API key': { refused: '20003', restricted: '20003' },
  telnyx: { refused: '10009', restricted: '10010' },
  vonage: { refused: '401', restricted: '403' },
  plivo: { refused: null, restricted: null },
};

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const create = (
  credentials: object,
  { query = '', by = client, bindings = env }: { query?: string; by?: Client; bindings?: Bindings } = {},
) => call(by, 'POST', `/api/integrations${query}`, { body: { name: 'Checked', credentials }, bindings });

const replace = (integration_id: string, credentials: object, query = '') =>
  call(client, 'PUT', `/api/integrations/${integration_id}${query}`, { body: { credentials } });

const outbox = async () =>
  (await rows('credential_purges')).filter((row) => String(row['organization_id']).includes(client.organization_id));

const created = z.object({ data: z.object({ integration_id: z.string(), verification: z.looseObject({}) }) });
const idOf = (body: unknown) => created.parse(body).data.integration_id;

/** Ends the wait for a provider as soon as it waits. */
async function withoutPatience<Result>(secret: string, waiting: () => Promise<Result>): Promise<Result> {
  const { setTimeout: wait } = globalThis;
  vi.stubGlobal('setTimeout', (resume: () => void, milliseconds = 0) => {
    if (milliseconds !== 5_000) return wait(resume, milliseconds);
    const asked = async () => expect((await callsWith(secret)).length).toBeGreaterThan(0);
    return vi.waitFor(asked, { timeout: 240_000 }).then(resume);
  });
  try {
    return await waiting();
  } finally {
    vi.unstubAllGlobals();
  }
}

describe.each(formNames)('new credentials of %s', (form) => {
  const credentialsWith = forms[form];

  it('are stored as verified if the provider accepts them', async () => {
    const secret = await secretAnswering('good');

    const { status, body } = await create(credentialsWith(secret));

    expect(status).toBe(201);
    expect(body).toMatchObject({
      data: {
        verification: {
          status: 'verified',
          checked_at: expect.stringMatching(/^\d{4}-.+Z$/),
          provider_status: 200,
          provider_code: null,
          detail: 'The provider accepted the credentials.',
        },
      },
    });
    expect(await openCredentials(idOf(body))).toMatchObject(credentialsWith(secret));
    expect(await callsWith(secret)).toHaveLength(1);
  });

  it('are not stored if the provider refuses them', async () => {
    const secret = await secretAnswering('refused');
    const before = await resources();

    const { status, body } = await create(credentialsWith(secret));

    expect(status).toBe(422);
    const provider_code = codes[form].refused;
    expect(body).toMatchObject({ code: 'credentials_refused', provider_status: 401, provider_code });
    expect(await resources()).toEqual(before);
    expect(await callsWith(secret)).toHaveLength(1);
  });

  it('leave the old ones in force if the provider refuses them', async () => {
    const old = credentialsWith(await secretAnswering('good'));
    const integration_id = await createIntegration(client, old);
    const before = await resources();

    const { status, body } = await replace(integration_id, credentialsWith(await secretAnswering('refused')));

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: 'credentials_refused', provider_status: 401 });
    expect(await resources()).toEqual(before);
    expect(await openCredentials(integration_id)).toMatchObject(old);
    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  });

  const says: [SimulatedAnswer, string, number | null][] = [
    ['rate-limited', 'unreachable', 429],
    ['broken', 'unreachable', 500],
    ['redirects', 'unreachable', 302],
    ['plain-text', 'unreachable', 200],
    ['another-shape', 'unreachable', 200],
    ['endless', 'unreachable', 200],
    ['disconnects', 'unreachable', null],
    ['restricted', ['vonage', 'plivo'].includes(form) ? 'unreachable' : 'limited', 403],
    ['refused-in-plain-text', form === 'plivo' ? 'refused' : 'unreachable', 401],
  ];

  it.each(says.filter(([, status]) => status !== 'refused'))(
    'are stored if the provider’s answer is %s: as %s, with its status %s',
    async (answer, status, provider_status) => {
      const secret = await secretAnswering(answer);

      const { status: answered, body, text } = await create(credentialsWith(secret));

      expect(answered).toBe(201);
      expect(body).toMatchObject({ data: { verification: { status, provider_status } } });
      expect(text).not.toContain('words of the provider');
      expect(await openCredentials(idOf(body))).toMatchObject(credentialsWith(secret));
    },
  );

  it.each(['stalls', 'breaks-off'] as const)(
    'are stored as unreachable if the provider’s answer %s',
    async (answer) => {
      const secret = await secretAnswering(answer);

      const { status, body } = await withoutPatience(secret, () => create(credentialsWith(secret)));

      expect(status).toBe(201);
      expect(body).toMatchObject({
        data: {
          verification: { status: 'unreachable', provider_status: null, detail: 'The provider did not answer.' },
        },
      });
      expect(await callsWith(secret)).toHaveLength(1);
    },
  );

  it('are stored without a call to the provider if the client says so', async () => {
    const secret = await secretAnswering('refused');

    const { status, body } = await create(credentialsWith(secret), { query: '?verify=false' });

    expect(status).toBe(201);
    expect(body).toMatchObject({
      data: { verification: { status: 'unverified', checked_at: null, provider_status: null, provider_code: null } },
    });
    expect(await callsWith(secret)).toEqual([]);
  });
});

describe('a refusal in plain text', () => {
  it('is a refusal by plivo, which does not always send JSON', async () => {
    const { status, body } = await create(forms.plivo(await secretAnswering('refused-in-plain-text')));

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: 'credentials_refused', provider_status: 401, provider_code: null });
  });
});

describe('a call to a provider', () => {
  it('names us, and has the credentials in the Authorization header alone', async () => {
    const secret = await secretAnswering('good');
    await create(forms.telnyx(secret));

    const [made] = await callsWith(secret);

    expect(made?.headers).toMatchObject({ authorization: `Bearer ${secret}`, 'user-agent': `patchbay/${VERSION}` });
    expect(made?.headers).not.toHaveProperty('cookie');
    expect(made?.path).toBe('/v2/balance');
  });

  it('is made once more if the connection fails', async () => {
    const secret = await secretAnswering('disconnects', 'good');

    const { body } = await create(forms.telnyx(secret));

    expect(body).toMatchObject({ data: { verification: { status: 'verified' } } });
    expect(await callsWith(secret)).toHaveLength(2);
  });

  it.each(['a"$%\\ b', 'ü€', '🔑'])('sends a password of any characters: %j', async (odd) => {
    const secret = `${odd}${crypto.randomUUID()}`;

    expect((await create(forms.vonage(secret))).body).toMatchObject({ data: { verification: { status: 'verified' } } });
    expect(await callsWith(secret)).toHaveLength(1);
  });

  it('is not made with a bearer token that a header cannot have', async () => {
    const secret = `plaintext-ü-${crypto.randomUUID()}`;

    const { status, body } = await create(forms.telnyx(secret));

    expect(status).toBe(201);
    expect(body).toMatchObject({ data: { verification: { status: 'unverified', checked_at: null } } });
    expect(await callsWith(secret)).toEqual([]);
  });

  it('checks an API key and the Auth Token beside it, each by a call', async () => {
    const [key, token] = [await secretAnswering('good'), await secretAnswering('good')];

    const { status, body } = await create({ ...forms['twilio by API key'](key), auth_token: token });

    expect(status).toBe(201);
    expect(body).toMatchObject({ data: { verification: { status: 'verified' } } });
    expect([await callsWith(key), await callsWith(token)].map(({ length }) => length)).toEqual([1, 1]);
  });

  it.each([
    ['good', 'refused', 422],
    ['refused', 'good', 422],
    ['restricted', 'refused', 422],
  ] as const)('lets none of the two be refused: %s and %s', async (ofKey, ofToken, expected) => {
    const [key, token] = [await secretAnswering(ofKey), await secretAnswering(ofToken)];
    const before = await resources();

    const { status } = await create({ ...forms['twilio by API key'](key), auth_token: token });

    expect(status).toBe(expected);
    expect(await resources()).toEqual(before);
  });

  it.each([
    ['good', 'restricted', 'limited'],
    ['restricted', 'good', 'limited'],
    ['good', 'broken', 'unreachable'],
  ] as const)('says the worse of two answers: %s and %s are %s', async (ofKey, ofToken, status) => {
    const [key, token] = [await secretAnswering(ofKey), await secretAnswering(ofToken)];

    const { body } = await create({ ...forms['twilio by API key'](key), auth_token: token });

    expect(body).toMatchObject({ data: { verification: { status } } });
  });

  it.each([
    ['us1', 'https://api.twilio.com'],
    ['ie1', 'https://api.dublin.ie1.twilio.com'],
    ['au1', 'https://api.sydney.au1.twilio.com'],
  ])('goes to the hosts of the provider, for twilio by region: %s', async (region, origin) => {
    const asked: string[] = [];
    vi.stubGlobal('fetch', async (url: string) => {
      asked.push(url);
      throw new TypeError('no network');
    });

    await create({ ...twilio, region }, { bindings: { ...env, PROVIDER_ORIGINS: '' } });

    vi.unstubAllGlobals();
    const url = `${origin}/2010-04-01/Accounts/${account_sid}/IncomingPhoneNumbers.json?PageSize=1`;
    expect(asked).toEqual([url, url]);
  });

  it.each([
    ['of another machine', '{"twilio":"https://example.com"}'],
    ['with a path', '{"twilio":"http://127.0.0.1:1/path"}'],
    ['with a user', '{"twilio":"http://user:pw@127.0.0.1:1"}'],
    ['of a host that only begins like a loopback address', '{"twilio":"http://127.0.0.1.example.com"}'],
    ['for a provider that does not exist', '{"nexmo":"http://127.0.0.1:1"}'],
    ['that are no JSON', 'http://127.0.0.1:1'],
  ])('is not made to origins %s, and the log says why', async (_, PROVIDER_ORIGINS) => {
    const logged = vi.spyOn(console, 'error').mockImplementation(() => {});
    const made = vi.spyOn(globalThis, 'fetch');

    const { body } = await create(twilio, { bindings: { ...env, PROVIDER_ORIGINS } });

    expect(body).toMatchObject({ data: { verification: { status: 'unreachable', provider_status: null } } });
    expect(made).not.toHaveBeenCalled();
    expect(logged.mock.calls.flat().join()).toContain('"event":"provider_origins_refused"');
  });
});

describe('the order of a creation', () => {
  it('is the intent, one call to the provider, the put and the batch', async () => {
    await createIntegration(client);
    const { bindings, calls } = countedBindings();

    const answer = await start(client, 'POST', '/api/integrations', {
      body: { name: 'x', credentials: twilio },
      bindings,
    });

    expect(calls).toEqual(['DB.batch', 'provider.fetch', 'CREDENTIALS.put', 'DB.batch']);
    await answer.settle();
    expect(calls).toHaveLength(4);
  });

  it('ends a refused one with a batch that cancels the intent', async () => {
    await createIntegration(client);
    const { bindings, calls } = countedBindings();

    await create(forms.telnyx(await secretAnswering('refused')), { bindings });

    expect(calls).toEqual(['DB.batch', 'provider.fetch', 'DB.batch']);
    expect(await outbox()).toEqual([]);
  });

  it('asks the provider once, however often the put is tried', async () => {
    const secret = await secretAnswering('good');
    const { bindings } = failingBindings('CREDENTIALS.put', { when: 'before', message: 'KV: 503', times: 2 });

    expect((await create(forms.telnyx(secret), { bindings })).status).toBe(201);
    expect(await callsWith(secret)).toHaveLength(1);
  });

  it.each(keyChanges)('lets no key that %s reach a provider', async (_, assignment, status, code) => {
    const key = await newClient({ organization_id: client.organization_id });
    await call(key, 'GET', '/api/integrations');
    await changeKey(key, assignment);
    const secret = await secretAnswering('good');

    const { status: answered, body } = await create(forms.telnyx(secret), { by: key });

    expect(answered).toBe(status);
    expect(body).toMatchObject({ code });
    expect(await callsWith(secret)).toEqual([]);
  });

  it('lets no organization without room reach a provider', async () => {
    await env.DB.prepare('UPDATE organizations SET max_integrations = 0 WHERE organization_id = ?')
      .bind(client.organization_id)
      .run();
    const secret = await secretAnswering('good');

    expect((await create(forms.telnyx(secret))).body).toMatchObject({ code: 'quota_exceeded' });
    expect(await callsWith(secret)).toEqual([]);
  });

  it('lets no update of what is not there, or is of another provider, reach a provider', async () => {
    const integration_id = await createIntegration(client);
    const other = await newClient();
    const secret = await secretAnswering('good');

    const answers = [
      await replace('intg_000000000000', forms.telnyx(secret)),
      await replace(integration_id, forms.telnyx(secret)),
      await call(other, 'PUT', `/api/integrations/${integration_id}`, {
        body: { credentials: { ...twilio, auth_token: secret } },
      }),
    ];

    expect(answers.map(({ status }) => status)).toEqual([404, 422, 404]);
    expect(await callsWith(secret)).toEqual([]);
  });

  it('asks nobody for a replay, which says what the first answer said', async () => {
    const secret = await secretAnswering('good', 'refused');
    const headers = { 'Idempotency-Key': 'once' };
    const send = () =>
      call(client, 'POST', '/api/integrations', { body: { name: 'x', credentials: forms.telnyx(secret) }, headers });
    const first = await send();

    const second = await send();

    expect(second.status).toBe(201);
    expect(second.text).toBe(first.text);
    expect(second.headers.get('Idempotency-Replayed')).toBe('true');
    expect(await callsWith(secret)).toHaveLength(1);
  });

  it('asks nobody for the replay of an update, which says what the first answer said', async () => {
    const integration_id = await createIntegration(client, forms.telnyx(await secretAnswering('good')));
    const secret = await secretAnswering('broken', 'refused');
    const send = () =>
      call(client, 'PUT', `/api/integrations/${integration_id}`, {
        body: { credentials: forms.telnyx(secret) },
        headers: { 'Idempotency-Key': 'once' },
      });
    const first = await send();

    expect((await send()).text).toBe(first.text);
    expect(first.body).toMatchObject({ data: { verification: { status: 'unreachable', provider_status: 500 } } });
    expect(await callsWith(secret)).toHaveLength(1);
  });
});

describe('a provider that answers late', () => {
  it('brings nothing back of an integration that was deleted meanwhile', async () => {
    const integration_id = await createIntegration(client);
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const updating = call(client, 'PUT', `/api/integrations/${integration_id}`, {
      body: { credentials: { ...twilio, auth_token: 'plaintext-late' } },
      bindings,
    });
    await stalls;

    expect((await call(client, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(200);
    letGo();

    expect((await updating).body).toMatchObject({ code: 'integration_not_found' });
    expect((await rows('integrations')).filter((row) => row['integration_id'] === integration_id)).toEqual([]);
  });

  it('lets a key that was revoked meanwhile store nothing', async () => {
    const key = await newClient({ organization_id: client.organization_id });
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const creating = create(twilio, { by: key, bindings });
    await stalls;

    await call(client, 'DELETE', `/api/api-keys/${key.key_id}`);
    letGo();

    expect((await creating).status).toBe(401);
    const ofTheirs = (await rows('integrations')).filter((row) => row['organization_id'] === client.organization_id);
    expect(ofTheirs).toEqual([]);
  });
});

describe('the account of an integration', () => {
  it.each([
    ['twilio', 'AC…cdef'],
    ['twilio by API key', 'AC…cdef'],
    ['telnyx', null],
    ['vonage', '…34'],
    ['plivo', 'MA…EFGH'],
  ] as const)('is hinted at for %s: %s', async (form, hint) => {
    const { body } = await create(forms[form](await secretAnswering('good')));

    expect(body).toMatchObject({ data: { account_hint: hint } });
  });

  const otherAccount = { ...twilio, account_sid: 'ACffffffffffffffffffffffffffffffff' };

  it('may be another one while no number uses the integration', async () => {
    const integration_id = await createIntegration(client);

    const { status, body } = await replace(integration_id, otherAccount);

    expect(status).toBe(200);
    expect(body).toMatchObject({ data: { account_hint: 'AC…ffff' } });
  });

  it('may not become another one while a number uses the integration', async () => {
    const integration_id = await createIntegration(client);
    await importNumber(client, integration_id, unusedNumber());
    const before = await resources();
    const secret = await secretAnswering('good');

    const { status, body } = await replace(integration_id, { ...otherAccount, auth_token: secret });

    expect(status).toBe(409);
    expect(body).toMatchObject({ code: 'provider_account_differs', account_hint: 'AC…cdef' });
    expect(await resources()).toEqual(before);
    expect(await callsWith(secret)).toEqual([]);
    expect(await openCredentials(integration_id)).toMatchObject(twilio);
    expect((await replace(integration_id, { ...twilio, auth_token: 'plaintext-rotated' })).status).toBe(200);
  });

  it('may not become another one if a number comes to use the integration meanwhile', async () => {
    const integration_id = await createIntegration(client);
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const replacing = call(client, 'PUT', `/api/integrations/${integration_id}`, {
      body: { credentials: otherAccount },
      bindings,
    });
    await stalls;
    await importNumber(client, integration_id, unusedNumber());
    letGo();

    expect((await replacing).body).toMatchObject({ code: 'provider_account_differs', account_hint: 'AC…cdef' });
    expect(await openCredentials(integration_id)).toMatchObject(twilio);
  });

  it('is not compared where it is not known', async () => {
    const integration_id = await createIntegration(client);
    await importNumber(client, integration_id, unusedNumber());
    await env.DB.prepare('UPDATE integrations SET account_hint = NULL, account_fingerprint = NULL').run();

    const { status, body } = await replace(integration_id, otherAccount);

    expect(status).toBe(200);
    expect(body).toMatchObject({ data: { account_hint: 'AC…ffff' } });
  });

  it('has another fingerprint in another organization', async () => {
    const other = await newClient();
    const ids = [await createIntegration(client), await createIntegration(client), await createIntegration(other)];

    const prints = await Promise.all(ids.map(async (id) => (await rowOf('integrations', id))['account_fingerprint']));

    expect(prints[0]).toMatch(/^[A-Za-z0-9+/]{43}=$/);
    expect(prints[1]).toBe(prints[0]);
    expect(prints[2]).not.toBe(prints[0]);
  });
});

describe('the budget of an organization', () => {
  const unlimited = { limit: async () => ({ success: true }) };

  it('is 30 calls a minute for the tier starter; then nothing is stored, and nobody is asked', async () => {
    const starter = await newClient({ tier: 'starter' });
    const bindings = { ...env, STARTER_LIMIT: unlimited, STARTER_MUTATIONS_LIMIT: unlimited };
    const secret = await secretAnswering('good');
    const answers: Answer[] = [];
    while (answers.length < 75 && !answers.some(({ status }) => status === 429)) {
      answers.push(await create(forms.telnyx(secret), { by: starter, bindings }));
    }
    const passed = answers.filter(({ status }) => status === 201).length;

    expect(passed).toBeGreaterThanOrEqual(30);
    const limited = answers.at(-1);
    expect(limited?.body).toMatchObject({ code: 'rate_limited' });
    expect(limited?.headers.get('Retry-After')).toMatch(/^6[0-5]$/);
    expect(limited?.headers.get('RateLimit')).toBe('"starter_provider";r=0');
    expect(limited?.headers.get('RateLimit-Policy')).toBe(
      '"starter";q=100;w=10, "starter_mutations";q=20;w=10, "starter_provider";q=30;w=60',
    );
    expect(await callsWith(secret)).toHaveLength(passed);
    expect(await outbox()).toEqual([]);
    expect((await create(forms.telnyx(secret), { by: starter, bindings, query: '?verify=false' })).status).toBe(201);
  });
});

describe('many refused credentials', () => {
  const HOUR = 3_600_000;

  it('end the checks of the organization for an hour, once there were 20 in an hour', async () => {
    const logged: string[] = [];
    for (const level of ['warn', 'error'] as const) {
      vi.spyOn(console, level).mockImplementation((line: string) => void logged.push(line));
    }
    const statuses = [];
    const secret = await secretAnswering('refused');
    for (let tries = 0; tries < 1_000; tries += 1) statuses.push((await create(forms.telnyx(secret))).status);

    expect(statuses.slice(0, 20)).toEqual(Array.from({ length: 20 }, () => 422));
    expect(new Set(statuses.slice(20))).toEqual(new Set([429]));
    expect(await callsWith(secret)).toHaveLength(20);
    expect(await outbox()).toEqual([]);
    const lines = logged.filter((line) => line.includes('credentials_refused'));
    expect(lines).toHaveLength(20);
    expect(lines.at(-1)).toBe(
      JSON.stringify({
        event: 'credentials_refused',
        organization_id: client.organization_id,
        provider: 'telnyx',
        count: 20,
      }),
    );
    expect(logged.filter((line) => line.includes('"event":"verification_limited"'))).toHaveLength(1);
  });

  it('are told with the seconds that are left; other organizations, and calls that ask nobody, go on', async () => {
    const secret = await secretAnswering('refused');
    for (let tries = 0; tries < 20; tries += 1) await create(forms.telnyx(secret));

    const limited = await create(twilio);

    expect(limited.status).toBe(429);
    expect(limited.body).toMatchObject({ code: 'verification_limited' });
    expect(Number(limited.headers.get('Retry-After'))).toBeGreaterThan(3_500);
    expect(limited.headers.get('RateLimit')).toBe('"refused_credentials";r=0');
    expect(limited.headers.get('RateLimit-Policy')).toContain('"refused_credentials";q=20;w=3600');
    expect((await create(twilio, { query: '?verify=false' })).status).toBe(201);
    expect((await create(twilio, { by: await newClient() })).status).toBe(201);
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + HOUR + 1_000 });
    expect((await create(twilio)).status).toBe(201);
  });

  it('are not many if there are 20 in more than an hour', async () => {
    const secret = await secretAnswering('refused');
    for (let tries = 0; tries < 19; tries += 1) await create(forms.telnyx(secret));
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + HOUR + 1_000 });

    expect((await create(forms.telnyx(secret))).status).toBe(422);
    expect((await create(twilio)).status).toBe(201);
  });

  it('are counted once, even if the answer of the batch that counts is lost', async () => {
    const secret = await secretAnswering('refused');
    let batches = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'DB.batch' && (batches += 1) === 2) throw new Error('D1_ERROR: Network connection lost.');
      return result;
    });

    expect((await create(forms.telnyx(secret), { bindings })).status).toBe(422);
    const organization = (await rows('organizations')).find((row) => row['organization_id'] === client.organization_id);
    expect(organization).toMatchObject({ refused_check_count: 1 });
  });
});
