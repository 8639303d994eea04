/** Calls whose key neither the isolate nor KV knows: D1 is asked about it together with what the call wants. */
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { forgetKey } from '../src/worker/callers/caller.ts';
import { forgetOperator } from '../src/worker/callers/operator.ts';
import { hashKey, newRawKey } from '../src/worker/callers/raw-key.ts';
import { interceptedBindings } from './bindings.ts';
import type { BindingCall } from './bindings.ts';
import {
  call,
  changeKey,
  createIntegration,
  emptyStorage,
  everythingKept,
  fillKeys,
  fillNumbers,
  importNumber,
  newClient,
  newOperator,
  rows,
  start,
  unusedNumber,
} from './fixtures.ts';
import type { Client, Operator } from './fixtures.ts';
import { mutations } from './mutations.ts';
import { setStatus } from './operations.ts';
import { operatorMutations } from './operator-mutations.ts';
import { requests } from './requests.ts';

/** What an unknown key may make D1 read, at most; and one that D1 knows, but may not do this. */
const MAX_ROWS_OF_UNKNOWN = 30;
const MAX_ROWS_OF_REFUSED = 50;
/** What of it are reads. The others are the statements that would act. */
const MAX_ROWS_OF_READS = 20;

interface RowsRead {
  all: number;
  reads: number;
}

interface Sent {
  method: string;
  path: string;
  body?: object;
  headers?: Record<string, string>;
}

async function cool({ raw_key }: { raw_key: string }): Promise<void> {
  const hash = await hashKey(raw_key);
  forgetKey(hash);
  forgetOperator(hash);
  await env.KEY_CACHE.delete(hash);
}

/** Makes the call in an isolate that does not know the key. KV answers only once the call is answered: nobody waits for it. */
async function callCold(caller: Client | Operator, { method, path, body, headers }: Sent) {
  await cool(caller);
  const answered = Promise.withResolvers<void>();
  const calls: BindingCall[] = [];
  const rowsRead = { all: 0, reads: 0 };
  const bindings = interceptedBindings(async (name, carryOut, { statements }) => {
    calls.push(name);
    if (name === 'KEY_CACHE.get') await answered.promise;
    const result = await carryOut();
    for (const [index, { meta }] of Array.isArray(result) ? result.entries() : []) {
      rowsRead.all += meta.rows_read;
      if (/^select/i.test(statements[index]?.sql ?? '')) rowsRead.reads += meta.rows_read;
    }
    return result;
  });
  const answer = await start(caller, method, path, { body, headers: { ...headers }, bindings });
  const before = calls.filter((name) => name !== 'KEY_CACHE.get');
  const rowsBefore = { ...rowsRead };
  answered.resolve();
  await answer.settle();
  return { ...answer, before, rowsRead: rowsBefore, kvReads: calls.length - before.length };
}

const isDear = ({ all, reads }: RowsRead, maxRows: number) => all > maxRows || reads > MAX_ROWS_OF_READS;

const events = async (organization_id: string) =>
  (await rows('audit_events')).filter((event) => event['organization_id'] === organization_id);

beforeEach(emptyStorage);

describe('a mutation with a key that nothing knows', () => {
  it.each(mutations)('$name is answered with $status, and its events name the key', async ({ prepare, status }) => {
    const client = await newClient();
    const sent = await prepare(client);
    const earlier = (await events(client.organization_id)).length;

    const answer = await callCold(client, sent);

    expect(answer.status, answer.text).toBe(status);
    for (const event of (await events(client.organization_id)).slice(earlier)) {
      const { actor_type, actor_id, actor_key_id, actor_name } = event;
      if (actor_type === 'system') continue;
      expect({ actor_type, actor_id, actor_key_id, actor_name }).toEqual({
        actor_type: 'api_key',
        actor_id: client.key_id,
        actor_key_id: client.key_id,
        actor_name: 'Test',
      });
    }
    expect(answer.headers.has('RateLimit-Policy')).toBe(true);
  });

  it('acts once under an Idempotency-Key, whether the isolate knows the key or not', async () => {
    const client = await newClient();
    const sent = { method: 'POST', path: '/api/api-keys', body: { name: 'Once', role: 'user' } };
    const headers = { 'Idempotency-Key': 'once' };

    const first = await callCold(client, { ...sent, headers });
    const warm = await call(client, sent.method, sent.path, { body: sent.body, headers });
    const again = await callCold(client, { ...sent, headers });

    expect([first, warm, again].map((answer) => answer.status)).toEqual([201, 201, 201]);
    expect([first, warm, again].map((answer) => answer.headers.get('Idempotency-Replayed'))).toEqual([
      null,
      'true',
      'true',
    ]);
    expect(await rows('api_keys')).toHaveLength(2);
  });

  it('makes the key known to the isolate and to KV, and notes its use', async () => {
    const client = await newClient();
    const { before } = await callCold(client, { method: 'DELETE', path: '/api/integrations/intg_000000000000' });

    expect(before).toEqual(['DB.batch']);
    expect(await env.KEY_CACHE.get(await hashKey(client.raw_key))).not.toBeNull();
    expect((await rows('api_keys'))[0]?.['last_used_at']).not.toBeNull();
  });

  it('that revokes the key itself leaves it in no cache', async () => {
    const client = await newClient();

    const { status } = await callCold(client, { method: 'DELETE', path: `/api/api-keys/${client.key_id}` });

    expect(status).toBe(200);
    expect(await env.KEY_CACHE.get(await hashKey(client.raw_key))).toBeNull();
    expect((await call(client, 'GET', '/api/whoami')).status).toBe(401);
  });
});

