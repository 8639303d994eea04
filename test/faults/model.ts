/**
 * Random mutations of one organization, interleaved at every call on a binding, some of them losing an answer or landing
 * late: each answer is that of a simple model which takes the mutations one after the other, in the order in which D1
 * decided them. After each decision, another Worker reads what is stored then.
 */
import { env } from 'cloudflare:workers';
import * as fc from 'fast-check';
import { expect } from 'vitest';
import * as z from 'zod';
import { forgetKey } from '../../src/worker/callers/caller.ts';
import { hashKey } from '../../src/worker/callers/raw-key.ts';
import { drainPurges } from '../../src/worker/credentials/drain.ts';
import { interceptedBindings } from '../bindings.ts';
import {
  createIntegration,
  importNumber,
  newClient,
  openCredentials,
  start,
  twilio,
  unusedNumber,
} from '../fixtures.ts';
import type { Answer, Client } from '../fixtures.ts';
import { importSip, sip } from '../mutations.ts';
import { Follower } from './follower.ts';
import { assertFreshReads, assertInvariants, assertTrailTells, ciphertextsOf, dataOf } from './invariants.ts';

const LOST = 'D1_ERROR: Network connection lost.';

/** What a mutation is about: the n-th of the things that there are when it begins. */
type Wish =
  | { does: 'create' }
  | { does: 'replace'; integration: number }
  | { does: 'check'; integration: number }
  | { does: 'delete'; integration: number }
  | { does: 'delete and reassign'; integration: number; target: number }
  | { does: 'delete and remove'; integration: number }
  | { does: 'change numbers'; integration: number; target: number; agent: 'agent_a1b2c3d4e5f6' | null }
  | { does: 'delete numbers'; integration: number }
  | { does: 'import'; number: number; integration: number }
  | { does: 'import by SIP'; number: number }
  | { does: 'reassign'; imported: number; integration: number }
  | { does: 'replace of SIP'; imported: number; secret: 'sip_password' | 'inbound_pin' }
  | { does: 'assign'; imported: number; agent: 'agent_a1b2c3d4e5f6' | null }
  | { does: 'delete number'; imported: number }
  | { does: 'revoke'; key: number }
  | { does: 'rotate'; key: number };

interface Fault {
  /** Of the request's calls on a binding. */
  call: number;
  kind: 'before' | 'after' | 'late';
}

/** What of an answer the model looks at. */
type Told = Pick<Answer, 'body' | 'text'> & Partial<Pick<Answer, 'headers'>>;

interface Request {
  method: string;
  path: string;
  body?: object;
  /** What the model does with it. */
  expected: (model: Model, answer: Told) => number;
}

/** One request under way, or answered. */
interface Sent extends Request {
  caller: Client;
  /** Null for a request without one. */
  idempotency_key: string | null;
  fault: Fault | null;
  answer?: Answer;
  /** In the order of D1's batches: its last before its answer. */
  lastBatch?: number;
  /** In the same order, the one that left its event behind, and the event. */
  decision?: { batch: number; event: Event };
}

const auditEvent = z.object({ event_id: z.string(), action: z.string(), target_id: z.string() });
type Event = z.output<typeof auditEvent>;

interface ModelNumber {
  phone_number: string;
  integration_id: string | null;
  held: boolean;
  /** Of a SIP number. */
  secrets: object | null;
}

/** The organization as a list of what D1 decided makes it. */
class Model {
  readonly integrations = new Set<string>();
  readonly numbers = new Map<string, ModelNumber>();
  readonly deadKeys = new Set<string>();
  readonly keys = new Set<string>();
  /** Statuses of what acted, by Idempotency-Key and caller. */
  readonly answered = new Map<string, number>();

  numbersOf(integration_id: string): [phone_number_id: string, ModelNumber][] {
    return [...this.numbers].filter(([, number]) => number.integration_id === integration_id);
  }

