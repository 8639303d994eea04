/** Requests that are repeated under their Idempotency-Key. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { app } from '../../src/worker/app.ts';
import worker from '../../src/worker/index.ts';
import { countedBindings, failingBindings, interceptedBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  changeKey,
  createIntegration,
  emptyStorage,
  everythingStored,
  importNumber,
  keyChanges,
  newClient,
  newOperator,
  resources,
  rows,
  start,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { importSip, mutations } from '../mutations.ts';
import type { Mutation } from '../mutations.ts';

const LOST = 'D1_ERROR: Network connection lost.';

beforeEach(emptyStorage);

let keys = 0;
const newKey = () => `repeat-${(keys += 1)}`;

/** Sends a mutation under an Idempotency-Key. */
const send = (
  client: Client,
  { method, path, body, headers }: Mutation,
  key: string,
  bindings: Parameters<typeof call>[3] = {},
) => call(client, method, path, { body, headers: { ...headers, 'Idempotency-Key': key }, ...bindings });

const withoutRequestId = (text: string) => text.replace(/,"request_id":"[^"]*"/, '');

/** Everything but who was last seen when. */
async function everythingThatCounts() {
  const { d1, CREDENTIALS } = await everythingStored();
  const tables: Record<string, Record<string, unknown>[]> = {
    ...d1,
    api_keys: (await rows('api_keys')).map((row) => ({ ...row, last_used_at: null })),
  };
  return { tables, CREDENTIALS };
}

/** What a request came to, without what tidies up behind it. */
async function whatHappened() {
  const { tables } = await everythingThatCounts();
  const { audit_events, integrations, phone_numbers, api_keys, webhook_endpoints, webhook_deliveries } = tables;
  const { idempotency_keys, webhook_secrets } = tables;
  return {
    audit_events,
    integrations,
    phone_numbers,
    api_keys,
    idempotency_keys,
    webhook_endpoints,
    webhook_deliveries,
    webhook_secrets,
  };
}

describe('the mutations that are repeated', () => {
  it('are those of every route that mutates', async () => {
    const tried = await Promise.all(mutations.map(async ({ prepare }) => prepare(await newClient())));

    const mutating = app.routes.filter(
      ({ method, path }) => path.startsWith('/api/') && ['POST', 'PUT', 'DELETE'].includes(method),
    );
    const patterns = new Set(mutating.map(({ method, path }) => `${method} ${path.replaceAll(/:\w+/g, '[^/]+')}`));
    const untried = [...patterns].filter(
      (pattern) => !tried.some(({ method, path }) => new RegExp(`^${pattern}(?:\\?|$)`).test(`${method} ${path}`)),
    );
    expect(untried).toEqual([]);
  });
});

const acting = mutations.filter(({ status }) => status < 400);
const refused = mutations.filter(({ status }) => status >= 400);

