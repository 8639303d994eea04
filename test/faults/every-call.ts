/**
 * A mutation that meets a fault at one of the calls that it makes on a binding: what the client hears is true, the
 * invariants hold, and the client's repeat under the same Idempotency-Key finishes what was begun, once. An operator's
 * mutations are sent without an Idempotency-Key too: then each request acts once at most, and the repeat is another one.
 */
import { env } from 'cloudflare:workers';
import { expect, vi } from 'vitest';
import * as z from 'zod';
import { forgetKey } from '../../src/worker/callers/caller.ts';
import { forgetOperator } from '../../src/worker/callers/operator.ts';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { drainPurges } from '../../src/worker/credentials/drain.ts';
import { interceptedBindings } from '../bindings.ts';
import type { BindingCall, Interceptor } from '../bindings.ts';
import { call, newClient, newOperator, start } from '../fixtures.ts';
import type { Answer, Client } from '../fixtures.ts';
import { mutations } from '../mutations.ts';
import type { Case, Mutation } from '../mutations.ts';
import { operatorMutations } from '../operator-mutations.ts';
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

/** A mutation, who sends it, and how. */
interface Subject extends Case {
  byOperator: boolean;
  /** Whether it has an Idempotency-Key. */
  keyed: boolean;
  /** It goes on after its answer. */
  goesOn?: true;
  /** What the same request is answered once it was done. */
  again: number;
  /** How many events it leaves, where the list says so. */
  events?: number;
}

const asked = operatorMutations.map((one) => ({
  again: one.status,
  events: one.status < 400 ? 1 : 0,
  ...one,
  byOperator: true,
}));

/** The mutations of API keys under an Idempotency-Key, and those of operators with and without one. */
export const subjects: Subject[] = [
  ...mutations.map((one) => ({ ...one, again: one.status, byOperator: false, keyed: true })),
  ...asked.map((one) => ({ ...one, again: one.status, keyed: true })),
  ...asked.map((one) => ({ ...one, name: `${one.name}, without an Idempotency-Key`, keyed: false })),
];

/** How much came of a mutation: new events, and whether any resource is another. */
interface Effect {
  events: number;
  changed: boolean;
}