  referencesTo(integration_id: string): string[] {
    return this.numbersOf(integration_id)
      .map(([, { phone_number }]) => phone_number)
      .toSorted();
  }
}

const created = z.object({ data: z.looseObject({}).default({}) });

/** Nothing where the answer is an error, which the model is about to say. */
const idOf = (answer: Told, name: string) => String(created.parse(answer.body).data[name]);

/** Of a request that was told. */
function expectCount({ headers }: Told, name: string, count: number): void {
  if (headers) expect(headers.get(name), name).toBe(String(count));
}

/** The organization as it is: what the commands act on. */
class Organization {
  readonly organization_id: string;
  readonly callers: Client[];
  readonly integrations: string[] = [];
  readonly imported: string[] = [];
  readonly numbers = [unusedNumber(), unusedNumber(), unusedNumber()];
  readonly sent: Sent[] = [];
  readonly underway: Promise<unknown>[] = [];
  private readonly scheduler: fc.Scheduler;
  private readonly inFlight = new Set<Promise<unknown>>();
  private readonly latePuts = new Set<Promise<unknown>>();
  private batches = 0;
  drains = 0;
  readonly follower: Follower;
  /** Of all decisions so far. */
  private readonly events = new Set<string>();

  constructor(scheduler: fc.Scheduler, callers: [Client, ...Client[]], reader: Client) {
    this.scheduler = scheduler;
    this.callers = callers;
    this.organization_id = callers[0].organization_id;
    this.follower = new Follower(reader);
  }

  /** What was made before the first command is not one's decision. */
  async begin(): Promise<void> {
    for (const { event_id } of await this.readEvents()) this.events.add(event_id);
  }

  /** One step of the scheduler: what it lets go is carried out before the next. */
  act = async (letGo: () => Promise<void>): Promise<void> => {
    await letGo();
    do {
      await new Promise((resolve) => setTimeout(resolve, 0));
      await Promise.allSettled(this.inFlight);
    } while (this.inFlight.size > 0);
  };

  private async step<Result>(label: string, carryOut: () => Promise<Result>): Promise<Result> {
    await this.scheduler.schedule(Promise.resolve(), label, undefined, this.act);
    const carried = carryOut();
    this.inFlight.add(carried);
    try {
      return await carried;
    } finally {
      this.inFlight.delete(carried);
    }
  }

  send(request: Request, caller: Client, idempotency_key: string | null, fault: Fault | null): void {
    const sent: Sent = { ...request, caller, idempotency_key, fault };
    this.sent.push(sent);
    let calls = 0;
    const bindings = interceptedBindings((name, carryOut) => {
      const meets = fault?.call === calls;
      calls += 1;
      const carriedOut = async () => {
        const result = await carryOut();
        if (name === 'DB.batch') await this.noteBatch(sent);
        return result;
      };
      const lose = (): never => {
        throw new Error(LOST);
      };
      const label = `${request.method} ${request.path} ${name}`;
      if (!meets) return this.step(label, carriedOut);
      if (fault?.kind === 'late') {
        const late = this.step(`${label}, late`, carriedOut).catch(() => {});
        if (name === 'CREDENTIALS.put') this.awaitPut(late);
        this.underway.push(late);
      }
      return fault?.kind === 'after' ? this.step(label, carriedOut).then(lose) : this.step(label, async () => lose());
    });
    const { method, path, body } = request;
    const headers = { 'Idempotency-Key': idempotency_key };
    const whole = start(caller, method, path, { body, headers, bindings }).then((answer) => {
      sent.answer = answer;
      // One whose key another call looked up may have asked D1 nothing itself.
      sent.lastBatch ??= this.batches;
      this.learn(answer);
      return answer.settle();
    });
    this.underway.push(whole);
  }

  private awaitPut(late: Promise<unknown>): void {
    this.latePuts.add(late);
    void late.then(() => this.latePuts.delete(late));
  }

