/** 10,000 integrations are due at once, of a provider that takes two seconds for each answer, on a simulated clock. */
import { afterEach, expect, it, vi } from 'vitest';
import { emptyStorage, newClient } from '../fixtures.ts';
import { fillIntegrations, runUntilIdle, slowProviders } from './rechecks.ts';

const COUNT = 10_000;
const TEST_MILLISECONDS = 3_600_000;
const HOUR = 3_600_000;

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

it(
  `${COUNT} integrations are all checked within a day, none twice, by runs within the limits of the platform`,
  async () => {
    vi.spyOn(console, 'info').mockImplementation(() => {});
    await emptyStorage();
    vi.useFakeTimers({ toFake: ['Date'] });
    const client = await newClient();
    await fillIntegrations(client, COUNT);
    const seen = slowProviders();
    const began = Date.now();
    const unlimited = { limit: async () => ({ success: true }) };

    const runs = await runUntilIdle(seen, { ENTERPRISE_PROVIDER_LIMIT: unlimited });

    expect(seen.checks.size).toBe(COUNT);
    expect(new Set(seen.checks.values())).toEqual(new Set([1]));
    expect(seen.twiceAtOnce).toEqual([]);
    expect(seen.mostAtOnce).toBe(4);
    expect(Date.now() - began).toBeLessThan(24 * HOUR);
    expect(Date.now() - began).toBeGreaterThan(8 * HOUR);
    expect(Math.max(...runs.map(({ invocation }) => invocation.mostOpen))).toBeLessThanOrEqual(6);
    expect(Math.max(...runs.map(({ statements }) => statements))).toBeLessThanOrEqual(1_000);
    expect(Math.max(...runs.map(({ calls }) => calls))).toBeLessThanOrEqual(10_000);
    expect(Math.max(...runs.map(({ seconds }) => seconds))).toBeLessThan(120);
  },
  TEST_MILLISECONDS,
);
