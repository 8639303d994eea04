import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { failingBindings, interceptedBindings } from '../bindings.ts';
import {
  call,
  createIntegration,
  emptyStorage,
  eventsOn,
  everythingKept,
  everythingStored,
  newClient,
  newOperator,
  page,
  rows,
} from '../fixtures.ts';
import type { Operator } from '../fixtures.ts';
import { createCustomer, setStatus, unusedId } from '../operations.ts';

const LOST = 'D1_ERROR: Network connection lost.';
const PATH = '/operator/organizations';

let operator: Operator;

beforeEach(async () => {
  await emptyStorage();
  operator = await newOperator();
  await call(operator, 'GET', '/operator/nothing');
});

const create = (body: unknown, bindings = env) => call(operator, 'POST', PATH, { body, bindings });

const answered = z.object({
  data: z.object({
    organization_id: z.string(),
    created_at: z.string(),
    first_key: z
      .object({ raw_key: z.string(), key: z.looseObject({ key_id: z.string(), created_at: z.string() }) })
      .optional(),
  }),
});

const dataOf = ({ text }: { text: string }) => answered.parse(JSON.parse(text)).data;

describe('a new organization', () => {
  it('is answered as it is stored, to the character', async () => {
    const body = { organization_id: 'org_Acme-1_x', name: 'Acme', tier: 'pro', metadata: { crm: '4711', note: '' } };

    const { status, text } = await create(body);

    expect(status).toBe(201);
    const { created_at } = dataOf({ text });
    expect(text).toBe(
      '{"success":true,"message":"Organization created successfully","data":{"organization_id":"org_Acme-1_x",' +
        '"name":"Acme","tier":"pro","status":"active","metadata":{"crm":"4711","note":""},' +
        `"created_at":"${created_at}"}}`,
    );
    const [row] = await rows('organizations');
    expect(row).toMatchObject({
      organization_id: 'org_Acme-1_x',
      name: 'Acme',
      name_folded: 'acme',
      tier: 'pro',
      status: 'active',
      metadata: '{"crm":"4711","note":""}',
      integration_count: 0,
      phone_number_count: 0,
      api_key_count: 0,
      change_count: 0,
      is_offboarding: 0,
      max_integrations: null,
    });
    expect(created_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    expect(row?.['account_salt']).toMatch(/^[0-9a-f]{32,}$/i);
  });

  it('needs a name alone: it gets an id, the lowest tier, no metadata and no key', async () => {
    const { status, body } = await create({ name: 'Acme' });

    expect(status).toBe(201);
    expect(body).toEqual({
      success: true,
      message: 'Organization created successfully',
      data: {
        organization_id: expect.stringMatching(/^org_[a-f0-9]{12}$/),
        name: 'Acme',
        tier: 'starter',
        status: 'active',
        metadata: {},
        created_at: expect.any(String),
      },
    });
    expect(await rows('api_keys')).toEqual([]);
  });

  it('is the same where its client says null for none', async () => {
    const nothing = { organization_id: null, tier: null, metadata: null, first_key: null };

    const { status, body } = await create({ name: 'Acme', ...nothing });

    expect(status).toBe(201);
    expect(body).toMatchObject({ data: { tier: 'starter', metadata: {} } });
    expect(await rows('api_keys')).toEqual([]);
  });

  it('is another each time, also by the same name', async () => {
    const [one, other] = [dataOf(await create({ name: 'Acme' })), dataOf(await create({ name: 'Acme' }))];

    expect(one.organization_id).not.toBe(other.organization_id);
    const salts = (await rows('organizations')).map((row) => row['account_salt']);
    expect(new Set(salts).size).toBe(2);
  });

  it('has one event, of the operator key, with its state', async () => {
    const { text, headers } = await create({ name: 'Acme', metadata: { crm: '4711' } });
    const { organization_id } = dataOf({ text });

    expect(await eventsOn(organization_id)).toEqual([
      expect.objectContaining({
        organization_id,
        action: 'organization.created',
        actor_type: 'operator',
        actor_id: operator.operator_key_id,
        actor_name: 'Signup service',
        actor_key_id: null,
        request_id: headers.get('X-Request-Id'),
        sequence: 1,
        changes: null,
        state: {
          organization_id,
          tier: 'starter',
          status: 'active',
          created_at: expect.any(Number),
          name: 'Acme',
          metadata: '{"crm":"4711"}',
        },
      }),
    ]);
  });
});

describe('the first key of a new organization', () => {
  const first_key = { name: 'Console', role: 'admin' };

  it('is shown once, and stored by its hash alone', async () => {
    const { status, body, text } = await create({ name: 'Acme', first_key });

    expect(status).toBe(201);
    const { organization_id, first_key: shown } = dataOf({ text });
    const raw_key = shown?.raw_key ?? '';
    expect(body).toMatchObject({
      message: 'Organization created successfully',
      data: {
        first_key: {
          raw_key: expect.stringMatching(/^bk_live_[0-9A-Za-z]{56}$/),
          key: {
            key_id: expect.stringMatching(/^apikey_[a-f0-9]{12}$/),
            name: 'Console',
            role: 'admin',
            prefix: raw_key.slice(0, 12),
            client_id: organization_id,
            user_id: 'user_operator',
            status: 'active',
            last_used_at: null,
            expires_at: null,
          },
        },
      },
    });
    const [row] = await rows('api_keys');
    expect(row).toMatchObject({ organization_id, key_hash: await hashKey(raw_key), created_by: null, revision: 1 });
    const stored = JSON.stringify(await everythingStored());
    expect(stored).not.toContain(raw_key);
    expect(stored).not.toContain(raw_key.slice(-40));
  });

  it('works at once, and does what its organization does', async () => {
    const client = await createCustomer(operator);

    const integration_id = await createIntegration(client);

    expect((await call(client, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(200);
  });

  it('is on record beside its organization, in one call and in the organization’s own trail', async () => {
    const client = await createCustomer(operator);

    const { data } = await page(client, '/api/audit-events');

    expect(data).toMatchObject([
      {
        action: 'organization.created',
        target_id: client.organization_id,
        actor: { type: 'operator', id: operator.operator_key_id, name: 'Signup service' },
        state: { client_id: client.organization_id, name: 'Acme' },
      },
      {
        action: 'api_key.created',
        target_id: client.key_id,
        actor: { type: 'operator', id: operator.operator_key_id },
      },
    ]);
    expect(new Set(data.map(({ request_id }) => request_id)).size).toBe(1);
    expect(JSON.stringify(data)).not.toContain('metadata');
  });

  it('is made with its organization or not at all: where the key cannot be stored, there is neither', async () => {
    const before = await everythingKept();
    const bindings = interceptedBindings(
      (_, carryOut) => carryOut(),
      (sql) => (sql.startsWith('insert into "api_keys"') ? sql.replace('"key_hash"', '"no_such_column"') : sql),
    );

    const { status } = await create({ name: 'Acme', first_key }, bindings);

    expect(status).toBe(500);
    expect(await everythingKept()).toEqual(before);
  });

  it('is made once where the first answer is lost, and shown', async () => {
    const { bindings } = failingBindings('DB.batch', { when: 'after', message: LOST, times: 1 });

    const answer = await create({ name: 'Acme', first_key }, bindings);

    expect(answer.status).toBe(201);
    const [key] = await rows('api_keys');
    expect(key?.['key_hash']).toBe(await hashKey(dataOf(answer).first_key?.raw_key ?? ''));
    expect(await rows('api_keys')).toHaveLength(1);
    expect(await rows('organizations')).toHaveLength(1);
    expect((await rows('audit_events')).map(({ action }) => String(action)).toSorted()).toEqual([
      'api_key.created',
      'organization.created',
    ]);
  });

  it('is not made again by a try that lands after the key was forgotten', async () => {
    let late: (() => Promise<unknown>) | undefined;
    const bindings = interceptedBindings(async (name, carryOut) => {
      if (name !== 'DB.batch' || late) return carryOut();
      late = carryOut;
      throw new Error(LOST);
    });
    const { status } = await create({ name: 'Acme', first_key }, bindings);
    await env.DB.prepare('DELETE FROM api_keys').run();
    const before = await everythingKept();

    await late?.();

    expect(status).toBe(201);
    expect(late).toBeDefined();
    expect(await everythingKept()).toEqual(before);
  });
});

describe('an organization that exists', () => {
  it.each(['active', 'suspended', 'offboarded'] as const)(
    'is a 409 with its id and stays as it is, without a further key: %s',
    async (status) => {
      const { organization_id } = await newClient({ tier: 'pro' });
      await setStatus(organization_id, status);
      const before = await everythingKept();

      const answers = [
        await create({ organization_id, name: 'Taken over' }),
        await create({ organization_id, name: 'Taken over', first_key: { name: 'Mine', role: 'admin' } }),
      ];

      for (const answer of answers) {
        expect(answer).toMatchObject({
          status: 409,
          body: {
            code: 'organization_exists',
            organization_id,
            detail: `There is an organization ${organization_id} already.`,
          },
        });
      }
      expect(await everythingKept()).toEqual(before);
    },
  );

  it('is told by its id as it is written: another case is another organization', async () => {
    await create({ organization_id: 'org_acme', name: 'Acme' });

    expect((await create({ organization_id: 'org_ACME', name: 'Acme' })).status).toBe(201);
  });

  it('is made by one of several calls at the same time, and the others hear of it', async () => {
    const organization_id = unusedId();
    const body = { organization_id, name: 'Acme', first_key: { name: 'First', role: 'admin' } };

    const answers = await Promise.all([1, 2, 3, 4].map(() => create(body)));

    expect(answers.map(({ status }) => String(status)).toSorted()).toEqual(['201', '409', '409', '409']);
    expect(await rows('api_keys')).toHaveLength(1);
    expect(await rows('organizations')).toHaveLength(1);
  });
});

const pairs = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`key ${index}`, String(index)]));

describe('what describes an organization', () => {
  it.each<[string, Record<string, string>]>([
    ['16 pairs', pairs(16)],
    ['a key of 40 characters', { ['k'.repeat(40)]: 'v' }],
    ['a key of 40 characters beyond the BMP', { ['𐐀'.repeat(40)]: 'v' }],
    ['a value of 500 characters', { k: 'v'.repeat(500) }],
    ['a value of 500 characters beyond the BMP', { k: '𐐀'.repeat(500) }],
    ['an empty value', { k: '' }],
    ['spaces, quotes and what SQL is made of', { [`a'"; --`]: `'); DROP TABLE organizations; -- "` }],
    ['names of JavaScript', { constructor: 'a', toString: 'b', hasOwnProperty: 'c' }],
  ])('has metadata of %s, as it was sent', async (_, metadata) => {
    const { status, body } = await create({ name: 'Acme', metadata });

    expect(status).toBe(201);
    expect(body).toMatchObject({ data: { metadata } });
    expect(JSON.parse(String((await rows('organizations'))[0]?.['metadata']))).toEqual(metadata);
  });

  it.each<[string, unknown, string, string]>([
    ['17 pairs', pairs(17), 'metadata', 'must have at most 16 pairs'],
    ['the key __proto__', JSON.parse('{"__proto__":"v","a":"b"}'), 'metadata', 'must not have the key __proto__'],
    [
      'a key of 41 characters',
      { ['k'.repeat(41)]: 'v' },
      `metadata.${'k'.repeat(41)}`,
      'must be a key of 1 to 40 characters, without control characters',
    ],
    [
      'an empty key',
      { '': 'v' },
      'metadata',
      'has a key that is not shown: it must be a key of 1 to 40 characters, without control characters',
    ],
    [
      'a key with a control character',
      { 'a\u0007': 'v' },
      'metadata',
      'has a key that is not shown: it must be a key of 1 to 40 characters, without control characters',
    ],
    [
      'a value of 501 characters',
      { crm: 'v'.repeat(501) },
      'metadata.crm',
      'must be 0 to 500 characters long, without control characters',
    ],
    [
      'a value with a line break',
      { crm: 'one\ntwo' },
      'metadata.crm',
      'must be 0 to 500 characters long, without control characters',
    ],
    [
      'half a surrogate pair',
      { crm: '\ud800' },
      'metadata.crm',
      'must be 0 to 500 characters long, without control characters',
    ],
    ['a number', { crm: 4711 }, 'metadata.crm', 'must be a string'],
    ['a boolean', { crm: true }, 'metadata.crm', 'must be a string'],
    ['null in a pair', { crm: null }, 'metadata.crm', 'must not be null'],
    ['an object in a pair', { crm: { id: '4711' } }, 'metadata.crm', 'must be a string'],
    ['a list in a pair', { crm: ['4711'] }, 'metadata.crm', 'must be a string'],
    ['a list', ['4711'], 'metadata', 'must be an object'],
    ['text', '{"crm":"4711"}', 'metadata', 'must be an object'],
    ['a number alone', 4711, 'metadata', 'must be an object'],
  ])('cannot be metadata of %s: a 422 says where and what, and nothing is made', async (_, metadata, path, message) => {
    const before = await everythingKept();

    const { status, body } = await create({ name: 'Acme', metadata });

    expect(status).toBe(422);
    expect(body).toMatchObject({ code: 'validation_failed', errors: [{ path, message }] });
    expect(await everythingKept()).toEqual(before);
  });

  it('repeats no value that it refuses', async () => {
    const { status, text } = await create({ name: 'Acme', metadata: { token: 'plaintext-secret\n' } });

    expect(status).toBe(422);
    expect(text).not.toContain('plaintext');
  });

  it.each<[string, object, string, string]>([
    ['without a name', {}, 'name', 'is required'],
    ['with null as its name', { name: null }, 'name', 'must not be null'],
    ['with a number as its name', { name: 1 }, 'name', 'must be a string'],
    ['with no name', { name: '' }, 'name', 'must be 1 to 100 characters long, without control characters'],
    [
      'with a name of 101 characters',
      { name: 'n'.repeat(101) },
      'name',
      'must be 1 to 100 characters long, without control characters',
    ],
    ['with an invisible name', { name: '\u2800' }, 'name', 'must have at least one visible character'],
    [
      'with a space behind its name',
      { name: 'Acme ' },
      'name',
      'must not begin or end with white space or invisible characters',
    ],
    ['of another tier', { name: 'A', tier: 'gold' }, 'tier', 'must be one of starter, pro, enterprise'],
    ['of a tier in capitals', { name: 'A', tier: 'PRO' }, 'tier', 'must be one of starter, pro, enterprise'],
    ['with a status', { name: 'A', status: 'suspended' }, 'status', '`status` is not a known field'],
    ['with limits', { name: 'A', limits: {} }, 'limits', '`limits` is not a known field'],
    [
      'with a misspelt field',
      { name: 'A', organisation_id: 'org_a' },
      'organisation_id',
      '`organisation_id` is not a known field; did you mean `organization_id`?',
    ],
    ['with a first key that is text', { name: 'A', first_key: 'Console' }, 'first_key', 'must be an object'],
    ['with a first key without a role', { name: 'A', first_key: { name: 'K' } }, 'first_key.role', 'is required'],
    ['with a first key without a name', { name: 'A', first_key: { role: 'user' } }, 'first_key.name', 'is required'],
    [
      'with a first key of another role',
      { name: 'A', first_key: { name: 'K', role: 'owner' } },
      'first_key.role',
      'must be one of admin, agent_manager, user',
    ],
    [
      'with a first key that expires',
      { name: 'A', first_key: { name: 'K', role: 'user', expires_at: '2030-01-01T00:00:00Z' } },
      'first_key.expires_at',
      '`first_key.expires_at` is not a known field',
    ],
    [
      'with a first key that is chosen',
      { name: 'A', first_key: { name: 'K', role: 'user', raw_key: 'bk_live_mine' } },
      'first_key.raw_key',
      '`first_key.raw_key` is not a known field',
    ],
  ])('is refused %s, and nothing is made', async (_, body, path, message) => {
    const before = await everythingKept();

    const answer = await create(body);

    expect(answer).toMatchObject({ status: 422, body: { code: 'validation_failed', errors: [{ path, message }] } });
    expect(await everythingKept()).toEqual(before);
  });

  it.each(['org_a', `org_${'a'.repeat(40)}`, 'org_-', 'org__', 'org_A-b_9'])('has the id %s', async (id) => {
    const { status, body } = await create({ organization_id: id, name: 'Acme' });

    expect(status).toBe(201);
    expect(body).toMatchObject({ data: { organization_id: id } });
    expect((await call(operator, 'GET', `${PATH}/${id}`)).status).toBe(200);
  });

  it.each([
    'acme',
    'org_',
    'ORG_acme',
    `org_${'a'.repeat(41)}`,
    'org_a b',
    'org_ä',
    'org_a/b',
    'org_a\n',
    ' org_a',
    'intg_000000000000',
    'org_a.b',
    '',
    4711,
  ])('has no id like %j', async (organization_id) => {
    const before = await everythingKept();

    const { status, body } = await create({ organization_id, name: 'Acme' });

    expect(status).toBe(422);
    expect(body).toMatchObject({
      errors: [{ path: 'organization_id', message: expect.stringMatching(/^must be (?:org_ followed by|a string)/) }],
    });
    expect(await everythingKept()).toEqual(before);
  });

  it.each<[string, unknown, number, string]>([
    ['a list', [], 422, 'validation_failed'],
    ['null', null, 422, 'validation_failed'],
    ['text', '"Acme"', 422, 'validation_failed'],
    ['half a body', '{"name":', 400, 'malformed_json'],
    ['nothing', undefined, 415, 'unsupported_media_type'],
    ['more than 64 KiB', { name: 'A', metadata: { k: 'v'.repeat(70_000) } }, 413, 'payload_too_large'],
  ])('is an object: %s is refused', async (_, body, status, code) => {
    const before = await everythingKept();

    expect(await create(body)).toMatchObject({ status, body: { code } });

    expect(await everythingKept()).toEqual(before);
  });

  it('is in the body: a query string is refused', async () => {
    const before = await everythingKept();

    expect(await call(operator, 'POST', `${PATH}?name=Acme`, { body: { name: 'Acme' } })).toMatchObject({
      status: 422,
      body: { errors: [{ path: 'name', message: '`name` is not a known parameter' }] },
    });

    expect(await everythingKept()).toEqual(before);
  });
});