  /**
   * Everything in the outbox is due, the intents of requests under way too, and is drained call by call. Only the hour of a
   * spent intent is longer than any put is late.
   */
  drain(): void {
    this.drains += 1;
    const bindings = interceptedBindings((name, carryOut) => this.step(`drain ${name}`, carryOut));
    const due = () => {
      const which = this.latePuts.size > 0 ? 'WHERE attempts = 0' : '';
      return env.DB.prepare(`UPDATE credential_purges SET due_at = 0 ${which}`).run();
    };
    this.underway.push(this.step('outbox due', due).then(() => drainPurges(bindings)));
  }

  /**
   * Whether this batch is the one that decided: it left an event. If it left several, that is the one about what the request
   * names, or else the first.
   */
  private async noteBatch(sent: Sent): Promise<void> {
    this.batches += 1;
    const batch = this.batches;
    if (!sent.answer) sent.lastBatch = batch;
    const left = (await this.readEvents()).filter(({ event_id }) => !this.events.has(event_id));
    for (const { event_id } of left) this.events.add(event_id);
    const event = left.find(({ target_id }) => sent.path.includes(`/${target_id}`)) ?? left[0];
    if (!event) return;
    sent.decision ??= { batch, event };
    await assertFreshReads(this.organization_id, this.integrations);
    await this.follower.poll();
  }

  private async readEvents(): Promise<Event[]> {
    const { results } = await env.DB.prepare(
      'SELECT event_id, action, target_id FROM audit_events WHERE organization_id = ? ORDER BY sequence',
    )
      .bind(this.organization_id)
      .all();
    return z.array(auditEvent).parse(results);
  }

  /** Things that an answer brings are there for later commands. */
  private learn(answer: Answer): void {
    if (answer.status !== 201) return;
    const { data } = z
      .object({
        data: z.object({
          integration_id: z.string().nullish(),
          phone_number_id: z.string().optional(),
          raw_key: z.string().optional(),
          key: z.object({ key_id: z.string() }).optional(),
        }),
      })
      .parse(answer.body);
    const { integration_id, phone_number_id, raw_key, key } = data;
    if (phone_number_id) this.imported.push(phone_number_id);
    else if (integration_id) this.integrations.push(integration_id);
    if (raw_key && key) {
      this.callers.push({ organization_id: this.organization_id, raw_key, key_id: key.key_id });
    }
  }
}

/** Nothing for a request without a key: it is its own. */
const scopeOf = ({ caller, idempotency_key }: Sent) =>
  idempotency_key === null ? undefined : `${caller.key_id} ${idempotency_key}`;

const hasActed = ({ decision }: Sent) => decision !== undefined && !decision.event.action.endsWith('_refused');

const nth = <Item>(items: Item[], index: number): Item => {
  const item = items[index % items.length];
  if (item === undefined) throw new Error('There is none.');
  return item;
};