describe.each(acting)('$name', ({ status, prepare }) => {
  it('answers the same again, marked as a replay, and happens once', async () => {
    const client = await newClient();
    const mutation = await prepare(client);
    const key = newKey();

    const first = await send(client, mutation, key);
    const before = await everythingThatCounts();
    const second = await send(client, mutation, key);

    expect([first.status, second.status]).toEqual([status, status]);
    expect(first.headers.get('Idempotency-Replayed')).toBeNull();
    expect(second.headers.get('Idempotency-Replayed')).toBe('true');
    expect(second.headers.get('ETag')).toBe(first.headers.get('ETag'));
    const answered = withoutRequestId(first.text);
    const [, shown] = /"(raw_key|secret)":"/.exec(answered) ?? [];
    const saidOnce = answered
      .replace(/"(?:raw_key|secret)":"[^"]*",/, '')
      .replace(
        'ed successfully"',
        `ed successfully; the ${shown === 'secret' ? 'secret' : 'raw key'} was shown only in the first response"`,
      );
    expect(withoutRequestId(second.text)).toBe(shown === undefined ? answered : saidOnce);
    expect(await everythingThatCounts()).toEqual(before);
  });

  it('takes no round trip more', async () => {
    const client = await newClient();
    await call(client, 'GET', '/api/nothing');
    const trips = async (headers: Record<string, string>) => {
      const { method, path, body, headers: own } = await prepare(client);
      const { bindings, calls } = countedBindings();
      const answer = await start(client, method, path, { body, headers: { ...own, ...headers }, bindings });
      const beforeAnswer = [...calls];
      await answer.settle();
      return beforeAnswer;
    };

    expect(await trips({ 'Idempotency-Key': newKey() })).toEqual(await trips({}));
  });

  it('happens once where it is sent twice at the same time, and both hear the same', async () => {
    const client = await newClient();
    const mutation = await prepare(client);
    const key = newKey();

    const answers = await Promise.all([send(client, mutation, key), send(client, mutation, key)]);

    expect(answers.map((answer) => answer.status)).toEqual([status, status]);
    expect(answers.filter(({ headers }) => headers.has('Idempotency-Replayed'))).toHaveLength(1);
    const stored = await everythingThatCounts();
    await send(client, mutation, key);
    expect(await everythingThatCounts()).toEqual(stored);
    // What acts in parts is remembered in parts.
    const paths = stored.tables['idempotency_keys']?.filter((row) => row['idempotency_key'] === key);
    expect(paths).toHaveLength(Object(mutation.body).phone_numbers?.length ?? 1);
  });

  it('is told from a repeat of it without the key, which is judged anew', async () => {
    const client = await newClient();
    const mutation = await prepare(client);
    await send(client, mutation, newKey());

    const { method, path, body, headers } = mutation;
    const unkeyed = await call(client, method, path, { body, ...(headers && { headers }) });

    expect(unkeyed.headers.get('Idempotency-Replayed')).toBeNull();
  });

  it('is answered like the first by a repeat after a commit whose answer was lost every time, and is on record once', async () => {
    const client = await newClient();
    const mutation = await prepare(client);
    await call(client, 'GET', '/api/nothing');
    const key = newKey();
    let deciding = 0;
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      const decides =
        name === 'DB.batch' && (await rows('idempotency_keys')).some((row) => row['idempotency_key'] === key);
      if (!decides) return result;
      deciding += 1;
      throw new Error(LOST);
    });

    const lost = await send(client, mutation, key, { bindings });
    const stored = await whatHappened();
    const repeated = await send(client, mutation, key);

    expect(deciding).toBe(3);
    expect(lost).toMatchObject({ status: 503, body: { outcome: 'unknown' } });
    expect(repeated.status).toBe(status);
    expect(repeated.headers.get('Idempotency-Replayed')).toBe('true');
    expect(await whatHappened()).toEqual(stored);
  });

  it.each(keyChanges)('is not replayed to a key that %s', async (_, assignment, refusal, code) => {
    const client = await newClient();
    const mutation = await prepare(client);
    const key = newKey();
    await send(client, mutation, key);
    await changeKey(client, assignment);

    const { status: now, body, headers } = await send(client, mutation, key);

    expect(now).toBe(refusal);
    expect(body).toMatchObject({ code });
    expect(headers.get('Idempotency-Replayed')).toBeNull();
  });
});

describe.each(refused)('$name, which is refused', ({ status, prepare }) => {
  it('is not remembered: its repeat is judged anew', async () => {
    const client = await newClient();
    const mutation = await prepare(client);
    const key = newKey();

    const answers = [await send(client, mutation, key), await send(client, mutation, key)];

    expect(answers.map((answer) => answer.status)).toEqual([status, status]);
    expect(answers.map(({ headers }) => headers.get('Idempotency-Replayed'))).toEqual([null, null]);
    expect((await rows('idempotency_keys')).filter((row) => row['idempotency_key'] === key)).toEqual([]);
  });
});

const withBodies = acting.filter(({ name }) => !/delet|revo|check|test|replay|retry/.test(name));

/** The same JSON value, written otherwise. */
function written(value: unknown): string {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return JSON.stringify(value);
  const members = Object.entries(value).toReversed();
  return `{ ${members.map(([name, member]) => `${JSON.stringify(name)} :\t${written(member)}`).join(',\n')} }`;
}

const bytes = (text: string) => new TextEncoder().encode(text);

