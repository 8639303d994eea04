import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { newRawKey } from '../../src/worker/callers/raw-key.ts';
import { call, newClient } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

let client: Client;
let lines: unknown[];
let networks = 0;
let ip: string;

beforeEach(async () => {
  client = await newClient();
  ip = `2001:db8:fa:${(networks += 1).toString(16)}::1`;
  lines = [];
  vi.spyOn(console, 'info').mockImplementation(() => {});
  vi.spyOn(console, 'warn').mockImplementation((line) => void lines.push(JSON.parse(String(line))));
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + networks * 60_000 });
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const fail = (headers: Record<string, string | null>) =>
  call(client, 'GET', '/api/nothing', { headers: { 'CF-Connecting-IP': ip, ...headers } });

describe('an authentication that fails', () => {
  it.each<[string, string, Record<string, string | null>]>([
    ['without a key', 'missing_api_key', { 'X-API-Key': null }],
    ['with a malformed key', 'invalid_api_key', { 'X-API-Key': 'bk_live_short' }],
    ['with an unknown key', 'invalid_api_key', { 'X-API-Key': newRawKey() }],
    ['without an organization', 'missing_organization_id', { 'X-Organization-Id': null }],
    ['with another organization', 'organization_mismatch', { 'X-Organization-Id': 'org_another' }],
  ])('%s is in the log by its reason and its network', async (_, reason, headers) => {
    await fail(headers);

    expect(lines).toEqual([{ event: 'authentication_failed', reason, network: '2001:db8:fa::/48', count: 1 }]);
  });

  it('is counted, and told at most once a second for each reason and network', async () => {
    const unknown = () => fail({ 'X-API-Key': newRawKey() });
    for (let count = 0; count < 4; count += 1) await unknown();
    await fail({ 'X-API-Key': null });
    await fail({ 'X-API-Key': newRawKey(), 'CF-Connecting-IP': '203.0.113.77' });
    vi.setSystemTime(Date.now() + 1000);
    await unknown();

    expect(lines).toMatchObject([
      { reason: 'invalid_api_key', network: '2001:db8:fa::/48', count: 1 },
      { reason: 'missing_api_key', network: '2001:db8:fa::/48', count: 1 },
      { reason: 'invalid_api_key', network: '203.0.113.77', count: 1 },
      { reason: 'invalid_api_key', network: '2001:db8:fa::/48', count: 4 },
    ]);
  });

  it('leaves no key in the log', async () => {
    const raw_key = newRawKey();
    await fail({ 'X-API-Key': raw_key, 'X-Organization-Id': 'org_secretive' });

    expect(JSON.stringify(lines)).not.toContain(raw_key);
    expect(JSON.stringify(lines)).not.toContain('org_secretive');
  });

  it('is none where a key is good', async () => {
    await fail({});

    expect(lines).toEqual([]);
  });
});