/** The request that a wish comes to, and what the model makes of it. */
function requestOf(wish: Wish, organization: Organization): Request {
  const { integrations, imported, numbers, callers } = organization;
  switch (wish.does) {
    case 'create':
      return {
        method: 'POST',
        path: '/api/integrations',
        body: { name: 'Another', credentials: twilio },
        expected: (model, answer) => {
          model.integrations.add(idOf(answer, 'integration_id'));
          return 201;
        },
      };
    case 'replace': {
      const integration_id = nth(integrations, wish.integration);
      return {
        method: 'PUT',
        path: `/api/integrations/${integration_id}`,
        body: { credentials: { ...twilio, auth_token: 'plaintext-replacement' } },
        expected: (model) => (model.integrations.has(integration_id) ? 200 : 404),
      };
    }
    case 'check': {
      const integration_id = nth(integrations, wish.integration);
      return {
        method: 'POST',
        path: `/api/integrations/${integration_id}/verify`,
        expected: (model) => (model.integrations.has(integration_id) ? 200 : 404),
      };
    }
    case 'delete': {
      const integration_id = nth(integrations, wish.integration);
      return {
        method: 'DELETE',
        path: `/api/integrations/${integration_id}`,
        expected: (model, answer) => {
          if (!model.integrations.has(integration_id)) return 404;
          const references = model.referencesTo(integration_id);
          if (references.length === 0) {
            model.integrations.delete(integration_id);
            return 200;
          }
          const named = references.map((number) => `'${number}'`).join(', ');
          expect(answer.text).toContain(`Integration is still referenced by phone numbers: [${named}]. Remove`);
          return 409;
        },
      };
    }
    case 'delete and reassign': {
      const integration_id = nth(integrations, wish.integration);
      const target = nth(integrations, wish.target);
      return {
        method: 'DELETE',
        path: `/api/integrations/${integration_id}?reassign_to=${target}`,
        expected: (model, answer) => {
          if (!model.integrations.has(integration_id)) return 404;
          if (target === integration_id || !model.integrations.has(target)) return 422;
          const moved = model.numbersOf(integration_id);
          for (const [, number] of moved) number.integration_id = target;
          model.integrations.delete(integration_id);
          expectCount(answer, 'X-Reassigned-Count', moved.length);
          return 200;
        },
      };
    }
    case 'delete and remove': {
      const integration_id = nth(integrations, wish.integration);
      return {
        method: 'DELETE',
        path: `/api/integrations/${integration_id}?remove_phone_numbers=true`,
        expected: (model, answer) => {
          if (!model.integrations.has(integration_id)) return 404;
          const removed = model.numbersOf(integration_id);
          if (removed.some(([, { held }]) => held)) return 409;
          for (const [phone_number_id] of removed) model.numbers.delete(phone_number_id);
          model.integrations.delete(integration_id);
          expectCount(answer, 'X-Removed-Count', removed.length);
          return 200;
        },
      };
    }
    case 'change numbers': {
      const integration_id = nth(integrations, wish.integration);
      const target = nth(integrations, wish.target);
      return {
        method: 'POST',
        path: '/api/phone-numbers/bulk-update',
        body: { integration_id, set: { integration_id: target, assigned_agent_id: wish.agent } },
        expected: (model) => {
          if (!model.integrations.has(integration_id) || !model.integrations.has(target)) return 404;
          for (const [, number] of model.numbersOf(integration_id)) {
            number.integration_id = target;
            number.held = wish.agent !== null;
          }
          return 200;
        },
      };
    }
    case 'delete numbers': {
      const integration_id = nth(integrations, wish.integration);
      return {
        method: 'POST',
        path: '/api/phone-numbers/bulk-delete',
        body: { integration_id },
        expected: (model) => {
          if (!model.integrations.has(integration_id)) return 404;
          const removed = model.numbersOf(integration_id);
          if (removed.some(([, { held }]) => held)) return 409;
          for (const [phone_number_id] of removed) model.numbers.delete(phone_number_id);
          return 200;
        },
      };
    }
    case 'import': {
      const phone_number = nth(numbers, wish.number);
      const integration_id = nth(integrations, wish.integration);
      return {
        method: 'POST',
        path: '/api/phone-numbers?verify=false',
        body: { phone_number, provider: 'twilio', integration_id },
        expected: (model, answer) => {
          if (!model.integrations.has(integration_id)) return 404;
          return importInto(model, answer, phone_number, integration_id);
        },
      };
    }
    case 'import by SIP': {
      const phone_number = nth(numbers, wish.number);
      return {
        method: 'POST',
        path: '/api/phone-numbers',
        body: sip(phone_number),
        expected: (model, answer) => importInto(model, answer, phone_number, null),
      };
    }
    case 'reassign': {
      const phone_number_id = nth(imported, wish.imported);
      const integration_id = nth(integrations, wish.integration);
      return {
        method: 'PUT',
        path: `/api/phone-numbers/${phone_number_id}`,
        body: { integration_id },
        expected: (model) => {
          const number = model.numbers.get(phone_number_id);
          if (!number || !model.integrations.has(integration_id)) return 404;
          if (number.integration_id === null) return 422;
          number.integration_id = integration_id;
          return 200;
        },
      };
    }
    case 'replace of SIP': {
      const phone_number_id = nth(imported, wish.imported);
      const value = wish.secret === 'inbound_pin' ? '0815' : 'plaintext-replacement';
      return {
        method: 'PUT',
        path: `/api/phone-numbers/${phone_number_id}`,
        body: { [wish.secret]: value },
        expected: (model) => {
          const number = model.numbers.get(phone_number_id);
          if (!number) return 404;
          if (number.integration_id !== null) return 422;
          number.secrets = { ...number.secrets, [wish.secret]: value };
          return 200;
        },
      };
    }
    case 'assign': {
      const phone_number_id = nth(imported, wish.imported);
      return {
        method: 'PUT',
        path: `/api/phone-numbers/${phone_number_id}`,
        body: { assigned_agent_id: wish.agent },
        expected: (model) => {
          const number = model.numbers.get(phone_number_id);
          if (!number) return 404;
          number.held = wish.agent !== null;
          return 200;
        },
      };
    }
    case 'delete number': {
      const phone_number_id = nth(imported, wish.imported);
      return {
        method: 'DELETE',
        path: `/api/phone-numbers/${phone_number_id}`,
        expected: (model) => {
          const number = model.numbers.get(phone_number_id);
          if (!number) return 404;
          if (number.held) return 409;
          model.numbers.delete(phone_number_id);
          return 200;
        },
      };
    }
    case 'revoke': {
      // The first caller stays, so that there is always one who may act.
      const { key_id } = nth(callers.slice(1), wish.key);
      return {
        method: 'DELETE',
        path: `/api/api-keys/${key_id}`,
        expected: (model) => {
          model.deadKeys.add(key_id);
          return 200;
        },
      };
    }
    case 'rotate': {
      const { key_id } = nth(callers.slice(1), wish.key);
      return {
        method: 'POST',
        path: `/api/api-keys/${key_id}/rotate`,
        body: { overlap_seconds: 3600 },
        expected: (model, answer) => {
          if (model.deadKeys.has(key_id)) return 409;
          model.keys.add(answer.text);
          return 201;
        },
      };
    }
  }
}