function effectOf(before: Data, after: Data): Effect {
  const resources = ({ organizations, integrations, phone_numbers, api_keys, ...others }: Data) => {
    const { webhook_endpoints, webhook_secrets, webhook_deliveries } = others;
    const ofWebhooks = [webhook_endpoints, webhook_secrets, webhook_deliveries];
    return JSON.stringify([organizations, integrations, phone_numbers, api_keys, ofWebhooks]);
  };
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

const newOrganization = z.object({ metadata: z.record(z.string(), z.string()) });

/** The organizations that a mutation is about: the client's, and whichever it makes. */
async function organizationsOf({ organization_id }: Client, { path, body }: Mutation): Promise<string[]> {
  if (path !== '/operator/organizations') return [organization_id];
  const { results } = await env.DB.prepare('SELECT organization_id FROM organizations WHERE metadata = ?')
    .bind(JSON.stringify(newOrganization.parse(body).metadata))
    .all();
  return [organization_id, ...results.map((made) => String(made['organization_id']))];
}

/** The rows of several organizations. */
async function dataOfAll(organization_ids: string[]): Promise<Data> {
  const [first, ...others] = await Promise.all(organization_ids.map(dataOf));
  if (!first) throw new Error('no organization');
  return others.reduce(
    (all, data) => ({
      organizations: [...all.organizations, ...data.organizations],
      integrations: [...all.integrations, ...data.integrations],
      phone_numbers: [...all.phone_numbers, ...data.phone_numbers],
      api_keys: [...all.api_keys, ...data.api_keys],
      audit_events: [...all.audit_events, ...data.audit_events],
      credential_purges: [...all.credential_purges, ...data.credential_purges],
      idempotency_keys: [...all.idempotency_keys, ...data.idempotency_keys],
      webhook_endpoints: [...all.webhook_endpoints, ...data.webhook_endpoints],
      webhook_secrets: [...all.webhook_secrets, ...data.webhook_secrets],
      webhook_deliveries: [...all.webhook_deliveries, ...data.webhook_deliveries],
    }),
    first,
  );
}

/** A caller that no cache knows, so that a mutation makes every call it ever makes. */
async function prepared({ prepare, byOperator, keyed }: Subject) {
  const client = await newClient();
  const mutation = await prepare(client);
  const caller = byOperator ? await newOperator() : client;
  const hash = await hashKey(caller.raw_key);
  if (byOperator) forgetOperator(hash);
  else forgetKey(hash);
  await env.KEY_CACHE.delete(hash);
  const about = () => organizationsOf(client, mutation);
  const before = await dataOfAll(await about());
  /** Every answer that was heard. */
  const answers: Answer[] = [];
  const send = async (bindings = env) => {
    const answer = await start(caller, mutation.method, mutation.path, {
      body: mutation.body,
      headers: { ...mutation.headers, ...(keyed && { 'Idempotency-Key': 'once' }) },
      bindings,
    });
    answers.push(answer);
    return answer;
  };
  const effect = async () => effectOf(before, await dataOfAll(await about()));
  return { send, about, effect, answers };
}

const heardKey = z.object({ raw_key: z.string() });
const heard = z.object({ data: z.union([heardKey, z.object({ first_key: heardKey })]) });

/** The invariants, of every organization that the mutation is about. Each key is on record, and each one that was heard of works. */
async function assertAllIsWell({ about, answers }: Awaited<ReturnType<typeof prepared>>): Promise<void> {
  const organization_ids = await about();
  for (const organization_id of organization_ids) {
    await assertInvariants(organization_id);
    const { audit_events, api_keys } = await dataOf(organization_id);
    const sequences = audit_events.map(({ sequence }) => Number(sequence)).toSorted((one, other) => one - other);
    expect(sequences, 'the sequences of the trail').toEqual(sequences.map((_, index) => index + 1));
    const created = audit_events
      .filter(({ action }) => action === 'api_key.created')
      .map((event) => event['target_id']);
    const keys = api_keys.map(({ key_id }) => key_id);
    expect(new Set(created), 'keys, and those on record as created').toEqual(new Set(keys));
    expect(created, 'keys, and how many are on record as created').toHaveLength(keys.length);
  }
  const { api_keys } = await dataOfAll(organization_ids);
  for (const { body } of answers) {
    const { data: found } = heard.safeParse(body);
    if (!found) continue;
    const { raw_key } = 'raw_key' in found.data ? found.data : found.data.first_key;
    const key_hash = await hashKey(raw_key);
    const row = api_keys.find((key) => key['key_hash'] === key_hash);
    const holder = { raw_key, organization_id: String(row?.['organization_id']), key_id: String(row?.['key_id']) };
    expect((await call(holder, 'GET', '/api/whoami')).status, 'a call with a raw key that was heard of').toBe(200);
  }
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
const mayMeet = ({ dependsOnProvider }: Case, binding: BindingCall) =>
  !(dependsOnProvider && binding === 'provider.fetch');

/** What comes of the mutation where nothing fails; without an Idempotency-Key also of its repeats. */
export async function referenceOf(subject: Subject) {
  const scene = await prepared(subject);
  let calls = 0;
  const answer = await sendThrough(
    scene,
    (binding, carryOut) => {
      if (mayMeet(subject, binding)) calls += 1;
      return carryOut();
    },
    new Promise<never>(() => {}),
  );
  const effect = await scene.effect();
  const effects = [effect];
  const statuses: number[] = [];
  while (!subject.keyed && effects.length < MOST_REQUESTS) {
    const repeated = await scene.send();
    await repeated.settle();
    effects.push(await scene.effect());
    statuses.push(repeated.status);
  }
  return { calls, status: answer?.status, effect, effects, again: [...new Set(statuses)] };
}

/** The request, its repeat during a fault, and the last repeat. */
const MOST_REQUESTS = 3;

type Reference = Awaited<ReturnType<typeof referenceOf>>;

/** What the list of mutations says of a reference. */
export const asListed = ({ status, keyed, again, events }: Subject) => ({
  status,
  again: keyed ? [] : [again],
  ...(events !== undefined && { effect: { events } }),
});

/** Asserts that all is well where the fault meets this call of the mutation, its first being 0. */
export async function assertWithstands(
  subject: Subject,
  { meets, lasts }: Fault,
  failing: number,
  reference: Reference,
): Promise<void> {
  const { status, again, keyed, goesOn } = subject;
  const request = await prepared(subject);
  const { promise: killed, reject: endWait } = Promise.withResolvers<never>();
  // What a killed isolate waits for: nothing answers it before the case is over, and then its contexts settle.
  const { promise: never, reject: letGo } = Promise.withResolvers<never>();
  never.catch(() => {});
  let isKilled = false;
  let repeats = 0;
  const scene: Scene = {
    afterAnswer: [],
    afterRepeat: [],
    kill() {
      isKilled = true;
      endWait(new Error('killed'));
      return never;
    },
    async repeat() {
      repeats += 1;
      const answer = await request.send();
      await answer.settle();
      return answer;
    },
  };
  let calls = 0;
  const answer = await sendThrough(
    request,
    (binding, carryOut) => {
      if (isKilled) return never;
      if (!mayMeet(subject, binding)) return carryOut();
      const index = calls;
      calls += 1;
      return (lasts ? index >= failing : index === failing) ? meets(carryOut, scene) : carryOut();
    },
    killed,
  );

  /** A refusal is judged anew by each request, and is on record for each. */
  const once = (effect: Effect) =>
    status < 400 ? effect : { ...effect, events: Math.min(effect.events, reference.effect.events) };
  /** What goes on after the answer may have come to any part of it. */
  const begun = (effect: Effect) =>
    goesOn && effect.events > 0 ? { ...effect, events: reference.effect.events } : once(effect);
  const context = `call ${failing} of ${reference.calls}, answered ${answer?.text}`;
  const { statuses, effects } = told(answer, status, reference.effect);
  if (repeats > 0 && !keyed) {
    // Another request has acted beside this one.
    statuses.push(again);
    effects.push(...reference.effects.slice(0, 1 + repeats));
  }
  expect(statuses, context).toContain(answer?.status);
  expect(effects, context).toContainEqual(begun(await request.effect()));
  await assertAllIsWell(request);

  for (const late of scene.afterAnswer) await late().catch(() => {});
  if (scene.afterAnswer.length > 0) await assertAllIsWell(request);

  const repeated = await scene.repeat();
  const repeatedContext = `${context}, then repeated: ${repeated.text}`;
  expect(keyed ? [status] : [status, again], repeatedContext).toContain(repeated.status);
  for (const late of scene.afterRepeat) await late().catch(() => {});
  const after = once(await request.effect());
  // Without an Idempotency-Key each request may have acted, but none twice.
  expect(keyed ? [reference.effect] : reference.effects.slice(0, 1 + repeats), repeatedContext).toContainEqual(after);
  await assertAllIsWell(request);

  await drainEverything();
  await assertAllIsWell(request);
  const organization_ids = await request.about();
  const { credential_purges, integrations, phone_numbers } = await dataOfAll(organization_ids);
  expect(credential_purges, `${context}: the outbox, once everything is due`).toEqual([]);
  const live = [
    ...integrations.filter((row) => row['status'] === 'active'),
    ...phone_numbers.filter((row) => row['credentials_version'] !== null),
  ];
  const ciphertexts = await Promise.all(organization_ids.map(ciphertextsOf));
  expect(ciphertexts.flat(), context).toHaveLength(live.length);
  letGo(new Error('the isolate has ended'));
}
