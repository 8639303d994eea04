import { env } from 'cloudflare:workers';
import { describe, expect, it } from 'vitest';
import { newRawKey } from '../../src/worker/callers/raw-key.ts';
import { mutationLimits, networkLimit, networksOf, organizationLimits } from '../../src/worker/http/rate-limit.ts';
import { BUDGET_PERIOD_SECONDS, providerLimits } from '../../src/worker/providers/budget.ts';
import { webhookTestLimit } from '../../src/worker/webhooks/test-limit.ts';
import wrangler from '../../wrangler.toml?raw';
import { countedBindings } from '../bindings.ts';
import { call, newClient } from '../fixtures.ts';
import type { Answer, Client } from '../fixtures.ts';

const AT_ONCE = 25;

/** The answers up to the first 429, in one period of the limiter. */
async function untilLimited(attempt: () => Promise<Answer>, most: number): Promise<Answer[]> {
  const answers: Answer[] = [];
  while (answers.length < most && !answers.some(({ status }) => status === 429)) {
    answers.push(...(await Promise.all(Array.from({ length: AT_ONCE }, attempt))));
  }
  return answers;
}

/** What an answer says of limits. */
const toldBy = (answer: Answer | undefined) =>
  Object.fromEntries(
    ['Retry-After', 'RateLimit', 'RateLimit-Policy'].map((name) => [name, answer?.headers.get(name) ?? null]),
  );

/** What the 429 says of the time to wait: the same in its header, its body and its sentence. */
const waitToldBy = (answer: Answer | undefined) => {
  const seconds = Number(answer?.headers.get('Retry-After'));
  return {
    code: 'rate_limited',
    retry_after_seconds: seconds,
    detail: `Too many requests. Try again in ${seconds} seconds.`,
  };
};

const get = (client: Client) => call(client, 'GET', '/api/nothing');

describe('the limit of an organization', () => {
  it('is stated to clients as wrangler.toml has it', () => {
    const all = [
      ...[...Object.values(organizationLimits), ...Object.values(mutationLimits), networkLimit].map(
        (limit) => [limit, 10] as const,
      ),
      ...Object.values(providerLimits).map((limit) => [limit, BUDGET_PERIOD_SECONDS] as const),
      [webhookTestLimit, webhookTestLimit.period_seconds] as const,
    ];
    for (const [{ binding, requests }, period] of all) {
      expect(wrangler).toMatch(
        new RegExp(
          `name = "${binding}"\\s+namespace_id = "\\d+"\\s+simple = { limit = ${requests}, period = ${period} }`,
        ),
      );
    }
  });

  it.each(['starter', 'pro', 'enterprise'] as const)('is on every answer to a caller of tier %s', async (tier) => {
    const { headers } = await get(await newClient({ tier }));

    const quota = organizationLimits[tier].requests;
    expect(headers.get('RateLimit-Policy')).toBe(`"${tier}";q=${quota};w=10`);
  });

  it.each([
    ['starter', 'POST', '/api/integrations'],
    ['pro', 'PUT', '/api/phone-numbers/phon_000000000000'],
    ['enterprise', 'DELETE', '/api/api-keys/apikey_000000000000'],
  ] as const)('is stated with that of mutations to a caller of tier %s by a %s', async (tier, method, path) => {
    const { headers } = await call(await newClient({ tier }), method, path);

    const [quota, mutations] = [organizationLimits[tier].requests, mutationLimits[tier].requests];
    expect(headers.get('RateLimit-Policy')).toBe(`"${tier}";q=${quota};w=10, "${tier}_mutations";q=${mutations};w=10`);
  });

  it('is lower for mutations, which leave its reads alone', async () => {
    const client = await newClient({ tier: 'starter' });
    const { bindings, calls } = countedBindings();
    await get(client);

    const missing = '/api/integrations/intg_000000000000';
    const answers = await untilLimited(() => call(client, 'DELETE', missing, { bindings }), 75);

    const limited = answers.find(({ status }) => status === 429);
    expect(limited).toMatchObject({ status: 429, body: waitToldBy(limited) });
    expect(toldBy(limited)).toEqual({
      'Retry-After': expect.stringMatching(/^1[0-5]$/),
      RateLimit: '"starter_mutations";r=0',
      'RateLimit-Policy': '"starter";q=100;w=10, "starter_mutations";q=20;w=10',
    });
    const passed = answers.filter(({ status }) => status !== 429);
    expect(passed.map(({ headers }) => headers.get('RateLimit'))).toEqual(passed.map(() => null));
    expect(passed.map(({ status }) => status)).toEqual(passed.map(() => 404));
    expect(passed.length).toBeGreaterThanOrEqual(20);
    expect(calls.filter((name) => name === 'DB.batch')).toHaveLength(passed.length);
    expect((await get(client)).status).toBe(404);
    expect((await call(await newClient({ tier: 'starter' }), 'DELETE', missing)).status).toBe(404);
  });

  it('is shared by all of its keys, ends in 429 with Retry-After, and spares other organizations', async () => {
    const client = await newClient({ tier: 'starter' });
    const { organization_id } = client;
    // Enough keys that a limit of 100 for each would not be met within two periods' worth of calls for all.
    const siblings = await Promise.all([1, 2, 3].map(() => newClient({ organization_id, tier: 'starter' })));
    const keys = [client, ...siblings];
    let turn = 0;

    const answers = await untilLimited(() => get(keys[(turn += 1) % keys.length] ?? client), 250);

    const limited = answers.find(({ status }) => status === 429);
    expect(limited).toMatchObject({ status: 429, body: waitToldBy(limited) });
    expect(toldBy(limited)).toEqual({
      'Retry-After': expect.stringMatching(/^1[0-5]$/),
      RateLimit: '"starter";r=0',
      'RateLimit-Policy': '"starter";q=100;w=10',
    });
    expect(answers.filter(({ status }) => status !== 429).length).toBeGreaterThanOrEqual(100);
    expect((await get(await newClient({ tier: 'starter' }))).status).toBe(404);
  });

  it('comes before permission and body, and costs D1 nothing', async () => {
    const client = await newClient({ tier: 'starter', role: 'user' });
    await get(client);
    const { bindings, calls } = countedBindings();

    const answers = await untilLimited(() => call(client, 'POST', '/api/integrations', { body: '{', bindings }), 75);

    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([403, 429]));
    expect(calls).toEqual([]);
  });
});