function importInto(model: Model, answer: Told, phone_number: string, integration_id: string | null): number {
  if ([...model.numbers.values()].some((number) => number.phone_number === phone_number)) return 409;
  model.numbers.set(idOf(answer, 'phone_number_id'), newNumber(phone_number, integration_id));
  return 201;
}

function newNumber(phone_number: string, integration_id: string | null): ModelNumber {
  const { sip_password, inbound_pin } = sip(phone_number);
  return { phone_number, integration_id, held: false, secrets: integration_id ? null : { sip_password, inbound_pin } };
}

interface Begun {
  requests: number;
}

class Mutate implements fc.AsyncCommand<Begun, Organization> {
  private readonly wish: Wish;
  private readonly caller: number;
  private readonly keyed: boolean;
  private readonly fault: Fault | null;

  constructor(wish: Wish, caller: number, keyed: boolean, fault: Fault | null) {
    this.wish = wish;
    this.caller = caller;
    this.keyed = keyed;
    this.fault = fault;
  }

  check = () => true;

  async run(begun: Begun, organization: Organization): Promise<void> {
    begun.requests += 1;
    // A key that was rotated ends, and may rotate none that does not: rotations are the first one's.
    const caller = nth(organization.callers, this.wish.does === 'rotate' ? 0 : this.caller);
    const idempotency_key = this.keyed ? `key-${begun.requests}` : null;
    organization.send(requestOf(this.wish, organization), caller, idempotency_key, this.fault);
  }

  toString = () => JSON.stringify([this.wish, this.caller, this.keyed, this.fault]);
}

/** The client has heard nothing, or believes so. */
class Repeat implements fc.AsyncCommand<Begun, Organization> {
  private readonly index: number;
  private readonly fault: Fault | null;

