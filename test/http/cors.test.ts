import { createExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it } from 'vitest';
import worker from '../../src/worker/index.ts';
import { call, newClient } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const CONSOLE = 'https://console.example';
const OTHER = 'https://other.example';

let client: Client;

beforeEach(async () => {
  client = await newClient();
});

const from = (origin: string, CORS_ORIGINS: string, path = '/api/integrations') =>
  call(client, 'GET', path, { headers: { Origin: origin }, bindings: { ...env, CORS_ORIGINS } });

const preflight = (origin: string, CORS_ORIGINS: string) =>
  worker.fetch(
    new Request<unknown, IncomingRequestCfProperties>('https://patchbay.test/api/integrations', {
      method: 'OPTIONS',
      headers: { Origin: origin, 'Access-Control-Request-Method': 'DELETE' },
    }),
    { ...env, CORS_ORIGINS },
    createExecutionContext(),
  );

const corsHeaders = (headers: Headers) => [...headers.keys()].filter((name) => name.startsWith('access-control-'));

describe('a call from a page of another origin', () => {
  it('is let in by nothing where no origins are set at all', async () => {
    const bindings: typeof env = new Proxy(env, {
      get: (set, name) => (name === 'CORS_ORIGINS' ? undefined : Reflect.get(set, name)),
    });

    const { status, headers } = await call(client, 'GET', '/api/integrations', {
      headers: { Origin: CONSOLE },
      bindings,
    });

    expect(status).toBe(200);
    expect(corsHeaders(headers)).toEqual([]);
  });

  it('is let in by nothing as deployed', async () => {
    expect(env.CORS_ORIGINS).toBe('');

    expect(corsHeaders((await from(CONSOLE, '')).headers)).toEqual([]);
    const refused = await preflight(CONSOLE, '');
    expect(refused.status).toBe(401);
    expect(corsHeaders(refused.headers)).toEqual([]);
  });

  it('is let in from the origins that are named, successes and problems alike', async () => {
    const origins = `${CONSOLE}, https://second.example`;

    for (const path of ['/api/integrations', '/api/integrations/intg_000000000000', '/api/nothing']) {
      const { headers } = await from(CONSOLE, origins, path);
      expect(headers.get('Access-Control-Allow-Origin')).toBe(CONSOLE);
      expect(headers.get('Access-Control-Expose-Headers')).toContain('X-Request-Id');
      expect(headers.get('Vary')).toContain('Origin');
    }
    expect((await from(OTHER, origins)).headers.get('Access-Control-Allow-Origin')).toBeNull();
  });

  it('is let in from anywhere by *', async () => {
    expect((await from(OTHER, '*')).headers.get('Access-Control-Allow-Origin')).toBe('*');
  });

  it('asks first without a key, and hears which headers and methods it may use', async () => {
    const { status, headers } = await preflight(CONSOLE, CONSOLE);

    expect(status).toBe(204);
    expect(headers.get('Access-Control-Allow-Origin')).toBe(CONSOLE);
    expect(headers.get('Access-Control-Allow-Methods')).toBe('GET,POST,PUT,DELETE');
    expect(headers.get('Access-Control-Allow-Headers')).toBe(
      'Content-Type,Idempotency-Key,If-Match,If-None-Match,X-API-Key,X-D1-Bookmark,X-Organization-Id',
    );
    expect((await preflight(OTHER, CONSOLE)).headers.get('Access-Control-Allow-Origin')).toBeNull();
  });
});

describe('a preflight', () => {
  it('has the headers that every answer has', async () => {
    const { headers } = await preflight('https://app.example', 'https://app.example');

    expect(headers.get('X-Request-Id')).toMatch(/^[0-9a-f-]{36}$/);
    expect(headers.get('Cache-Control')).toBe('no-store, no-transform');
    expect(headers.get('X-Content-Type-Options')).toBe('nosniff');
  });
});

describe('every answer', () => {
  it.each(['/api/integrations', '/api/nothing', '/health', '/nothing'])(
    'of %s has its security headers',
    async (path) => {
      const { headers } = await call(client, 'GET', path);

      expect(headers.get('Content-Security-Policy')).toBe("default-src 'none'; frame-ancestors 'none'");
      expect(headers.get('X-Content-Type-Options')).toBe('nosniff');
      expect(headers.get('X-Frame-Options')).toBe('DENY');
      expect(headers.get('Referrer-Policy')).toBe('no-referrer');
      expect(headers.get('Strict-Transport-Security')).toMatch(/^max-age=\d{8};/);
    },
  );
});
