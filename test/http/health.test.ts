import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import packageJson from '../../package.json';
import { countedBindings, failingBindings } from '../bindings.ts';
import { call, newClient } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const FIVE_SECONDS_MILLISECONDS = 5000;

let anybody: Client;

beforeEach(async () => {
  anybody = await newClient();
  // What the tests before have left in the isolate's memory is past.
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + FIVE_SECONDS_MILLISECONDS * (tests += 2) });
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

let tests = 0;

const health = (bindings = env, headers: Record<string, string | null> = {}) =>
  call(anybody, 'GET', '/health', {
    bindings,
    headers: { 'X-API-Key': null, 'X-Organization-Id': null, ...headers },
  });

describe('the health of the service', () => {
  it('is told to anybody: the version, whether D1 answers, and nothing else', async () => {
    const { status, body, headers } = await health();

    expect(status).toBe(200);
    expect(body).toEqual({ status: 'ok', version: packageJson.version, database: 'ok', credentials: 'ok' });
    expect(headers.get('Cache-Control')).toBe('no-store');
  });

  it('is a 503 that says no more while D1 does not answer', async () => {
    vi.spyOn(console, 'error').mockImplementation(() => {});
    const { bindings } = failingBindings('DB.batch', { when: 'before', message: 'D1 DB is overloaded' });

    expect(await health(bindings)).toMatchObject({
      status: 503,
      body: { status: 'unavailable', version: packageJson.version, database: 'unavailable', credentials: 'ok' },
    });
  });

  it.each(['not-a-ring', JSON.stringify({ current: 'k1', keys: { k1: btoa('\0'.repeat(32)) } })])(
    'is a 503 where the ring of key-encryption keys is not usable',
    async (CREDENTIALS_KEKS) => {
      vi.spyOn(console, 'error').mockImplementation(() => {});

      expect(await health({ ...env, CREDENTIALS_KEKS })).toMatchObject({
        status: 503,
        body: { status: 'unavailable', database: 'ok', credentials: 'unavailable' },
      });
    },
  );

  it('costs D1 one call in 5 s, however often it is asked, and nothing else', async () => {
    const { bindings, calls } = countedBindings();

    for (let asked = 0; asked < 10; asked += 1) await health(bindings);
    expect(calls).toEqual(['DB.batch']);

    vi.setSystemTime(Date.now() + FIVE_SECONDS_MILLISECONDS);
    await health(bindings);
    expect(calls).toEqual(['DB.batch', 'DB.batch']);
  });

  it('is limited by IP, apart from the limit on unknown keys', async () => {
    const flooder = { 'CF-Connecting-IP': '203.0.113.66' };

    // The limiter's windows are not ours: a flood may begin at the end of one.
    let last = await health(env, flooder);
    for (let asked = 1; asked < 1000 && last.status === 200; asked += 1) last = await health(env, flooder);

    expect(last).toMatchObject({ status: 429, body: { code: 'rate_limited' } });
    expect(last.headers.get('Retry-After')).toMatch(/^1[0-5]$/);
    expect((await health(env, { 'CF-Connecting-IP': '203.0.113.67' })).status).toBe(200);
    expect(await call(anybody, 'GET', '/api/integrations', { headers: flooder })).toMatchObject({ status: 200 });
  });

  it('answers other methods with 405', async () => {
    const { status, headers } = await call(anybody, 'POST', '/health');

    expect(status).toBe(405);
    expect(headers.get('Allow')).toBe('GET, HEAD');
  });
});