  constructor(index: number, fault: Fault | null) {
    this.index = index;
    this.fault = fault;
  }

  check = ({ requests }: Begun) => requests > 0;

  async run(_: Begun, organization: Organization): Promise<void> {
    const { caller, idempotency_key, method, path, body, expected } = nth(organization.sent, this.index);
    organization.send({ method, path, ...(body && { body }), expected }, caller, idempotency_key, this.fault);
  }

  toString = () => `repeat ${this.index} ${JSON.stringify(this.fault)}`;
}

class Drain implements fc.AsyncCommand<Begun, Organization> {
  check = () => true;

  async run(_: Begun, organization: Organization): Promise<void> {
    organization.drain();
  }

  toString = () => 'drain';
}

/** Some isolate that has not seen a key yet takes the next requests. */
class CoolIsolate implements fc.AsyncCommand<Begun, Organization> {
  check = () => true;

  async run(_: Begun, { callers }: Organization): Promise<void> {
    for (const { raw_key } of callers) forgetKey(await hashKey(raw_key));
  }

  toString = () => 'cool isolate';
}

const index = fc.nat({ max: 5 });

const wish: fc.Arbitrary<Wish> = fc.oneof(
  fc.constant({ does: 'create' as const }),
  fc.record({ does: fc.constant('replace' as const), integration: index }),
  fc.record({ does: fc.constant('check' as const), integration: index }),
  { weight: 3, arbitrary: fc.record({ does: fc.constant('delete' as const), integration: index }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant('import' as const), number: index, integration: index }) },
  fc.record({ does: fc.constant('import by SIP' as const), number: index }),
  { weight: 2, arbitrary: fc.record({ does: fc.constant('reassign' as const), imported: index, integration: index }) },
  {
    weight: 2,
    arbitrary: fc.record({
      does: fc.constant('replace of SIP' as const),
      imported: index,
      secret: fc.constantFrom('sip_password' as const, 'inbound_pin' as const),
    }),
  },
  fc.record({
    does: fc.constant('assign' as const),
    imported: index,
    agent: fc.constantFrom('agent_a1b2c3d4e5f6' as const, null),
  }),
  { weight: 2, arbitrary: fc.record({ does: fc.constant('delete number' as const), imported: index }) },
  fc.record({ does: fc.constant('revoke' as const), key: index }),
  fc.record({ does: fc.constant('rotate' as const), key: index }),
);

const wishOfNumbers: fc.Arbitrary<Wish> = fc.oneof(
  fc.constant({ does: 'create' as const }),
  {
    weight: 4,
    arbitrary: fc.record({ does: fc.constant('delete and reassign' as const), integration: index, target: index }),
  },
  { weight: 3, arbitrary: fc.record({ does: fc.constant('delete and remove' as const), integration: index }) },
  {
    weight: 2,
    arbitrary: fc.record({
      does: fc.constant('change numbers' as const),
      integration: index,
      target: index,
      agent: fc.constantFrom('agent_a1b2c3d4e5f6' as const, null),
    }),
  },
  fc.record({ does: fc.constant('delete numbers' as const), integration: index }),
  fc.record({ does: fc.constant('delete' as const), integration: index }),
  { weight: 3, arbitrary: fc.record({ does: fc.constant('import' as const), number: index, integration: index }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant('reassign' as const), imported: index, integration: index }) },
  {
    weight: 5,
    arbitrary: fc.record({
      does: fc.constant('assign' as const),
      imported: index,
      agent: fc.constantFrom('agent_a1b2c3d4e5f6' as const, 'agent_a1b2c3d4e5f6' as const, null),
    }),
  },
  fc.record({ does: fc.constant('delete number' as const), imported: index }),
);

const fault = fc.option(
  fc.record({ call: fc.nat({ max: 5 }), kind: fc.constantFrom('before' as const, 'after' as const, 'late' as const) }),
  { freq: 2 },
);

