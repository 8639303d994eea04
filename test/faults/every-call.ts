/**
 * A mutation that meets a fault at one of the calls that it makes on a binding: what the client hears is true, the
 * invariants hold, and the client's repeat under the same Idempotency-Key finishes what was begun, once.
 */
import { env } from 'cloudflare:workers';
import { expect, vi } from 'vitest';
import { forgetKey } from '../../src/worker/callers/caller.ts';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { drainPurges } from '../../src/worker/credentials/drain.ts';
import { interceptedBindings } from '../bindings.ts';
import type { BindingCall, Interceptor } from '../bindings.ts';
import { newClient, start } from '../fixtures.ts';
import type { Answer } from '../fixtures.ts';
import type { Case } from '../mutations.ts';
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

type Meets = (carryOut: () => Promise<unknown>, scene: Scene) => Promise<unknown>;

/** Faults of one call. */
const faultsOfOne: Record<string, Meets> = {
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
    await drainPurges(env);
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
const faultsFromOneOn: Record<string, Meets> = {
  'fails, as everything does from then on': async () => lose(),
  'fails after it was carried out, as everything does from then on': async (carryOut) => {
    await carryOut();
    lose();
  },
  'is too much, as everything is from then on': async () => {
    throw new Error(OVERLOADED);
  },
};

interface Fault {
  name: string;
  meets: Meets;
  /** Every call from the first that it meets. */
  lasts: boolean;
}

export const faults: Fault[] = [
  ...Object.entries(faultsOfOne).map(([name, meets]) => ({ name, meets, lasts: false })),
  ...Object.entries(faultsFromOneOn).map(([name, meets]) => ({ name, meets, lasts: true })),
];

/** Lets the outbox be due, and the cron drain it. */
async function drainEverything(): Promise<void> {
  await env.DB.prepare('UPDATE credential_purges SET due_at = 0').run();
  await drainPurges(env);
}

/** For each test: back-off without waiting. */
export function withoutBackOff(): () => void {
  vi.spyOn(Math, 'random').mockReturnValue(0);
  return () => vi.restoreAllMocks();
}

/** For each test: nobody waits for a look-up of a key that a killed isolate has begun. */
export function withoutWaiting(): () => void {
  const waitAgain = withoutBackOff();
  const { setTimeout: wait } = globalThis;
  vi.stubGlobal('setTimeout', (resume: () => void, milliseconds = 0) =>
    wait(resume, milliseconds < 5_000 ? 0 : milliseconds),
  );
  return () => {
    waitAgain();
    vi.unstubAllGlobals();
  };
}

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
async function prepared(prepare: Case['prepare']) {
  const client = await newClient();
  const mutation = await prepare(client);
  const hash = await hashKey(client.raw_key);
  forgetKey(hash);
  await env.KEY_CACHE.delete(hash);
  const before = await dataOf(client.organization_id);
  const send = (bindings = env) =>
    start(client, mutation.method, mutation.path, {
      body: mutation.body,
      headers: { ...mutation.headers, 'Idempotency-Key': 'once' },
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

/** Whether a call may meet a fault: one to a provider may not where the answer depends on it. */
const mayMeet = ({ dependsOnProvider }: Case, call: BindingCall) => !(dependsOnProvider && call === 'provider.fetch');

/** What comes of the mutation where nothing fails. */
export async function referenceOf(mutation: Case) {
  const scene = await prepared(mutation.prepare);
  let calls = 0;
  const answer = await sendThrough(
    scene,
    (call, carryOut) => {
      if (mayMeet(mutation, call)) calls += 1;
      return carryOut();
    },
    new Promise<never>(() => {}),
  );
  return { calls, status: answer?.status, effect: effectOf(scene.before, await dataOf(scene.organization_id)) };
}

type Reference = Awaited<ReturnType<typeof referenceOf>>;

/** Asserts that all is well where the fault meets this call of the mutation, its first being 0. */
export async function assertWithstands(
  mutation: Case,
  { meets, lasts }: Fault,
  failing: number,
  reference: Reference,
): Promise<void> {
  const { status } = mutation;
  const request = await prepared(mutation.prepare);
  const { organization_id, before } = request;
  const { promise: killed, reject: endWait } = Promise.withResolvers<never>();
  // What a killed isolate waits for: nothing answers it before the case is over, and then its contexts settle.
  const { promise: never, reject: letGo } = Promise.withResolvers<never>();
  never.catch(() => {});
  let isKilled = false;
  const scene: Scene = {
    afterAnswer: [],
    afterRepeat: [],
    kill() {
      isKilled = true;
      endWait(new Error('killed'));
      return never;
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
    (call, carryOut) => {
      if (isKilled) return never;
      if (!mayMeet(mutation, call)) return carryOut();
      const index = calls;
      calls += 1;
      return (lasts ? index >= failing : index === failing) ? meets(carryOut, scene) : carryOut();
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
  const live = [
    ...integrations.filter((row) => row['status'] === 'active'),
    ...phone_numbers.filter((row) => row['credentials_version'] !== null),
  ];
  expect(await ciphertextsOf(organization_id), context).toHaveLength(live.length);
  letGo(new Error('the isolate has ended'));
}
