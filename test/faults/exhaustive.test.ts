/**
 * Every mutation, with every kind of fault at every call that it makes on a binding: what the client hears is true, the
 * invariants hold, and the client's repeat under the same Idempotency-Key finishes what was begun, once.
 */
import { createScheduledController } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { forgetKey } from '../../src/worker/callers/key-cache.ts';
import worker from '../../src/worker/index.ts';
import { interceptedBindings } from '../bindings.ts';
import type { Interceptor } from '../bindings.ts';
import { newClient, start } from '../fixtures.ts';
import type { Answer, Client } from '../fixtures.ts';
import { mutations } from '../mutations.ts';
import type { Mutation } from '../mutations.ts';
import { assertInvariants, ciphertextsOf, dataOf } from './invariants.ts';
import type { Data } from './invariants.ts';

const LOST = 'D1_ERROR: Network connection lost.';
const OVERLOADED = 'D1_ERROR: D1 DB is overloaded. Too many requests queued.';

const lose = (): never => {
  throw new Error(LOST);
};

/** What a fault has to do with: the request that it meets, and what comes later. */
interface Scene {
  /** Carried out once the answer is there. */
  afterAnswer: (() => Promise<unknown>)[];
  /** Carried out once the client has repeated its request. */
  afterRepeat: (() => Promise<unknown>)[];
  /** The isolate ends: nothing of the request goes on. */
  kill: () => Promise<never>;
  /** The client repeats its request, which it has heard nothing of. */
  repeat: () => Promise<Answer>;
}

type Fault = (carryOut: () => Promise<unknown>, scene: Scene) => Promise<unknown>;

/** Faults of one call. */
const faultsOfOne: Record<string, Fault> = {
  'fails before it is carried out': async () => lose(),
  'fails after it was carried out': async (carryOut) => {
    await carryOut();
    lose();
  },
  'fails, and is carried out once the answer is there': async (carryOut, { afterAnswer }) => {
    afterAnswer.push(carryOut);
    lose();
  },
  'fails, and is carried out once the request was repeated': async (carryOut, { afterRepeat }) => {
    afterRepeat.push(carryOut);
    lose();
  },
  'is the last thing the isolate asks for': (_, { kill }) => kill(),
  'is the last thing the isolate gets done': async (carryOut, { kill }) => {
    await carryOut();
    return kill();
  },
  'is held while the client repeats its request': async (carryOut, { repeat }) => {
    await repeat();
    return carryOut();
  },
  'is answered only once the client has repeated its request': async (carryOut, { repeat }) => {
    const result = await carryOut();
    await repeat();
    return result;
  },
  'is held while the cron drains': async (carryOut) => {
    await worker.scheduled(createScheduledController(), env);
    return carryOut();
  },
  'is held until an hour has passed and the cron has drained': async (carryOut) => {
    await drainEverything();
    return carryOut();
  },
  'is held until an hour has passed and the cron has drained, and fails after it was carried out': async (carryOut) => {
    await drainEverything();
    await carryOut();
    lose();
  },
};

/** Faults of every call from one on. */
const faultsFromOneOn: Record<string, Fault> = {
  'fails, as everything does from then on': async () => lose(),
  'fails after it was carried out, as everything does from then on': async (carryOut) => {
    await carryOut();
    lose();
  },
  'is too much, as everything is from then on': async () => {
    throw new Error(OVERLOADED);
  },
};

const faults = [
  ...Object.entries(faultsOfOne).map(([fault, carryOut]) => ({ fault, carryOut, lasts: false })),
  ...Object.entries(faultsFromOneOn).map(([fault, carryOut]) => ({ fault, carryOut, lasts: true })),
];

/** Lets the outbox be due, and the cron drain it. */
async function drainEverything(): Promise<void> {
  await env.DB.prepare('UPDATE credential_purges SET due_at = 0').run();
  await worker.scheduled(createScheduledController(), env);
}

let cases = 0;

beforeEach(() => {
  // Back-off without waiting.
  vi.spyOn(Math, 'random').mockReturnValue(0);
  vi.spyOn(console, 'info').mockImplementation(() => {});
  vi.spyOn(console, 'error').mockImplementation(() => {});
  return () => vi.restoreAllMocks();
});

/** How much came of a mutation: new events, and whether any resource is another. */
interface Effect {
  events: number;
  changed: boolean;
}

function effectOf(before: Data, after: Data): Effect {
  const resources = ({ integrations, phone_numbers, api_keys }: Data) =>
    JSON.stringify([integrations, phone_numbers, api_keys]);
  return {
    events: after.audit_events.length - before.audit_events.length,
    changed: resources(before) !== resources(after),
  };
}

const nothing: Effect = { events: 0, changed: false };