const commandOf = (wished: fc.Arbitrary<Wish>) =>
  fc.oneof(
    {
      weight: 12,
      arbitrary: fc
        .tuple(wished, index, fc.boolean(), fault)
        .map(([wanted, caller, keyed, met]) => new Mutate(wanted, caller, keyed, met)),
    },
    { weight: 2, arbitrary: fc.tuple(fc.nat({ max: 30 }), fault).map(([which, met]) => new Repeat(which, met)) },
    fc.constant(new Drain()),
    fc.constant(new CoolIsolate()),
  );

async function newOrganization(scheduler: fc.Scheduler): Promise<{ organization: Organization; model: Model }> {
  const first = await newClient();
  const others = [await newClient(first), await newClient(first)];
  // With a key of its own: a call waits for another's look-up of the same key, which may be the scheduler's to let go.
  const reader = await newClient(first);
  const organization = new Organization(scheduler, [first, ...others], reader);
  const model = new Model();
  model.keys.add(reader.key_id);
  for (let made = 0; made < 2; made += 1) {
    const integration_id = await createIntegration(first);
    organization.integrations.push(integration_id);
    model.integrations.add(integration_id);
    const phone_number = unusedNumber();
    const phone_number_id = await importNumber(first, integration_id, phone_number);
    organization.imported.push(phone_number_id);
    model.numbers.set(phone_number_id, newNumber(phone_number, integration_id));
  }
  const phone_number = unusedNumber();
  const phone_number_id = await importSip(first, phone_number);
  organization.imported.push(phone_number_id);
  model.numbers.set(phone_number_id, newNumber(phone_number, null));
  for (const { key_id } of organization.callers) model.keys.add(key_id);
  await organization.begin();
  return { organization, model };
}

/** The answer that an event alone would have: of a request that was told of nothing. */
const answerOf = ({ target_id, event_id }: Event): Told => ({
  body: { data: { integration_id: target_id, phone_number_id: target_id } },
  text: event_id,
});

/** Takes the mutations in the order of their decisions, and holds each answer to what the model says. */
function assertExplained({ sent, drains }: Organization, model: Model): void {
  const placeOf = ({ answer, decision, lastBatch = 0 }: Sent) => {
    // What dead keys and repeats are told stands where they asked; so do the references that a refusal names.
    const isToldLast =
      answer?.status === 401 ||
      answer?.headers.has('Idempotency-Replayed') ||
      /"code":"(?:integration_in_use|phone_number_assigned)".*"(?:references|phone_numbers)":/.test(answer?.text ?? '');
    return isToldLast ? lastBatch : (decision?.batch ?? lastBatch);
  };
  // A drain was faster than the request, or it was refused while an earlier try was under way.
  const isUnavailable = ({ answer }: Sent) => answer?.status === 503;
  const isDue = ({ answer, fault: met }: Sent) =>
    met !== null || (drains > 0 && answer?.text.includes('"outcome":"not_done"'));
  expect(sent.filter((request) => isUnavailable(request) && !isDue(request))).toEqual([]);

  // That try may have acted since: then it counts, though nobody was told.
  const judged = sent.filter((request) => !isUnavailable(request) || hasActed(request));
  const inOrder = judged.toSorted((one, other) => placeOf(one) - placeOf(other));
  for (const request of inOrder) {
    const { answer, decision, caller, method, path } = request;
    if (!answer) throw new Error(`${method} ${path} was not answered`);
    const scope = scopeOf(request);
    if (isUnavailable(request) && decision) {
      const acted = request.expected(model, answerOf(decision.event));
      if (acted >= 400) throw new Error(`${method} ${path} has acted late, where it is to be refused: ${acted}`);
      if (scope !== undefined) model.answered.set(scope, acted);
      continue;
    }
    const known = scope === undefined ? undefined : model.answered.get(scope);
    const isReplay = answer.headers.has('Idempotency-Replayed');
    // What left an event was decided while its key lived.
    const isDead = !decision && model.deadKeys.has(caller.key_id);
    const status = isDead ? 401 : (known ?? request.expected(model, answer));
    expect(answer.status, `${method} ${path}: ${answer.text}`).toBe(status);
    expect(isReplay, `${method} ${path} is a replay`).toBe(!isDead && known !== undefined);
    if (scope !== undefined && !isReplay && hasActed(request)) model.answered.set(scope, status);
  }
}

