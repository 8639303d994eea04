/** The simulated providers, over real HTTP: each answers as it is documented to. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startSimulation } from '../../src/dev/simulation.ts';

let simulation: Awaited<ReturnType<typeof startSimulation>>;

beforeAll(async () => {
  simulation = await startSimulation();
});

afterAll(() => simulation.close());

const basic = (secret: string) => `Basic ${btoa(`account:${secret}`)}`;
const bearer = (secret: string) => `Bearer ${secret}`;
const providers = [
  ['twilio', `/2010-04-01/Accounts/AC${'0'.repeat(32)}/IncomingPhoneNumbers.json?PageSize=1`, basic],
  ['telnyx', '/v2/balance', bearer],
  ['vonage', '/account/get-balance', basic],
  ['plivo', `/v1/Account/MA${'0'.repeat(18)}/`, basic],
] as const;

const ask = (path: string, Authorization: string, request: RequestInit = {}) =>
  fetch(`${simulation.origin}${path}`, { redirect: 'manual', headers: { Authorization }, ...request });

const callsWith = async (secret: string): Promise<unknown> =>
  (await fetch(`${simulation.origin}/simulation/calls?secret=${secret}`)).json();

describe.each(providers)('%s', (provider, path, authorization) => {
  it.each([
    ['good', 200],
    ['refused', 401],
    ['refused-in-plain-text', 401],
    ['restricted', 403],
    ['rate-limited', 429],
    ['broken', 500],
    ['redirects', 302],
    ['plain-text', 200],
    ['another-shape', 200],
    ['endless', 200],
  ])('answers a secret with %j in it with a %i', async (word, status) => {
    const response = await ask(path, authorization(`my-${word}-secret`));

    expect(response.status).toBe(status);
    const { length } = await response.text();
    expect(length > 10 * 1024 * 1024).toBe(word === 'endless');
  });

  it('accepts any other secret', async () => {
    expect((await ask(path, authorization('0123456789abcdef'))).status).toBe(200);
  });

  it('closes the connection for "disconnects"', async () => {
    await expect(ask(path, authorization('disconnects'))).rejects.toThrow('fetch failed');
  });

  it('never answers for "stalls", and notes the call', async () => {
    const gone = new AbortController();
    const stalled = ask(path, authorization(`${provider}-stalls`), { signal: gone.signal });
    await expect
      .poll(() => callsWith(`${provider}-stalls`), { timeout: 240_000 })
      .toMatchObject({ calls: [{ provider, path }] });
    gone.abort();

    await expect(stalled).rejects.toThrow('aborted');
  });

  it('refuses a call without credentials', async () => {
    expect((await ask(path, '')).status).toBe(401);
  });

  it('answers a secret as it was told, in order, the last answer for good', async () => {
    const secret = `${provider}-in-order`;
    const answers = ['refused', 'good'];
    await fetch(`${simulation.origin}/simulation/answers`, {
      method: 'PUT',
      body: JSON.stringify({ secret, answers }),
    });

    const statuses = [];
    for (let calls = 0; calls < 3; calls += 1) statuses.push((await ask(path, authorization(secret))).status);

    expect(statuses).toEqual([401, 200, 200]);
  });
});