describe.each(withBodies)('$name', ({ status, prepare }) => {
  it('is the same request where its members come in another order and with other spaces', async () => {
    const client = await newClient();
    const mutation = await prepare(client);
    const key = newKey();
    await send(client, mutation, key);
    const before = await whatHappened();

    const again = await send(client, { ...mutation, body: bytes(written(mutation.body)) }, key);

    expect(again.status).toBe(status);
    expect(again.headers.get('Idempotency-Replayed')).toBe('true');
    expect(await whatHappened()).toEqual(before);
  });

  it('is another request with another query string: a 422, and nothing happens', async () => {
    const client = await newClient();
    const mutation = await prepare(client);
    const key = newKey();
    await send(client, mutation, key);
    const before = await whatHappened();

    const [path = '', query] = mutation.path.split('?');
    const other = await send(client, { ...mutation, path: query ? path : `${path}?verify=false` }, key);

    expect(other).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused', status: 422 } });
    expect(await whatHappened()).toEqual(before);
  });
});

describe('the same key with another body', () => {
  it.each<[string, Mutation, object]>([
    [
      'an integration of another name',
      { method: 'POST', path: '/api/integrations', body: { name: 'One', credentials: twilio } },
      { name: 'Two', credentials: twilio },
    ],
    [
      'an integration with another secret',
      { method: 'POST', path: '/api/integrations', body: { name: 'One', credentials: twilio } },
      { name: 'One', credentials: { ...twilio, auth_token: 'another-token-of-the-same-length' } },
    ],
    [
      'an API key of another role',
      { method: 'POST', path: '/api/api-keys', body: { name: 'One', role: 'user' } },
      { name: 'One', role: 'admin' },
    ],
  ])('is a 422, and nothing happens: %s', async (_, mutation, other) => {
    const client = await newClient();
    const key = newKey();
    await send(client, mutation, key);
    const before = await whatHappened();

    const answer = await send(client, { ...mutation, body: other }, key);

    expect(answer).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused', status: 422 } });
    expect(await whatHappened()).toEqual(before);
  });
});

describe('a refusal', () => {
  it('is no longer one where its reason is gone: the integration is no longer in use', async () => {
    const client = await newClient();
    const integration_id = await createIntegration(client);
    const phone_number_id = await importNumber(client, integration_id, unusedNumber());
    const deletion: Mutation = { method: 'DELETE', path: `/api/integrations/${integration_id}` };
    const key = newKey();

    const first = await send(client, deletion, key);
    await call(client, 'DELETE', `/api/phone-numbers/${phone_number_id}`);
    const second = await send(client, deletion, key);
    const third = await send(client, deletion, key);

    expect([first, second, third].map(({ status }) => status)).toEqual([409, 200, 200]);
    expect(third.headers.get('Idempotency-Replayed')).toBe('true');
    expect(withoutRequestId(third.text)).toBe(withoutRequestId(second.text));
    expect(await actionsOn(integration_id)).toEqual([
      'integration.created',
      'integration.delete_refused',
      'integration.deleted',
    ]);
  });

  it('is no longer one where its reason is gone: the number is free again', async () => {
    const client = await newClient();
    const phone_number = unusedNumber();
    const holder = await importSip(client, phone_number);
    const importing: Mutation = { method: 'POST', path: '/api/phone-numbers', body: { phone_number, provider: 'sip' } };
    const key = newKey();

    const first = await send(client, importing, key);
    await call(client, 'DELETE', `/api/phone-numbers/${holder}`);

    expect(first).toMatchObject({ status: 409, body: { code: 'phone_number_exists' } });
    expect((await send(client, importing, key)).status).toBe(201);
  });

  it('binds its key to nothing: another request may use it', async () => {
    const client = await newClient({ role: 'agent_manager' });
    const creation: Mutation = { method: 'POST', path: '/api/api-keys', body: { name: 'Above', role: 'admin' } };
    const key = newKey();

    const first = await send(client, creation, key);
    const second = await send(client, { ...creation, body: { name: 'Above', role: 'user' } }, key);

    expect(first).toMatchObject({ status: 403, body: { code: 'permission_denied', exceeds: 'role' } });
    expect(second.status).toBe(201);
  });

  it('by the service is not the last word: it is not remembered, and the request is carried out when it is repeated', async () => {
    const client = await newClient();
    const creation: Mutation = {
      method: 'POST',
      path: '/api/integrations',
      body: { name: 'Stalled', credentials: twilio },
    };
    const key = newKey();
    // A purge claims the ciphertext of a request that stalls.
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (name === 'CREDENTIALS.put') await env.DB.prepare('UPDATE credential_purges SET attempts = 1').run();
      return result;
    });

    const stalled = await send(client, creation, key, { bindings });
    const repeated = await send(client, creation, key);

    expect(stalled).toMatchObject({ status: 503, body: { outcome: 'not_done' } });
    expect(repeated.status).toBe(201);
    expect(repeated.headers.get('Idempotency-Replayed')).toBeNull();
  });

  it('before D1 is asked is not remembered: what is overloaded is tried again', async () => {
    const client = await newClient();
    const deletion: Mutation = { method: 'DELETE', path: `/api/integrations/${await createIntegration(client)}` };
    const key = newKey();
    const overloaded = failingBindings('DB.batch', { when: 'before', message: 'D1_ERROR: D1 DB is overloaded.' });

    expect((await send(client, deletion, key, overloaded)).status).toBe(503);
    expect((await send(client, deletion, key)).status).toBe(200);
  });
});