describe('a good key with a wrong organization', () => {
  it.each([
    ['another', { 'X-Organization-Id': 'org_another' }, 403],
    ['none', { 'X-Organization-Id': null }, 400],
  ])('is limited like any other: %s', async (_, headers, status) => {
    const client = await newClient({ tier: 'starter' });

    const answers = await untilLimited(() => call(client, 'GET', '/api/nothing', { headers }), 250);

    expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([status, 429]));
    expect(answers.filter((answer) => answer.status === status).length).toBeGreaterThanOrEqual(100);
  });
});

describe('the limit of an IP address on keys that no cache knows', () => {
  it('ends a flood of well-formed keys before D1, and spares known keys and other addresses', async () => {
    const client = await newClient();
    await get(client);
    const { bindings, calls } = countedBindings();
    const from = (ip: string, key: string) =>
      call(client, 'GET', '/api/nothing', { headers: { 'X-API-Key': key, 'CF-Connecting-IP': ip }, bindings });

    const answers = await untilLimited(() => from('203.0.113.7', newRawKey()), 500);

    const limited = answers.find(({ status }) => status === 429);
    expect(limited?.body).toMatchObject({ code: 'rate_limited' });
    expect(toldBy(limited)).toEqual({
      'Retry-After': expect.stringMatching(/^1[0-5]$/),
      RateLimit: '"key_lookup";r=0',
      'RateLimit-Policy': '"key_lookup";q=200;w=10',
    });
    const passed = answers.filter(({ status }) => status !== 429);
    expect(passed.map((answer) => toldBy(answer))).toEqual(
      passed.map(() => ({ 'Retry-After': null, RateLimit: null, 'RateLimit-Policy': null })),
    );
    expect(passed.length).toBeGreaterThanOrEqual(200);
    expect(calls.filter((name) => name === 'KEY_CACHE.get')).toHaveLength(passed.length);
    expect(calls.filter((name) => name === 'DB.batch')).toHaveLength(passed.length);
    expect((await from('203.0.113.7', client.raw_key)).status).toBe(404);
    expect((await from('203.0.113.8', newRawKey())).status).toBe(401);
  });

  it.each(['ENTERPRISE_LIMIT', 'ENTERPRISE_MUTATIONS_LIMIT', 'IP_LIMIT'] as const)(
    'admits everybody while %s fails',
    async (binding) => {
      const client = await newClient();
      const failing: RateLimit = { limit: () => Promise.reject(new Error('the limiter is away')) };

      const { status } = await call(client, 'DELETE', '/api/integrations/intg_000000000000', {
        bindings: { ...env, [binding]: failing },
      });

      expect(status).toBe(404);
    },
  );

  it.each([
    ['203.0.113.7', ['203.0.113.7']],
    ['::ffff:203.0.113.7', ['203.0.113.7']],
    ['2001:db8:1:2:3:4:5:6', ['2001:db8:1:2::/64', '2001:db8:1::/48']],
    ['2001:0DB8:0001:0002:0003:4:5:6', ['2001:db8:1:2::/64', '2001:db8:1::/48']],
    ['2001:db8:1:2::6', ['2001:db8:1:2::/64', '2001:db8:1::/48']],
    ['2001:db8::6', ['2001:db8:0:0::/64', '2001:db8:0::/48']],
    ['::1', ['0:0:0:0::/64', '0:0:0::/48']],
    ['2001:db8:1:2:3::', ['2001:db8:1:2::/64', '2001:db8:1::/48']],
  ])('takes %s for %j', (ip, networks) => {
    expect(networksOf(ip)).toEqual(networks);
  });

  it('ends a flood from 260 /64s of one /48 before KV and D1, at its own limit', async () => {
    const { bindings, calls } = countedBindings();
    const refused = await newClient();
    const answers = await Promise.all(
      Array.from({ length: 260 }, (_, index) =>
        call(refused, 'GET', '/api/nothing', {
          headers: { 'X-API-Key': newRawKey(), 'CF-Connecting-IP': `2001:db8:f100:${index.toString(16)}::1` },
          bindings,
        }),
      ),
    );

    const passed = answers.filter(({ status }) => status === 401);
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(answers.length - passed.length);
    // A period of the limiter may end meanwhile, once: then it is met by as many again, which are not there.
    expect(passed.length).toBeLessThan(260);
    for (const name of ['KEY_CACHE.get', 'DB.batch']) {
      expect(calls.filter((called) => called === name)).toHaveLength(passed.length);
    }
  });
});
