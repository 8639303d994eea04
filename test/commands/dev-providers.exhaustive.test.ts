/** Whom `npm run dev` asks about credentials, if it is told. */
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, expect, it } from 'vitest';
import * as z from 'zod';
import { startSimulation } from '../../src/dev/simulation.ts';
import { stateBehind } from '../conformance/server.ts';
import { freePort, removeDirectory, startDev, temporaryDirectory } from '../processes.ts';

let directory: string;
let simulation: Awaited<ReturnType<typeof startSimulation>>;

beforeEach(async () => {
  directory = await temporaryDirectory();
  simulation = await startSimulation();
});

afterEach(async () => {
  simulation.close();
  await removeDirectory(directory);
});

const noted = z.object({ calls: z.array(z.unknown()) });

async function callsWith(secret: string): Promise<number> {
  const response = await fetch(`${simulation.origin}/simulation/calls?secret=${secret}`);
  return noted.parse(await response.json()).calls.length;
}

it.each([
  ['beside its own options', ['--real-providers', '--var']],
  ['in one word', ['--var=']],
])('asks at the PROVIDER_ORIGINS that are given %s, and makes the demo without asking', async (_, options) => {
  const variable = `PROVIDER_ORIGINS:${simulation.origins}`;
  const last = options.at(-1) ?? '';
  const parameters = last.endsWith('=') ? [`${last}${variable}`] : [...options, variable];
  const dev = await startDev(directory, await freePort(), { parameters });
  try {
    const secret = randomBytes(16).toString('hex');
    const response = await fetch(`${dev.banner.url}/api/integrations`, {
      method: 'POST',
      headers: {
        'X-API-Key': dev.banner.raw_key,
        'X-Organization-Id': 'org_demo',
        'Content-Type': 'application/json',
      },
      body: JSON.stringify({ name: 'Given', credentials: { provider: 'telnyx', api_key: secret } }),
    });

    expect(dev.banner.providers).toBe('at the PROVIDER_ORIGINS that were given');
    expect(await response.json()).toMatchObject({ data: { verification: { status: 'verified' } } });
    expect(await callsWith(secret)).toBe(1);
    const made = await stateBehind(dev.banner.url, ['org_demo']).rows('integrations');
    expect(Object.fromEntries(made.map((row) => [row['name'], row['verification_status']]))).toEqual({
      Given: 'verified',
      'Telnyx Spare': 'unverified',
      'Twilio Production': 'unverified',
    });
  } finally {
    await dev.stop();
  }
});

it('asks the real providers with --real-providers, and makes the demo without asking', async () => {
  const dev = await startDev(directory, await freePort(), { parameters: ['--real-providers'] });
  try {
    expect(dev.banner.providers).toBe('real: credentials are sent to their provider to be checked');
    const made = await stateBehind(dev.banner.url, ['org_demo']).rows('integrations');
    expect(made.map(({ verification_status }) => verification_status)).toEqual(['unverified', 'unverified']);
  } finally {
    await dev.stop();
  }
});