describe('an Idempotency-Key', () => {
  const rename = (integration_id: string, name: string): Mutation => ({
    method: 'PUT',
    path: `/api/integrations/${integration_id}`,
    body: { name },
  });

  it('counts for one path', async () => {
    const client = await newClient();
    const [one, two] = [await createIntegration(client), await createIntegration(client)];
    const key = newKey();

    await send(client, rename(one, 'New name'), key);
    const { headers } = await send(client, rename(two, 'New name'), key);

    expect(headers.get('Idempotency-Replayed')).toBeNull();
    expect(await actionsOn(two)).toEqual(['integration.created', 'integration.updated']);
  });

  it('counts for one method', async () => {
    const client = await newClient();
    const integration_id = await createIntegration(client);
    const key = newKey();

    await send(client, rename(integration_id, 'New name'), key);
    const deleted = await send(client, { method: 'DELETE', path: `/api/integrations/${integration_id}` }, key);

    expect(deleted.status).toBe(200);
  });

  it('counts for one API key, and in one organization', async () => {
    const client = await newClient();
    const [colleague, stranger] = [await newClient({ organization_id: client.organization_id }), await newClient()];
    const creation: Mutation = {
      method: 'POST',
      path: '/api/integrations',
      body: { name: 'One', credentials: twilio },
    };
    const key = newKey();

    const answers = [
      await send(client, creation, key),
      await send(colleague, creation, key),
      await send(stranger, creation, key),
    ];

    expect(answers.map(({ headers }) => headers.get('Idempotency-Replayed'))).toEqual([null, null, null]);
    const ids = answers.map(
      ({ body }) => z.object({ data: z.object({ integration_id: z.string() }) }).parse(body).data,
    );
    expect(new Set(ids.map(({ integration_id }) => integration_id)).size).toBe(3);
  });

  it('means nothing to a read', async () => {
    const client = await newClient();
    const headers = { 'Idempotency-Key': newKey() };

    await call(client, 'GET', '/api/integrations', { headers });

    expect((await call(client, 'GET', '/api/integrations', { headers })).headers.has('Idempotency-Replayed')).toBe(
      false,
    );
  });

  it.each([
    ['empty', ''],
    ['too long', 'k'.repeat(256)],
    ['not ASCII', 'clé'],
  ])('that is %s is a 422, and nothing happens', async (_, key) => {
    const client = await newClient();
    const integration_id = await createIntegration(client);
    const before = await resources();

    const { status, body } = await send(client, { method: 'DELETE', path: `/api/integrations/${integration_id}` }, key);

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: 'validation_failed', errors: [{ path: 'Idempotency-Key' }] });
    expect(await resources()).toEqual(before);
  });

  it('that is malformed is not told before the permission is', async () => {
    const client = await newClient({ role: 'user' });

    const { status } = await send(client, { method: 'DELETE', path: '/api/integrations/intg_000000000000' }, '');

    expect(status).toBe(403);
  });

  it('is kept for 24 hours, and forgotten by the cron', async () => {
    const client = await newClient();
    const creation: Mutation = {
      method: 'POST',
      path: '/api/integrations',
      body: { name: 'One', credentials: twilio },
    };
    const [old, recent] = [newKey(), newKey()];
    await send(client, creation, old);
    await send(client, creation, recent);
    const age = (key: string, seconds: number) =>
      env.DB.prepare('UPDATE idempotency_keys SET created_at = unixepoch() - ? WHERE idempotency_key = ?')
        .bind(seconds, key)
        .run();
    await age(old, 86_400);
    await age(recent, 86_400 - 60);

    await worker.scheduled(createScheduledController(), env);

    expect((await send(client, creation, recent)).headers.get('Idempotency-Replayed')).toBe('true');
    expect((await send(client, creation, old)).headers.get('Idempotency-Replayed')).toBeNull();
  });

  it('of an operator is kept for 24 hours, and forgotten by the cron', async () => {
    const operator = await newOperator();
    const create = (key: string) =>
      call(operator, 'POST', '/operator/organizations', { body: { name: 'One' }, headers: { 'Idempotency-Key': key } });
    const [old, recent] = [newKey(), newKey()];
    for (const key of [old, recent]) expect((await create(key)).status).toBe(201);
    const age = (key: string, seconds: number) =>
      env.DB.prepare('UPDATE operator_idempotency_keys SET created_at = unixepoch() - ? WHERE idempotency_key = ?')
        .bind(seconds, key)
        .run();
    await age(old, 86_400);
    await age(recent, 86_400 - 60);

    await worker.scheduled(createScheduledController(), env);

    expect(await rows('operator_idempotency_keys')).toMatchObject([{ idempotency_key: recent }]);
    expect((await create(recent)).headers.get('Idempotency-Replayed')).toBe('true');
    expect((await create(old)).headers.get('Idempotency-Replayed')).toBeNull();
  });
});