async function assertSame({ organization_id }: Organization, model: Model): Promise<void> {
  const { integrations, phone_numbers, api_keys } = await dataOf(organization_id);
  expect(new Set(integrations.map((row) => row['integration_id']))).toEqual(model.integrations);
  const numbers = phone_numbers.map(async (row) => [
    row['phone_number_id'],
    {
      phone_number: row['phone_number'],
      integration_id: row['integration_id'],
      held: row['assigned_agent_id'] !== null,
      secrets: row['credentials_version'] === null ? null : await openCredentials(String(row['phone_number_id'])),
    },
  ]);
  expect(Object.fromEntries(await Promise.all(numbers))).toEqual(Object.fromEntries(model.numbers));
  const dead = api_keys.filter((row) => 'status' in row && row['status'] === 'revoked');
  expect(new Set(dead.map((row) => 'key_id' in row && row['key_id']))).toEqual(model.deadKeys);
  expect(api_keys).toHaveLength(model.keys.size);
}

/** Every event that there is, once, whatever was late. */
async function assertFollowed({ organization_id, follower }: Organization): Promise<void> {
  await follower.poll();
  const { audit_events } = await dataOf(organization_id);
  expect(new Set(follower.read).size, 'events that a reader has read twice').toBe(follower.read.length);
  expect(new Set(audit_events.map(({ event_id }) => event_id)), 'events that a reader has read').toEqual(
    new Set(follower.read),
  );
}

async function assertInterleaved(
  scheduler: fc.Scheduler,
  commands: Iterable<fc.AsyncCommand<Begun, Organization>>,
): Promise<void> {
  const { organization, model } = await newOrganization(scheduler);
  const { organization_id, underway } = organization;

  await fc.scheduledModelRun(scheduler, () => ({ model: { requests: 0 }, real: organization }), commands);
  for (let waited = -1; waited < underway.length;) {
    waited = underway.length;
    await scheduler.waitFor(Promise.all(underway), organization.act);
  }

  assertExplained(organization, model);
  await assertSame(organization, model);
  await assertFollowed(organization);
  await assertInvariants(organization_id);
  await assertTrailTells(organization_id);
  await env.DB.prepare('UPDATE credential_purges SET due_at = 0').run();
  await drainPurges(env);
  await assertInvariants(organization_id);
  const { credential_purges, phone_numbers, integrations } = await dataOf(organization_id);
  expect(credential_purges).toEqual([]);
  const live = integrations.length + phone_numbers.filter((row) => row['credentials_version'] !== null).length;
  expect(await ciphertextsOf(organization_id)).toHaveLength(live);
}

interface Variety {
  wished: fc.Arbitrary<Wish>;
  /** How many commands an interleaving has. */
  commands: { minLength: number; maxLength: number };
}

const everything: Variety = { wished: wish, commands: { minLength: 20, maxLength: 28 } };

/** What may happen to integrations and their numbers. */
export const ofNumbers: Variety = { wished: wishOfNumbers, commands: { minLength: 7, maxLength: 12 } };

/** What breaks among so many interleavings: nothing where all are as the model says. */
export async function failureOf(
  parameters: { numRuns: number; seed?: number },
  { wished, commands }: Variety = everything,
) {
  const interleavings = fc.asyncProperty(fc.scheduler(), fc.array(commandOf(wished), commands), assertInterleaved);
  const { failed, counterexample, errorInstance, seed } = await fc.check(interleavings, {
    ...parameters,
    endOnFailure: true,
  });
  return failed ? { counterexample, errorInstance, seed } : undefined;
}
