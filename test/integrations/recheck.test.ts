/** The cron checks stored credentials with their providers again. */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { suspendOrganization, resumeOrganization } from '../../src/operator/organizations/suspend.ts';
import worker from '../../src/worker/index.ts';
import { RECHECK_CRON } from '../../src/worker/integrations/recheck.ts';
import wrangler from '../../wrangler.toml?raw';
import { interceptedBindings, stallingBindings } from '../bindings.ts';
import {
  actionsOn,
  call,
  createIntegration,
  emptyStorage,
  eventsOn,
  importNumber,
  newClient,
  rowOf,
  rows,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { answerNow, callsWith, secretAnswering } from '../simulation.ts';
import { cron, fillIntegrations, runUntilIdle, slowProviders } from './rechecks.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

let client: Client;
let secret: string;
let integration_id: string;
let now: number;

beforeEach(async () => {
  await emptyStorage();
  now = Date.now();
  vi.useFakeTimers({ toFake: ['Date'], now });
  client = await newClient();
  secret = await secretAnswering('good');
  integration_id = await createIntegration(client, { provider: 'telnyx', api_key: secret });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

const after = (milliseconds: number) => vi.setSystemTime((now += milliseconds));
const row = () => rowOf('integrations', integration_id);
/** How often the provider was asked since the creation. */
const checks = async () => (await callsWith(secret)).length - 1;
const verification = (status: string) => ({ verification_status: status });

describe('the second cron', () => {
  it('runs at the second expression of wrangler.toml, and the first does not check anything', async () => {
    expect(wrangler).toContain(`crons = ["* * * * *", "${RECHECK_CRON}"]`);
    after(2 * DAY);

    await worker.scheduled(createScheduledController({ cron: '* * * * *' }), env);
    expect(await checks()).toBe(0);
    await cron();
    expect(await checks()).toBe(1);
  });

  it('checks what was checked REVERIFY_HOURS ago, once', async () => {
    after(DAY - 2 * MINUTE);
    await cron();
    expect(await checks()).toBe(0);

    after(2 * MINUTE + 1_000);
    await cron();
    await cron();
    expect(await checks()).toBe(1);

    after(DAY);
    await cron();
    expect(await checks()).toBe(2);
  });

  it('counts the hours from a check on demand, and from new credentials', async () => {
    after(20 * HOUR);
    await call(client, 'POST', `/api/integrations/${integration_id}/verify`);
    after(10 * HOUR);
    await cron();
    expect(await checks()).toBe(1);
    await call(client, 'PUT', `/api/integrations/${integration_id}`, {
      body: { credentials: { provider: 'telnyx', api_key: secret } },
    });
    after(20 * HOUR);

    await cron();

    expect(await checks()).toBe(2);
  });

  it('checks what nobody was asked about, too', async () => {
    await env.DB.prepare(`UPDATE integrations SET verification_status = 'unverified', recheck_from = 0`).run();

    await cron();

    expect(await row()).toMatchObject(verification('verified'));
    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  });

  it('checks nothing where REVERIFY_HOURS is 0', async () => {
    after(30 * DAY);

    await cron({ ...env, REVERIFY_HOURS: '0' });

    expect(await checks()).toBe(0);
  });

  it.each(['', '-1', '24h', '1.5', '10000'])('fails where REVERIFY_HOURS is %j', async (REVERIFY_HOURS) => {
    vi.spyOn(console, 'error').mockImplementation(() => {});
    after(30 * DAY);

    await expect(cron({ ...env, REVERIFY_HOURS })).rejects.toThrow('REVERIFY_HOURS must be a whole number');
    expect(await checks()).toBe(0);
  });

  it('logs what it did', async () => {
    const logged = vi.spyOn(console, 'info').mockImplementation(() => {});
    after(DAY + 1_000);

    await cron();

    expect(logged.mock.calls.flat()).toEqual([
      JSON.stringify({ event: 'credentials_rechecked', checked: 1, refused: 0, failed: 0 }),
    ]);
  });
});

describe('a refusal', () => {
  it('that is a mistake changes nothing for good', async () => {
    const before = await row();
    await answerNow(secret, 'refused', 'good');
    after(DAY + 1_000);

    await cron();
    expect(await row()).toMatchObject({
      ...verification('verified'),
      verification_checked_at: before['verification_checked_at'],
    });
    after(9 * MINUTE);
    await cron();
    expect(await checks()).toBe(1);
    after(MINUTE + 1_000);
    await cron();

    expect(await checks()).toBe(2);
    expect(await row()).toMatchObject({ ...verification('verified'), last_verdict: 'accepted' });
    expect(await actionsOn(integration_id)).toEqual(['integration.created']);
  });

  it('is believed the second time, and recorded as an act of the system', async () => {
    await answerNow(secret, 'refused');
    after(DAY + 1_000);
    await cron();
    after(10 * MINUTE + 1_000);

    await cron();

    expect(await row()).toMatchObject({
      ...verification('refused'),
      verification_provider_status: 401,
      verification_provider_code: '10009',
    });
    const [, event] = await eventsOn(integration_id);
    expect(event).toMatchObject({
      action: 'integration.verification_failed',
      actor_type: 'system',
      actor_id: null,
      actor_key_id: null,
      state: verification('verified'),
    });
  });

  it('is believed the second time, though the provider did not answer in between', async () => {
    await answerNow(secret, 'refused', 'broken', 'refused');
    after(DAY + 1_000);
    await cron();
    after(10 * MINUTE + 1_000);
    await cron();
    expect(await row()).toMatchObject(verification('unreachable'));
    after(HOUR + 1_000);

    await cron();

    expect(await row()).toMatchObject(verification('refused'));
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.verification_failed']);
  });

  it('is believed at once of credentials that were never accepted', async () => {
    await answerNow(secret, 'refused');
    await env.DB.prepare(
      `UPDATE integrations SET verification_status = 'unverified', last_verdict = NULL, recheck_from = 0`,
    ).run();

    await cron();

    expect(await row()).toMatchObject(verification('refused'));
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.verification_failed']);
  });

  it('ends with an event when the provider accepts the credentials again', async () => {
    await answerNow(secret, 'refused', 'refused', 'refused', 'good', 'good');
    after(DAY + 1_000);
    await cron();
    after(10 * MINUTE + 1_000);
    await cron();

    for (let days = 0; days < 3; days += 1) {
      after(DAY + 1_000);
      await cron();
    }

    expect(await row()).toMatchObject(verification('verified'));
    expect(await actionsOn(integration_id)).toEqual([
      'integration.created',
      'integration.verification_failed',
      'integration.verification_recovered',
    ]);
  });

  it('does not keep the integration from being deleted', async () => {
    await answerNow(secret, 'refused');
    after(DAY + 1_000);
    await cron();
    after(10 * MINUTE + 1_000);
    await cron();

    expect((await call(client, 'DELETE', `/api/integrations/${integration_id}`)).status).toBe(200);
    after(DAY + 1_000);
    await cron();
    expect(await rows('integrations')).toEqual([]);
  });
});

describe('a provider that says nothing', () => {
  it.each(['rate-limited', 'broken', 'redirects', 'plain-text', 'another-shape', 'endless'] as const)(
    'is unreachable, and asked again in an hour: %s',
    async (answer) => {
      await answerNow(secret, answer, 'good');
      after(DAY + 1_000);
      await cron();
      expect(await row()).toMatchObject(verification('unreachable'));
      after(59 * MINUTE);
      await cron();
      expect(await checks()).toBe(1);
      after(2 * MINUTE);

      await cron();

      expect(await row()).toMatchObject(verification('verified'));
      expect(await actionsOn(integration_id)).toEqual(['integration.created']);
    },
  );
});

describe('what is not checked', () => {
  it('is what a suspended organization has, until it is resumed', async () => {
    await suspendOrganization(env.DB, client.organization_id);
    after(DAY + 1_000);
    await cron();
    expect(await checks()).toBe(0);
    await resumeOrganization(env.DB, client.organization_id);
    after(DAY + 1_000);

    await cron();

    expect(await checks()).toBe(1);
  });

  it('does not hold up the others', async () => {
    await fillIntegrations(client, 50);
    await suspendOrganization(env.DB, client.organization_id);
    const other = await newClient();
    const theirs = await secretAnswering('good');
    await createIntegration(other, { provider: 'telnyx', api_key: theirs });
    after(DAY + 1_000);

    for (let run = 0; run < 3; run += 1) await cron();

    expect(await callsWith(theirs)).toHaveLength(2);
  });

  it('is what a restore has lost', async () => {
    await env.DB.prepare(`UPDATE integrations SET status = 'credentials_missing'`).run();
    after(DAY + 1_000);

    await cron();

    expect(await checks()).toBe(0);
    expect(await row()).toMatchObject({ ...verification('verified'), checking_until: null });
  });

  it('is what cannot be read, which is logged and tried again in an hour', async () => {
    const logged = vi.spyOn(console, 'error').mockImplementation(() => {});
    vi.spyOn(console, 'info').mockImplementation(() => {});
    const before = await row();
    const unreadable = interceptedBindings(async (name, carryOut) => {
      if (name === 'CREDENTIALS.get') throw new Error('KV: 503');
      return carryOut();
    });
    after(DAY + 1_000);

    await cron(unreadable);

    expect(logged.mock.calls.flat().join()).toContain('"event":"credentials_unread"');
    expect(await row()).toEqual({ ...before, checking_until: null, recheck_from: expect.any(Number) });
    await cron();
    expect(await checks()).toBe(0);
    after(HOUR + 1_000);
    await cron();
    expect(await checks()).toBe(1);
  });

  it('is what is beyond the organization’s budget, for ten minutes', async () => {
    const exhausted = { ...env, ENTERPRISE_PROVIDER_LIMIT: { limit: async () => ({ success: false }) } };
    after(DAY + 1_000);
    await cron(exhausted);
    await cron();
    expect(await checks()).toBe(0);
    after(10 * MINUTE + 1_000);

    await cron();

    expect(await checks()).toBe(1);
  });

  it('is what an organization has whose checks were ended by 20 refusals', async () => {
    const refused = await secretAnswering('refused');
    for (let tries = 0; tries < 20; tries += 1) {
      const credentials = { provider: 'telnyx', api_key: refused };
      await call(client, 'POST', '/api/integrations', { body: { name: 'Guess', credentials } });
    }
    await env.DB.prepare('UPDATE integrations SET recheck_from = 0').run();

    await cron();
    expect(await checks()).toBe(0);
    after(DAY + 1_000);
    await cron();

    expect(await checks()).toBe(1);
  });

  it('counts towards those refusals if nobody was asked about it before', async () => {
    const refused = await secretAnswering('refused');
    for (let made = 0; made < 25; made += 1) {
      const credentials = { provider: 'telnyx', api_key: refused };
      await call(client, 'POST', '/api/integrations?verify=false', { body: { name: 'Guess', credentials } });
    }
    after(DAY + 1_000);

    for (let run = 0; run < 3; run += 1) await cron();

    expect((await callsWith(refused)).length).toBeLessThan(25);
    expect((await call(client, 'POST', `/api/integrations/${integration_id}/verify`)).body).toMatchObject({
      code: 'verification_limited',
    });
  });
});

describe('an outcome', () => {
  it('is not written to credentials that were replaced meanwhile', async () => {
    await answerNow(secret, 'refused', 'refused', 'good');
    after(DAY + 1_000);
    await cron();
    after(10 * MINUTE + 1_000);
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const running = cron(bindings);
    await stalls;
    const fresh = await secretAnswering('good');
    await call(client, 'PUT', `/api/integrations/${integration_id}`, {
      body: { credentials: { provider: 'telnyx', api_key: fresh } },
    });
    letGo();
    await running;

    expect(await row()).toMatchObject({ ...verification('verified'), checking_until: null });
    expect(await actionsOn(integration_id)).toEqual(['integration.created', 'integration.updated']);
  });

  it('brings nothing back of an integration that was deleted meanwhile', async () => {
    after(DAY + 1_000);
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const running = cron(bindings);
    await stalls;
    await call(client, 'DELETE', `/api/integrations/${integration_id}`);
    letGo();
    await running;

    expect(await rows('integrations')).toEqual([]);
  });

  it('says which account old credentials are of', async () => {
    const id = await createIntegration(client, { ...twilio, auth_token: await secretAnswering('good') });
    await importNumber(client, id, unusedNumber());
    await env.DB.prepare(
      'UPDATE integrations SET account_hint = NULL, account_fingerprint = NULL, recheck_from = 0',
    ).run();

    await cron();

    expect(await rowOf('integrations', id)).toMatchObject({ account_hint: 'AC…cdef' });
    const { body } = await call(client, 'PUT', `/api/integrations/${id}`, {
      body: { credentials: { ...twilio, account_sid: 'ACffffffffffffffffffffffffffffffff' } },
    });
    expect(body).toMatchObject({ code: 'provider_account_differs' });
  });
});

describe('a claim', () => {
  it('outlives a check on demand and new credentials, because the claimed check is still under way', async () => {
    after(DAY + 1_000);
    const { bindings, stalls, letGo } = stallingBindings('provider.fetch');
    const running = cron(bindings);
    await stalls;
    const { checking_until } = await row();

    await call(client, 'POST', `/api/integrations/${integration_id}/verify`);
    await call(client, 'PUT', `/api/integrations/${integration_id}`, {
      body: { credentials: { provider: 'telnyx', api_key: secret } },
    });

    expect(checking_until).not.toBeNull();
    expect(await row()).toMatchObject({ checking_until });
    letGo();
    await running;
    expect(await row()).toMatchObject({ checking_until: null });
  });
});

describe('many integrations that are due', () => {
  beforeEach(emptyStorage);

  it('are all checked, four at once, none twice, by runs within the limits of the platform', async () => {
    await fillIntegrations(await newClient(), 300);
    const seen = slowProviders();

    const runs = await runUntilIdle(seen);

    expect(seen.checks.size).toBe(300);
    expect(new Set(seen.checks.values())).toEqual(new Set([1]));
    expect(seen.twiceAtOnce).toEqual([]);
    expect(seen.mostAtOnce).toBe(4);
    expect(Math.max(...runs.map(({ invocation }) => invocation.mostOpen))).toBeLessThanOrEqual(6);
    expect(Math.max(...runs.map(({ statements }) => statements))).toBeLessThanOrEqual(1_000);
    expect(Math.max(...runs.map(({ seconds }) => seconds))).toBeLessThan(120);
  });

  it('are checked four at once even where two runs overlap, none twice', async () => {
    await fillIntegrations(await newClient(), 60);
    const seen = slowProviders();

    await Promise.all([cron(), cron(), cron()]);

    expect(seen.checks.size).toBe(20);
    expect(new Set(seen.checks.values())).toEqual(new Set([1]));
    expect(seen.mostAtOnce).toBe(4);
  });

  it('are checked by the next runs if one is killed, once its claims have ended', async () => {
    await fillIntegrations(await newClient(), 20);
    const seen = slowProviders();
    const { bindings, stalls } = stallingBindings('CREDENTIALS.get');
    void cron(bindings);
    await stalls;

    await cron();
    expect(seen.checks.size).toBe(0);
    vi.setSystemTime(Date.now() + 6 * MINUTE);
    await cron();

    expect(seen.checks.size).toBe(20);
  });
});