describe('what is old enough to be forgotten', () => {
  it('is forgotten in one turn of the cron, however much it is', async () => {
    const { organization_id } = await newClient();
    await env.DB.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < 12000)
       INSERT INTO idempotency_keys SELECT ?1, 'apikey_0', i, 'POST', '/', i, '', 0 FROM n`,
    )
      .bind(organization_id)
      .run();

    await worker.scheduled(createScheduledController(), env);

    expect((await rows('idempotency_keys')).filter((row) => row['organization_id'] === organization_id)).toEqual([]);
  });
});

describe('what is remembered', () => {
  it('holds no raw key, no credential, and no body that could be guessed', async () => {
    const client = await newClient();
    const bodies: Mutation[] = [
      { method: 'POST', path: '/api/integrations', body: { name: 'One', credentials: twilio } },
      {
        method: 'POST',
        path: '/api/phone-numbers',
        body: { phone_number: unusedNumber(), provider: 'sip', inbound_pin: '7741902266' },
      },
      { method: 'POST', path: '/api/api-keys', body: { name: 'Another', role: 'user' } },
    ];
    const answers = [];
    for (const body of bodies) answers.push(await send(client, body, newKey()));
    const raw_key = z.object({ data: z.object({ raw_key: z.string() }) }).parse(answers[2]?.body).data.raw_key;

    const remembered = (await rows('idempotency_keys')).filter((row) => row['actor_key_id'] === client.key_id);

    expect(remembered).toHaveLength(3);
    const text = JSON.stringify(remembered);
    for (const secret of [twilio.auth_token, twilio.account_sid, '7741902266', raw_key, client.raw_key]) {
      expect(text).not.toContain(secret);
    }
    const digests = await Promise.all(
      bodies.map(({ body }) => crypto.subtle.digest('SHA-256', new TextEncoder().encode(JSON.stringify(body)))),
    );
    for (const digest of digests) expect(text).not.toContain(btoa(String.fromCharCode(...new Uint8Array(digest))));
  });
});