/** What an answer, or none, may mean, if it is true. */
function told(answer: Answer | undefined, status: number, effect: Effect) {
  if (answer && answer.status !== 503) return { statuses: [status], effects: [effect] };
  const isNothing = answer?.text.includes('"outcome":"not_done"');
  return { statuses: [503, undefined], effects: isNothing ? [nothing] : [nothing, effect] };
}

/** A caller that no cache knows, so that a mutation makes every call it ever makes. */
async function prepared(prepare: (client: Client) => Promise<Mutation>) {
  const client = await newClient();
  const mutation = await prepare(client);
  const hash = hashKey(client.raw_key);
  forgetKey(hash);
  await env.KEY_CACHE.delete(hash);
  const before = await dataOf(client.organization_id);
  const send = (bindings = env) =>
    start(client, mutation.method, mutation.path, {
      body: mutation.body,
      headers: { 'Idempotency-Key': 'once' },
      bindings,
    });
  return { ...client, send, before };
}

/** Sends the mutation through the interceptor, and waits until it has ended or its isolate has. */
async function sendThrough(
  { send }: Awaited<ReturnType<typeof prepared>>,
  intercept: Interceptor,
  killed: Promise<never>,
): Promise<Answer | undefined> {
  const isolateEnds = killed.catch(() => undefined);
  const answer = await Promise.race([send(interceptedBindings(intercept)), isolateEnds]);
  await Promise.race([answer?.settle(), isolateEnds]);
  return answer;
}

async function referenceOf(prepare: (client: Client) => Promise<Mutation>) {
  const scene = await prepared(prepare);
  let calls = 0;
  const answer = await sendThrough(
    scene,
    (_, carryOut) => {
      calls += 1;
      return carryOut();
    },
    new Promise<never>(() => {}),
  );
  return { calls, status: answer?.status, effect: effectOf(scene.before, await dataOf(scene.organization_id)) };
}

describe.each(mutations)('$name', ({ status, prepare }) => {
  it.each(faults)(
    'is true and leaves nothing over where any one of its calls $fault',
    async ({ carryOut: fail, lasts }) => {
      const reference = await referenceOf(prepare);
      expect(reference.status).toBe(status);

      for (let failing = 0; failing < reference.calls; failing += 1) {
        cases += 1;
        const request = await prepared(prepare);
        const { organization_id, before } = request;
        const { promise: killed, reject } = Promise.withResolvers<never>();
        let isKilled = false;
        const scene: Scene = {
          afterAnswer: [],
          afterRepeat: [],
          kill() {
            isKilled = true;
            reject(new Error('killed'));
            return new Promise<never>(() => {});
          },
          async repeat() {
            const answer = await request.send();
            await answer.settle();
            return answer;
          },
        };
        let calls = 0;
        const answer = await sendThrough(
          request,
          (_, carryOut) => {
            if (isKilled) return new Promise(() => {});
            const index = calls;
            calls += 1;
            return (lasts ? index >= failing : index === failing) ? fail(carryOut, scene) : carryOut();
          },
          killed,
        );

        /** A refusal is judged anew by each request, and is on record for each. */
        const once = (effect: Effect) =>
          status < 400 ? effect : { ...effect, events: Math.min(effect.events, reference.effect.events) };
        const context = `call ${failing} of ${reference.calls}, answered ${answer?.text}`;
        const { statuses, effects } = told(answer, status, reference.effect);
        expect(statuses, context).toContain(answer?.status);
        expect(effects, context).toContainEqual(once(effectOf(before, await dataOf(organization_id))));
        await assertInvariants(organization_id);

        for (const late of scene.afterAnswer) await late().catch(() => {});
        if (scene.afterAnswer.length > 0) await assertInvariants(organization_id);

        const repeated = await scene.repeat();
        expect(repeated.status, `${context}, then repeated: ${repeated.text}`).toBe(status);
        for (const late of scene.afterRepeat) await late().catch(() => {});
        const after = once(effectOf(before, await dataOf(organization_id)));
        expect(after, `${context}, repeated`).toEqual(reference.effect);
        await assertInvariants(organization_id);

        await drainEverything();
        await assertInvariants(organization_id);
        const { credential_purges, integrations, phone_numbers } = await dataOf(organization_id);
        expect(credential_purges, `${context}: the outbox, once everything is due`).toEqual([]);
        const live = integrations.length + phone_numbers.filter((row) => row['credentials_version'] !== null).length;
        expect(await ciphertextsOf(organization_id), context).toHaveLength(live);
      }
    },
  );
});

it('goes through every call of every mutation with every fault: 2,000 cases and more', async ({ annotate }) => {
  await annotate(`${cases} cases`);

  expect(cases).toBeGreaterThan(2000);
});