describe('an operator’s mutation with a key that nothing knows', () => {
  it.each(operatorMutations)('$name is answered with $status, and its events name the key', async (mutation) => {
    const operator = await newOperator();
    const sent = await mutation.prepare(await newClient());
    const earlier = new Set((await rows('audit_events')).map(({ event_id }) => event_id));

    const answer = await callCold(operator, sent);

    expect(answer.status, answer.text).toBe(mutation.status);
    for (const event of await rows('audit_events')) {
      if (earlier.has(event['event_id']) || event['actor_type'] === 'system') continue;
      const { actor_type, actor_id, actor_key_id, actor_name } = event;
      expect({ actor_type, actor_id, actor_key_id, actor_name }).toEqual({
        actor_type: 'operator',
        actor_id: operator.operator_key_id,
        actor_key_id: null,
        actor_name: 'Signup service',
      });
    }
  });
});

/** Keys that may not do anything in the client's organization, and what they are told. */
const nobodies: [string, number, string, number, (client: Client) => Promise<Client>][] = [
  ['unknown', 401, 'invalid_api_key', MAX_ROWS_OF_UNKNOWN, async (client) => ({ ...client, raw_key: newRawKey() })],
  [
    'of another organization',
    403,
    'organization_mismatch',
    MAX_ROWS_OF_REFUSED,
    async (client) => ({ ...(await newClient()), ...only(client) }),
  ],
  [
    'revoked',
    401,
    'invalid_api_key',
    MAX_ROWS_OF_REFUSED,
    async (client) => {
      const revoked = await newClient({ organization_id: client.organization_id });
      await changeKey(revoked, `status = 'revoked'`);
      return revoked;
    },
  ],
  [
    'expired',
    401,
    'invalid_api_key',
    MAX_ROWS_OF_REFUSED,
    async (client) => {
      const expired = await newClient({ organization_id: client.organization_id });
      await changeKey(expired, 'expires_at = unixepoch() - 1');
      return expired;
    },
  ],
];

const only = ({ organization_id }: Client) => ({ organization_id });

/** An organization that is so large that reading all of anything shows. */
async function largeOrganization() {
  const client = await newClient();
  const integration_id = await createIntegration(client, undefined, '?verify=false');
  const other = await createIntegration(client, undefined, '?verify=false');
  const phone_number = unusedNumber();
  const phone_number_id = await importNumber(client, integration_id, phone_number);
  await fillNumbers(client, integration_id, 300);
  await fillKeys(client, 300);
  return { client, integration_id, other, phone_number, phone_number_id };
}

const idsIn = (
  path: string,
  { client, integration_id, phone_number_id }: Awaited<ReturnType<typeof largeOrganization>>,
) =>
  path
    .replace('{integration_id}', integration_id)
    .replace('{phone_number_id}', phone_number_id)
    .replace('{key_id}', client.key_id);

