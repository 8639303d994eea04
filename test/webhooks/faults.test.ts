import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { sweepWebhooks } from '../../src/worker/webhooks/sweep.ts';
import { withoutBackOff } from '../faults/every-call.ts';
import { call, newClient } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { differences, settleDown, withFault } from './faults.ts';
import type { Fault } from './faults.ts';
import { behave, createEndpoint, rename, verifiedEndpoint, wake } from './receivers.ts';

beforeEach(withoutBackOff);
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const hows = ['before', 'after', 'killed'] as const;

const scenarios = {
  'a turn in which one event fails': async (fault?: Fault) => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    for (const name of ['First', 'Second', 'Third']) await rename(client, name);
    await behave(endpoint.url, 200, 500, 200);
    const calls = await withFault(fault, (bindings) => wake([client.organization_id], bindings));
    return { client, endpoint, calls, owed: 3 };
  },
  'the test of a new endpoint': async (fault?: Fault) => {
    const client = await newClient();
    const endpoint = await createEndpoint(client);
    await rename(client, 'First');
    const calls = await withFault(fault, (bindings) => wake([client.organization_id], bindings));
    return { client, endpoint, calls, owed: 1 };
  },
  'the call that makes an event, and its wake-up': async (fault?: Fault) => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    const renaming = { body: { name: 'First' } };
    const calls = await withFault(fault, (bindings) =>
      call(client, 'PUT', `/api/api-keys/${client.key_id}`, { ...renaming, bindings }),
    );
    return { client, endpoint, calls, owed: undefined };
  },
  'the cron, which wakes what is due': async (fault?: Fault) => {
    const client = await newClient();
    const endpoint = await verifiedEndpoint(client);
    await rename(client, 'First');
    const calls = await withFault(fault, sweepWebhooks);
    return { client, endpoint, calls, owed: 1 };
  },
};

const settled = { lost: [], invented: [], claims: [{ claim: null }] };

async function outcomeOf(
  run: Promise<{ client: Client; endpoint: Parameters<typeof differences>[1]; owed?: number | undefined }>,
) {
  const { client, endpoint, owed: expected } = await run;
  await settleDown(endpoint);
  const { owed, ...outcome } = await differences(client, endpoint);
  if (expected !== undefined && owed !== expected) throw new Error(`The trail has ${owed} events, and not ${expected}`);
  return outcome;
}

describe.each(Object.entries(scenarios))('%s', (_, scenario) => {
  it('delivers each event that happened, and no other, if nothing fails', async () => {
    expect(await outcomeOf(scenario())).toEqual(settled);
  });

  it('does so whichever of its calls fails, or is the last', { timeout: 600_000 }, async () => {
    const { calls } = await scenario();
    expect(calls).toBeGreaterThan(1);
    for (let at = 0; at < calls; at += 1) {
      for (const how of hows) {
        vi.useRealTimers();
        expect({ at, how, ...(await outcomeOf(scenario({ at, how }))) }).toEqual({ at, how, ...settled });
      }
    }
  });
});
