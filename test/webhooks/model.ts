/** Random calls, receivers, faults and times. In the end every event was delivered, or is dead, and nothing else was. */
import { env } from 'cloudflare:workers';
import * as fc from 'fast-check';
import { vi } from 'vitest';
import { call, newClient } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';
import { differences, settleDown, withFault } from './faults.ts';
import type { Fault } from './faults.ts';
import type { Behaviour } from './receiver-server.ts';
import { behave, createEndpoint, later, rename, wake } from './receivers.ts';
import type { Endpoint } from './receivers.ts';

const fault: fc.Arbitrary<Fault> = fc.record({
  at: fc.nat({ max: 30 }),
  how: fc.constantFrom<Fault['how'][]>('before', 'after', 'killed'),
});

const behaviour = fc.constantFrom<Behaviour[]>(200, 200, 204, 410, 500, 'cut', 'redirect', 'cut-body', 'endless');

type Step =
  | { do: 'rename' | 'rename_with_fault' | 'wake_with_fault'; fault: Fault }
  | { do: 'behave'; behaviours: Behaviour[] }
  | { do: 'later'; seconds: number }
  | { do: 'wake' | 'two_wakes' | 'suspend' | 'resume' | 'rotate' | 'replay' | 'test' | 'disable' | 'enable' };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('rename' as const), fault }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('rename_with_fault' as const), fault }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('wake_with_fault' as const), fault }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('behave' as const),
      behaviours: fc.array(behaviour, { minLength: 1, maxLength: 6 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('later' as const), seconds: fc.constantFrom(1, 10, 61, 600, 7200, 90_000) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constantFrom('wake', 'two_wakes', 'suspend', 'resume', 'rotate', 'replay', 'test', 'disable', 'enable'),
    }),
  },
);

const setStatus = ({ organization_id }: Client, status: 'active' | 'suspended') =>
  env.DB.prepare('UPDATE organizations SET status = ? WHERE organization_id = ?').bind(status, organization_id).run();

async function take(client: Client, endpoint: Endpoint, one: Step, name: string): Promise<void> {
  const { organization_id } = client;
  const enabling = (enabled: boolean) => call(client, 'PUT', endpoint.path, { body: { enabled } });
  switch (one.do) {
    case 'rename':
      return rename(client, name).catch(() => {});
    case 'rename_with_fault':
      await withFault(one.fault, (bindings) =>
        call(client, 'PUT', `/api/api-keys/${client.key_id}`, { body: { name }, bindings }),
      );
      return;
    case 'wake_with_fault':
      await withFault(one.fault, (bindings) => wake([organization_id], bindings));
      return;
    case 'behave':
      return behave(endpoint.url, ...one.behaviours);
    case 'later':
      later(one.seconds);
      return;
    case 'wake':
      return wake([organization_id]);
    case 'two_wakes':
      await Promise.all([wake([organization_id]), wake([organization_id])]);
      return;
    case 'suspend':
      await setStatus(client, 'suspended');
      return;
    case 'resume':
      await setStatus(client, 'active');
      return;
    case 'rotate':
      // The secret of before signs too, as long as the model runs.
      await call(client, 'POST', `${endpoint.path}/rotate-secret`, { body: { overlap_seconds: 604_800 } });
      return;
    case 'replay':
      await call(client, 'POST', `${endpoint.path}/replay?since=2020-01-01T00:00:00Z`);
      return;
    case 'test':
      await call(client, 'POST', `${endpoint.path}/test`);
      return;
    case 'disable':
      await enabling(false);
      return;
    case 'enable':
      await enabling(true);
  }
}

const idsOfDead = async ({ endpoint_id }: Endpoint): Promise<string[]> => {
  const { results } = await env.DB.prepare(
    `SELECT event_id FROM webhook_deliveries WHERE endpoint_id = ? AND status = 'dead'`,
  )
    .bind(endpoint_id)
    .all<{ event_id: string }>();
  return results.map(({ event_id }) => event_id);
};

/** @returns a description of the first sequence that breaks the promise; undefined if none does */
export async function failureOf(parameters: fc.Parameters<[Step[]]>): Promise<string | undefined> {
  const details = await fc.check(
    fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 24 }), async (steps) => {
      vi.useRealTimers();
      const client = await newClient();
      const endpoint = await createEndpoint(client);
      let rotations = 0;
      for (const [index, one] of steps.entries()) {
        // Two older secrets sign at most, and the messages are verified with the first.
        if (one.do === 'rotate' && rotations === 2) continue;
        if (one.do === 'rotate') rotations += 1;
        await take(client, endpoint, one, `Name ${index}`);
      }
      await setStatus(client, 'active');
      await call(client, 'PUT', endpoint.path, { body: { enabled: true } });
      await settleDown(endpoint);
      const { lost, invented, claims } = await differences(client, endpoint);
      const dead = await idsOfDead(endpoint);
      const missing = lost.filter((id) => !dead.includes(id));
      const isSettled = missing.length === 0 && invented.length === 0 && claims[0]?.['claim'] === null;
      if (!isSettled) throw new Error(JSON.stringify({ missing, invented, claims }));
    }),
    parameters,
  );
  return details.failed ? fc.defaultReportMessage(details) : undefined;
}