describe.each(nobodies)('a key that is %s', (_, status, code, maxRows, nobodyOf) => {
  it('does nothing with any mutation, and makes D1 read few rows, once', async () => {
    const dear: [string, RowsRead][] = [];
    for (const { name, prepare } of mutations) {
      await emptyStorage();
      const client = await newClient();
      const sent = await prepare(client);
      const nobody = await nobodyOf(client);
      const before = await everythingKept();

      const answer = await callCold(nobody, sent);

      expect({ name, status: answer.status, body: answer.body }).toMatchObject({ name, status, body: { code } });
      expect({ name, calls: answer.before }).toEqual({ name, calls: ['DB.batch'] });
      if (isDear(answer.rowsRead, maxRows)) dear.push([name, answer.rowsRead]);
      const after = await everythingKept();
      const withoutUse = (kept: typeof after) => JSON.stringify(kept).replaceAll(/"last_used_at":(?:null|\d+)/g, '');
      expect(withoutUse(after), name).toBe(withoutUse(before));
    }
    expect(dear).toEqual([]);
  });

  it('makes D1 read few rows of a large organization, whatever it asks for', async () => {
    const large = await largeOrganization();
    const { integration_id, other, phone_number } = large;
    const reads = requests.filter(({ method, path }) => method === 'GET' && path.startsWith('/api/'));
    expect(reads.length).toBeGreaterThanOrEqual(10);
    const numbers = Array.from({ length: 100 }, () => unusedNumber());
    const phone_number_ids = Array.from({ length: 100 }, (_id, index) => `phon_${String(index).padStart(12, '0')}`);
    const through = { provider: 'twilio', integration_id };
    const all: Sent[] = [
      ...reads.map(({ method, path }) => ({ method, path: idsIn(path, large) })),
      { method: 'DELETE', path: `/api/integrations/${integration_id}` },
      { method: 'DELETE', path: `/api/integrations/${integration_id}?reassign_to=${other}` },
      { method: 'DELETE', path: `/api/integrations/${integration_id}?remove_phone_numbers=true` },
      { method: 'DELETE', path: `/api/integrations/${integration_id}?expect_references=3` },
      { method: 'DELETE', path: `/api/api-keys/${large.client.key_id}?include_descendants=true` },
      { method: 'POST', path: '/api/phone-numbers/bulk-delete', body: { integration_id } },
      { method: 'POST', path: '/api/phone-numbers/bulk-delete', body: { phone_number_ids } },
      {
        method: 'POST',
        path: '/api/phone-numbers/bulk-update',
        body: { integration_id, set: { assigned_agent_id: 'agent_a' } },
      },
      {
        method: 'POST',
        path: '/api/phone-numbers/bulk-update?verify=false',
        body: { integration_id, set: { integration_id: other } },
      },
      {
        method: 'POST',
        path: '/api/phone-numbers/bulk?verify=false',
        body: { integration_id, phone_numbers: numbers },
      },
      { method: 'POST', path: '/api/phone-numbers/bulk', body: { integration_id, phone_numbers: numbers } },
      { method: 'POST', path: '/api/phone-numbers?verify=false', body: { phone_number, ...through } },
    ];
    const dear: [string, RowsRead][] = [];
    for (const sent of all) {
      const answer = await callCold(await nobodyOf(large.client), sent);
      // What is wrong with the request itself is told only to who has a key.
      expect({ sent, status: answer.status, text: answer.text }).toMatchObject({ sent, status });
      expect(answer.before).toEqual(['DB.batch']);
      if (isDear(answer.rowsRead, maxRows)) dear.push([`${sent.method} ${sent.path}`, answer.rowsRead]);
    }
    expect(dear).toEqual([]);
  });
});

describe('a key of an organization that is suspended', () => {
  it('does nothing, and reads nothing', async () => {
    const client = await newClient();
    const path = `/api/integrations/${await createIntegration(client)}`;
    await setStatus(client.organization_id, 'suspended');
    const before = await everythingKept();

    for (const method of ['GET', 'DELETE']) {
      const answer = await callCold(client, { method, path });
      expect({ status: answer.status, body: answer.body }).toMatchObject({
        status: 401,
        body: { code: 'invalid_api_key' },
      });
    }

    expect(await everythingKept()).toEqual(before);
  });
});

describe('a request that is wrong in itself', () => {
  const wrong: [string, Sent, number][] = [
    ['of an unknown field', { method: 'POST', path: '/api/integrations', body: { nam: 'x' } }, 422],
    ['of a malformed id', { method: 'GET', path: '/api/integrations/42' }, 422],
    ['of a path that does not exist', { method: 'GET', path: '/api/nothing' }, 404],
    [
      'without an organization',
      { method: 'GET', path: '/api/integrations', headers: { 'X-Organization-Id': '' } },
      400,
    ],
  ];

  it.each(wrong)('%s is told so to who has a key, after one look-up', async (_, sent, status) => {
    const { before, ...answer } = await callCold(await newClient(), sent);

    expect(answer.status).toBe(status);
    expect(before).toEqual(['DB.batch']);
  });

  it.each(wrong)('%s is a 401 for an unknown key', async (_, sent) => {
    const { before, ...answer } = await callCold({ ...(await newClient()), raw_key: newRawKey() }, sent);

    expect(answer.status).toBe(401);
    expect(before).toEqual(['DB.batch']);
  });

  it('is a 403 for a key without the permission, before what else is wrong', async () => {
    const user = await newClient({ role: 'user' });

    const answer = await callCold(user, { method: 'POST', path: '/api/integrations', body: { nam: 'x' } });

    expect({ status: answer.status, body: answer.body }).toMatchObject({
      status: 403,
      body: { code: 'permission_denied', required_permission: 'integrations:create' },
    });
  });
});

describe('an unknown operator key', () => {
  const operator = { operator_key_id: 'opkey_000000000000' };

  it('does nothing with any mutation, and makes D1 read few rows, once', async () => {
    for (const { name, prepare } of operatorMutations) {
      const sent = await prepare(await newClient());
      const before = await everythingKept();

      const answer = await callCold({ ...operator, raw_key: newRawKey('bk_operator_') }, sent);

      expect({ name, status: answer.status, body: answer.body }).toMatchObject({
        name,
        status: 401,
        body: { code: 'invalid_operator_key' },
      });
      expect({ name, calls: answer.before }).toEqual({ name, calls: ['DB.batch'] });
      expect({ name, isDear: isDear(answer.rowsRead, MAX_ROWS_OF_UNKNOWN) }).toEqual({ name, isDear: false });
      expect(await everythingKept(), name).toEqual(before);
    }
  });

  it('does nothing if it lacks the permission, and is told so', async () => {
    const without = await newOperator({ permissions: [] });
    for (const { name, prepare } of operatorMutations) {
      const sent = await prepare(await newClient());
      const { d1 } = await everythingKept();

      const answer = await callCold(without, sent);

      expect({ name, status: answer.status, body: answer.body }).toMatchObject({
        name,
        status: 403,
        body: { code: 'operator_permission_denied' },
      });
      const after = (await everythingKept()).d1;
      expect({ ...after, operator_keys: [] }, name).toEqual({ ...d1, operator_keys: [] });
    }
  });
});

describe('a flood of 10,000 unknown keys from one address', () => {
  it('reaches D1 as often as the address has tokens, and reads few rows each time', async () => {
    const { client, integration_id } = await largeOrganization();
    const sent: [string, string][] = [
      ['GET', '/api/phone-numbers?page_size=100'],
      ['DELETE', `/api/integrations/${integration_id}?remove_phone_numbers=true`],
    ];
    const before = await everythingKept();
    const batches: number[] = [];
    const bindings = interceptedBindings(async (name, carryOut) => {
      const result = await carryOut();
      if (Array.isArray(result)) batches.push(result.reduce((sum: number, { meta }) => sum + meta.rows_read, 0));
      return name === 'KEY_CACHE.get' ? null : result;
    });
    const began = Date.now();
    const statuses = new Map<number, number>();
    for (let count = 0; count < 10_000; count += 100) {
      const hundred = Array.from({ length: 100 }, async (_, index) => {
        const [method = '', path = ''] = sent[index % 2] ?? [];
        const headers = { 'X-API-Key': newRawKey(), 'CF-Connecting-IP': '203.0.113.99' };
        const { status } = await call(client, method, path, { headers, bindings });
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      });
      await Promise.all(hundred);
    }
    const periods = Math.ceil((Date.now() - began) / 10_000) + 1;

    expect((statuses.get(401) ?? 0) + (statuses.get(429) ?? 0)).toBe(10_000);
    expect(statuses.get(429)).toBeGreaterThan(0);
    expect(batches).toHaveLength(statuses.get(401) ?? 0);
    expect(batches.length).toBeLessThanOrEqual(200 * periods);
    expect(Math.max(...batches)).toBeLessThanOrEqual(MAX_ROWS_OF_UNKNOWN);
    expect(await everythingKept()).toEqual(before);
  });
});

describe('an operator key without permissions', () => {
  it('reads nothing', async () => {
    const { organization_id } = await newClient();
    const about = `/operator/organizations/${organization_id}`;
    const without = await newOperator({ permissions: [] });
    for (const path of [
      about,
      '/operator/organizations',
      `${about}/api-keys`,
      '/operator/phone-numbers?phone_number=%2B14155550100',
      `/operator/audit-events?organization_id=${organization_id}`,
    ]) {
      const { status, body } = await callCold(without, { method: 'GET', path });
      expect({ path, status, body }).toMatchObject({ path, status: 403, body: { code: 'operator_permission_denied' } });
    }
  });
});

const stored = z.array(z.looseObject({ kv_key: z.string() }));

describe('the creation of an integration with a key that nothing knows', () => {
  it('leaves no intent, no ciphertext and no call to a provider before D1 has confirmed the key', async () => {
    const client = await newClient();
    const body = { name: 'x', credentials: { provider: 'telnyx', api_key: 'plaintext-api-key' } };

    const refused = await callCold(
      { ...client, raw_key: newRawKey() },
      { method: 'POST', path: '/api/integrations', body },
    );
    const made = await callCold(client, { method: 'POST', path: '/api/integrations', body });

    expect(refused.before).toEqual(['DB.batch']);
    expect(stored.parse(await rows('credential_purges'))).toEqual([]);
    expect(made.before).toEqual(['DB.batch', 'provider.fetch', 'CREDENTIALS.put', 'DB.batch']);
  });
});
