/**
 * Calls with keys that end, while copies of D1 lag and answer late and out of order, KV at an edge is behind, and the clocks
 * of isolates and of the primary are up to 2 s off: no call changes anything after its key has ended, and no call that begins
 * later than 60 s after that is answered.
 *
 * The Worker, its SQL and KV are real, and so are the copies of D1. Modelled are only the time, and how far each copy is
 * behind: a replica has the state that the primary had after some earlier commit.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { applyD1Migrations } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import * as fc from 'fast-check';
import { vi } from 'vitest';
import { hashKey, newRawKey } from '../../src/worker/callers/raw-key.ts';
import { holds } from '../../src/worker/core/permissions.ts';
import type { Permission } from '../../src/worker/core/permissions.ts';
import { roles } from '../../src/worker/core/vocabulary.ts';
import type { Bindings } from '../../src/worker/env.ts';
import type worker from '../../src/worker/index.ts';
import { interceptedBindings } from '../bindings.ts';
import type { SentStatement } from '../bindings.ts';
import { createIntegration, newClient, start, twilio } from '../fixtures.ts';
import type { Answer, Client } from '../fixtures.ts';

/** How long a call may trust what was true. */
const BOUND_MILLISECONDS = 60_000;
/** core/deadlines.ts */
const DEADLINE_MILLISECONDS = 5_000;
const MAX_SKEW_MILLISECONDS = 2_000;
/** For how long KV may go on answering what it had. */
const KV_BEHIND_MILLISECONDS = 60_000;
/** When each schedule begins. Far from any real time, so that none is taken for it. */
const BEGIN = Date.UTC(2040, 0, 1);
const ISOLATES = 3;

type Row = Record<string, unknown>;

/** What the calls of this model read, in the order of their foreign keys. */
const copied = ['organizations', 'api_keys', 'integrations', 'heartbeats'] as const;
type Rows = Record<(typeof copied)[number], Row[]>;

/** The primary after a commit. */
interface State {
  at: number;
  rows: Rows;
}

/** One isolate: the Worker's modules with all that they remember. */
interface Isolate {
  worker: Pick<typeof worker, 'fetch'>;
  forgetKey: (key_hash: string) => void;
}

const reads = {
  list: { path: '/api/integrations', permission: 'integrations:read' },
  one: { path: '/api/integrations/{integration_id}', permission: 'integrations:read' },
  whoami: { path: '/api/whoami', permission: 'integrations:read' },
  keys: { path: '/api/api-keys', permission: 'api_keys:read' },
} as const satisfies Record<string, { path: string; permission: Permission }>;

const mutations = {
  rename: { method: 'PUT', path: '/api/integrations/{integration_id}', permission: 'integrations:update' },
  delete: { method: 'DELETE', path: '/api/integrations/{integration_id}', permission: 'integrations:delete' },
  create: { method: 'POST', path: '/api/integrations?verify=false', permission: 'integrations:create' },
  'create key': { method: 'POST', path: '/api/api-keys', permission: 'api_keys:create' },
} as const satisfies Record<string, { method: string; path: string; permission: Permission }>;

/** Which copy of D1 a read meets: the primary, or a replica that many commits behind. */
type Nearest = 'primary' | number;

/** A call, and what it meets. */
interface Wish {
  does: keyof typeof reads | keyof typeof mutations;
  key: number;
  isolate: number;
  nearest: Nearest;
  /** How many values KV is behind. */
  kvBehind: number;
  integration: number;
  /** How many steps D1's answers take to arrive. */
  answersIn: number;
}

interface Sent {
  label: string;
  key_id: string;
  permission: Permission;
  isRead: boolean;
  begunAt: number;
  nearest: Nearest;
  kvBehind: number;
  answersIn: number;
  /** Whether its key might do this when the primary was asked. */
  wasAllowed: boolean;
  /** Whether a replica was asked about its key, and the primary after that. */
  asked: { replica: boolean; primary: boolean };
  answer?: Answer;
  answeredAt?: number;
}

/** What a schedule has seen. A model that sees little proves little. */
export interface Seen {
  /** Reads that a replica answered. */
  byReplica: number;
  /** Those that the primary was asked about after a replica. */
  sentOn: number;
  /** Calls without a question to D1. */
  cached: number;
  refusedReads: number;
  refusedMutations: number;
  actingMutations: number;
  /** Of reads that were answered though their key had ended, and the longest time since then, in seconds. */
  stale: number;
  worstAge: number;
}

/** What differs in a mutant. */
export interface Mutant {
  /** Rewrites what a copy of D1 is asked. */
  sql?: (sql: string, copy: { isReplica: boolean; clock: number }) => string;
  /** Rewrites an entry that KV answers. */
  kv?: (text: string, clock: number) => string;
  /** Replaces a function of d1/replica-session.ts. */
  nearest?: (original: typeof import('../../src/worker/d1/replica-session.ts').nearest) => typeof original;
}

/** Which world a call is in, and by whose clock. */
const running = new AsyncLocalStorage<{ world: World; skew: number }>();

class Timer {
  readonly due: number;
  readonly resume: () => void;

  constructor(due: number, resume: () => void) {
    this.due = due;
    this.resume = resume;
  }
}

/** Of the organization ?1 where a table has several. */
const ofOrganization = (table: string) => (table === 'heartbeats' ? '' : ' WHERE organization_id = ?1');

/** Statements that put rows into a table. */
function insertions(database: D1Database, rows: Rows): D1PreparedStatement[] {
  return copied.flatMap((table) => {
    const [first] = rows[table];
    if (!first) return [];
    const names = Object.keys(first);
    const values = names.map((name) => `json_extract(value, '$.${name}')`);
    return [
      database
        .prepare(`INSERT INTO ${table} (${names.join(', ')}) SELECT ${values.join(', ')} FROM json_each(?1)`)
        .bind(JSON.stringify(rows[table])),
    ];
  });
}

/** The state that the replica's database has now. */
let onReplica: State | undefined;

class World {
  readonly organization_id: string;
  readonly keys: Client[];
  readonly integrations: string[];
  readonly sent: Sent[] = [];
  readonly underway: Promise<unknown>[] = [];
  /** Everything that broke, in words. */
  readonly broken: string[] = [];
  readonly log: State[] = [];
  readonly seen: Seen;
  now = BEGIN;
  private renamed = 0;
  private readonly scheduler: fc.Scheduler;
  private readonly isolates: Isolate[];
  private readonly skews: Skews;
  private readonly mutant: Mutant;
  private readonly timers = new Set<Timer>();
  private readonly inFlight = new Set<Promise<unknown>>();
  /** What KV has held, by its keys, newest last. */
  private readonly kv = new Map<string, { at: number; text: string | null }[]>();

  constructor(scheduler: fc.Scheduler, { isolates, mutant, seen }: Setting, skews: Skews, made: Made) {
    this.scheduler = scheduler;
    this.isolates = isolates;
    this.mutant = mutant;
    this.seen = seen;
    this.skews = skews;
    this.keys = made.keys;
    this.integrations = made.integrations;
    this.organization_id = made.organization_id;
    this.log.push({ at: this.now, rows: made.rows });
  }

  /** One step of the scheduler: what it lets go is carried out before the next. */
  act = async (letGo: () => Promise<void>): Promise<void> => {
    await letGo();
    await this.quiet();
  };

  async quiet(): Promise<void> {
    do {
      await new Promise((resolve) => setTimeout(resolve, 0));
      await Promise.allSettled(this.inFlight);
    } while (this.inFlight.size > 0);
  }

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

  setTimer(resume: () => void, milliseconds: number): Timer {
    const timer = new Timer(this.now + milliseconds, resume);
    this.timers.add(timer);
    return timer;
  }

  clearTimer(timer: Timer): void {
    this.timers.delete(timer);
  }

  /** Lets everything that is under way come to its end. (`waitFor` would wait for the command that calls this.) */
  async settle(): Promise<void> {
    while (this.scheduler.count() > 0) {
      await this.scheduler.waitOne();
    }
  }

  /** Lets time pass, and whatever waits for it go on. */
  async pass(milliseconds: number): Promise<void> {
    const end = this.now + milliseconds;
    for (;;) {
      const [next] = [...this.timers].filter(({ due }) => due <= end).toSorted((one, other) => one.due - other.due);
      if (!next) break;
      this.timers.delete(next);
      this.now = Math.max(this.now, next.due);
      next.resume();
      await this.quiet();
    }
    this.now = end;
  }

  async send(wish: Wish): Promise<void> {
    const { does, key, isolate, nearest, kvBehind, answersIn } = wish;
    const isRead = does in reads;
    const { method, path, permission } = { method: 'GET', ...{ ...reads, ...mutations }[does] };
    const caller = nth(this.keys, key);
    const sent: Sent = {
      label: `${does} by key ${key % this.keys.length} at isolate ${isolate}, ${this.seconds()}`,
      key_id: caller.key_id,
      permission,
      isRead,
      begunAt: this.now,
      nearest,
      kvBehind,
      answersIn,
      wasAllowed: false,
      asked: { replica: false, primary: false },
    };
    this.sent.push(sent);
    const name = `Name ${(this.renamed += 1)}`;
    const bodies: Partial<Record<Wish['does'], object>> = {
      rename: { name },
      create: { name, credentials: twilio },
      'create key': { name, role: 'user' },
    };
    await this.request(
      sent,
      caller,
      isolate,
      method,
      path.replace('{integration_id}', nth(this.integrations, wish.integration)),
      bodies[does],
    );
  }

  /** Another key ends a key through the API. */
  async revoke(key: number, isolate: number): Promise<void> {
    const [admin] = this.keys;
    if (!admin) throw new Error('There is no admin.');
    const sent: Sent = {
      label: `revocation of key ${key % this.keys.length}`,
      key_id: admin.key_id,
      permission: 'api_keys:revoke',
      isRead: false,
      begunAt: this.now,
      nearest: 'primary',
      kvBehind: 0,
      answersIn: 1,
      wasAllowed: false,
      asked: { replica: false, primary: false },
    };
    this.sent.push(sent);
    await this.request(sent, admin, isolate, 'DELETE', `/api/api-keys/${nth(this.keys, key).key_id}`);
  }

  private async request(
    sent: Sent,
    caller: Client,
    isolate: number,
    method: string,
    path: string,
    body?: object,
  ): Promise<void> {
    const bindings = interceptedBindings((name, carryOut, { statements, parameters, from }) => {
      const [key] = parameters.map(String);
      const label = `${sent.label} ${name}`;
      if (name === 'DB.batch') return this.ask(sent, statements, from);
      if (name === 'KEY_CACHE.get') return this.step(label, () => this.getFromKv(key ?? '', sent.kvBehind, carryOut));
      if (name === 'KEY_CACHE.put' || name === 'KEY_CACHE.delete') {
        const text = name === 'KEY_CACHE.put' ? String(parameters[1]) : null;
        return this.step(label, async () => {
          const result = await carryOut();
          this.kv.set(key ?? '', [...(this.kv.get(key ?? '') ?? []), { at: this.now, text }]);
          return result;
        });
      }
      return this.step(label, carryOut);
    });
    const headers = path === '/api/whoami' ? { 'X-Organization-Id': null } : {};
    const options = {
      ...(body && { body }),
      headers,
      bindings: bookmarked(bindings),
      isolate: nth(this.isolates, isolate).worker,
    };
    const skew = nth(this.skews.isolates, isolate);
    const answering = running.run({ world: this, skew }, () => start(caller, method, path, options));
    const settled = answering.then((answer) => {
      sent.answer = answer;
      sent.answeredAt = this.now;
      return answer.settle();
    });
    this.underway.push(settled.catch((error: unknown) => this.broken.push(`${sent.label}: ${String(error)}`)));
    await this.quiet();
  }

  /** Something other than the Worker changes D1. */
  change = async (sql: string, values: unknown[]): Promise<void> => {
    await this.askPrimary([{ sql, values }]);
  };

  private async ask(sent: Sent, statements: SentStatement[], from: string | undefined): Promise<D1Result[]> {
    const answers = await this.step(`${sent.label} DB.batch`, () => {
      const { nearest } = sent;
      if (from === 'first-unconstrained' && nearest !== 'primary') return this.askReplica(sent, statements, nearest);
      return this.askPrimaryFor(sent, statements);
    });
    for (let left = sent.answersIn; left > 0; left -= 1) await this.step(`${sent.label} DB answers`, async () => {});
    return answers;
  }

  private async askPrimaryFor(sent: Sent, statements: SentStatement[]): Promise<D1Result[]> {
    const before = this.newest();
    const isAllowed = may(before, sent.key_id, sent.permission);
    if (!sent.answer) {
      sent.wasAllowed ||= isAllowed;
      sent.asked.primary = true;
    }
    const answers = await this.askPrimary(statements);
    const changed = contentOf(before) !== contentOf(this.newest());
    if (changed && !isAllowed) this.broken.push(`${sent.label} changed something after its key had ended`);
    if (changed && !sent.isRead) this.seen.actingMutations += 1;
    return answers;
  }

  private async askPrimary(statements: SentStatement[]): Promise<D1Result[]> {
    const clock = Math.floor((this.now + this.skews.primary) / 1000);
    const writes = statements.some(({ sql }) => !/^select/i.test(sql));
    const looks = writes
      ? copied.map((table) => {
          const look = env.DB.prepare(`SELECT * FROM ${table}${ofOrganization(table)}`);
          return table === 'heartbeats' ? look : look.bind(this.organization_id);
        })
      : [];
    const answers = await env.DB.batch<Row>([...this.prepared(env.DB, statements, clock, false), ...looks]);
    if (writes) {
      const seen = answers.slice(statements.length).map(({ results }) => results);
      const [organizations = [], api_keys = [], integrations = [], heartbeats = []] = seen;
      this.log.push({ at: this.now, rows: { organizations, api_keys, integrations, heartbeats } });
    }
    return answers.slice(0, statements.length);
  }

  private async askReplica(sent: Sent, statements: SentStatement[], behind: number): Promise<D1Result[]> {
    sent.asked.replica = true;
    const state = this.log[Math.max(0, this.log.length - 1 - behind)] ?? this.newest();
    const clock = Math.floor((this.now + this.skews.primary) / 1000);
    const loading =
      onReplica === state
        ? []
        : [
            ...copied.toReversed().map((table) => env.REPLICA.prepare(`DELETE FROM ${table}`)),
            ...insertions(env.REPLICA, state.rows),
          ];
    const answers = await env.REPLICA.batch<Row>([...loading, ...this.prepared(env.REPLICA, statements, clock, true)]);
    onReplica = state;
    const asked = answers.slice(loading.length);
    const isLookUp = statements[0]?.sql.includes('"is_alive"');
    const isGated = isLookUp && !may(state, sent.key_id, 'integrations:read');
    if (isGated && asked.slice(1).some(({ results }) => results.length > 0)) {
      this.broken.push(`${sent.label} had something read for a key that its copy of D1 knew to have ended`);
    }
    return asked.map((answer) => ({ ...answer, meta: { ...answer.meta, served_by_primary: false } }));
  }

  private prepared(database: D1Database, statements: SentStatement[], clock: number, isReplica: boolean) {
    const { sql: mutate = (sql: string) => sql } = this.mutant;
    return statements.map(({ sql, values }) =>
      database.prepare(mutate(sql, { isReplica, clock }).replaceAll('unixepoch()', String(clock))).bind(...values),
    );
  }

  private async getFromKv(key: string, behind: number, carryOut: () => Promise<unknown>): Promise<unknown> {
    const held = this.kv.get(key) ?? [];
    const isPossible = (_: unknown, index: number) =>
      (held[index + 1]?.at ?? Infinity) > this.now - KV_BEHIND_MILLISECONDS;
    const possible = held.filter(isPossible);
    const { kv: mutate } = this.mutant;
    if (!mutate && (behind === 0 || possible.length === 0)) return carryOut();
    const text = possible[Math.max(0, possible.length - 1 - behind)]?.text ?? null;
    if (text === null) return null;
    return JSON.parse(mutate ? mutate(text, Math.floor(this.now / 1000)) : text);
  }

  /** Some isolate that has not seen a key yet takes the next calls. */
  async forget(key: number, isolate: number): Promise<void> {
    nth(this.isolates, isolate).forgetKey(await hashKey(nth(this.keys, key).raw_key));
  }

  newest(): State {
    const newest = this.log.at(-1);
    if (!newest) throw new Error('D1 is empty.');
    return newest;
  }

  /** When the newest of the keys that have ended did; null if all are as at first. */
  lastLoss(): number | null {
    const losses = this.log.filter((state, index) => {
      const before = this.log[index - 1];
      return before && this.keys.some((key) => mayRead(before, key) && !mayRead(state, key));
    });
    return losses.at(-1)?.at ?? null;
  }

  /**
   * For how long a key had not been allowed something when a call began: 0 if it was allowed at any time until the answer.
   */
  age({ key_id, permission, begunAt, answeredAt = this.now }: Sent): number {
    const until = this.log.filter(({ at }) => at <= answeredAt);
    const last = until.findLastIndex((state) => may(state, key_id, permission));
    return Math.max(0, begunAt - (until[last + 1]?.at ?? begunAt));
  }

  /** Whether the key was allowed this from the first to the answer. */
  wasAlwaysAllowed({ key_id, permission, answeredAt = this.now }: Sent): boolean {
    return this.log.every((state) => state.at > answeredAt || may(state, key_id, permission));
  }

  private seconds = () => `${(this.now - BEGIN) / 1000} s`;
}

const BOOKMARK = '00000085-0000024c-00004c6d-8e61117bf38d7adb71b934ebbf891683';

/** A session has a bookmark once it has asked, and these never ask: the model does. */
function bookmarked(bindings: Bindings): Bindings {
  const DB = new Proxy(bindings.DB, {
    get(database, name) {
      if (name !== 'withSession') return Reflect.get(database, name);
      return (constraint: string) =>
        new Proxy(database.withSession(constraint), {
          get: (session, property) => (property === 'getBookmark' ? () => BOOKMARK : Reflect.get(session, property)),
        });
    },
  });
  return { ...bindings, DB };
}

const nth = <Item>(items: readonly Item[], index: number): Item => {
  const item = items[index % items.length];
  if (item === undefined) throw new Error('There is none.');
  return item;
};

/** What a mutation may change. Whoever reads notes that the key was used, and beats. */
const contentOf = ({ rows: { organizations, api_keys, integrations } }: State) =>
  JSON.stringify([organizations, api_keys, integrations], (name, value: unknown) =>
    name === 'last_used_at' ? undefined : value,
  );

function may({ rows }: State, key_id: string, permission: Permission): boolean {
  const key = rows.api_keys.find((row) => row['key_id'] === key_id);
  const role = roles.find((name) => name === key?.['role']);
  const isActive = key?.['status'] === 'active' && rows.organizations[0]?.['status'] === 'active';
  return isActive && role !== undefined && holds(role, permission);
}

const mayRead = (state: State, { key_id }: Client) => may(state, key_id, 'api_keys:read');

type Command = fc.AsyncCommand<object, World>;

class Call implements Command {
  private readonly wish: Wish;

  constructor(wish: Wish) {
    this.wish = wish;
  }

  check = () => true;

  run = (_: object, world: World) => world.send(this.wish);

  toString = () => JSON.stringify(this.wish);
}

/** Ways for keys to end, and to come to life again. */
const changes = {
  'revoke by the API': undefined,
  revoke: `UPDATE api_keys SET status = 'revoked' WHERE organization_id = ?1 AND key_id = ?2`,
  downgrade: `UPDATE api_keys SET role = 'user' WHERE organization_id = ?1 AND key_id = ?2`,
  upgrade: `UPDATE api_keys SET role = 'admin' WHERE organization_id = ?1 AND key_id = ?2`,
  suspend: `UPDATE organizations SET status = 'suspended' WHERE organization_id = ?1 AND ?2 IS NOT NULL`,
  resume: `UPDATE organizations SET status = 'active' WHERE organization_id = ?1 AND ?2 IS NOT NULL`,
} as const;

class Change implements Command {
  private readonly kind: keyof typeof changes;
  private readonly key: number;
  private readonly isolate: number;

  constructor(kind: keyof typeof changes, key: number, isolate: number) {
    this.kind = kind;
    this.key = key;
    this.isolate = isolate;
  }

  check = () => true;

  async run(_: object, world: World): Promise<void> {
    const sql = changes[this.kind];
    if (sql === undefined) await world.revoke(this.key, this.isolate);
    else await world.change(sql, [world.organization_id, nth(world.keys, this.key).key_id]);
  }

  toString = () => `${this.kind} ${this.key} ${this.isolate}`;
}

/** Time passes: so much from now, or so much from when a key last ended. */
class Pass implements Command {
  private readonly milliseconds: number;
  private readonly from: 'now' | 'loss';
  /** Otherwise calls wait all that time. */
  private readonly settles: boolean;

  constructor(milliseconds: number, from: 'now' | 'loss', settles: boolean) {
    this.milliseconds = milliseconds;
    this.from = from;
    this.settles = settles;
  }

  check = () => true;

  async run(_: object, world: World): Promise<void> {
    if (this.settles) await world.settle();
    const from = this.from === 'loss' ? (world.lastLoss() ?? world.now) : world.now;
    await world.pass(Math.max(0, from + this.milliseconds - world.now));
  }

  toString = () => `${this.milliseconds} ms from ${this.from}${this.settles ? ', all settled' : ''}`;
}

class Forget implements Command {
  private readonly key: number;
  private readonly isolate: number;

  constructor(key: number, isolate: number) {
    this.key = key;
    this.isolate = isolate;
  }

  check = () => true;

  run = (_: object, world: World) => world.forget(this.key, this.isolate);

  toString = () => `isolate ${this.isolate} forgets key ${this.key}`;
}

/** Mostly the same key at the same isolates, so that calls meet. */
const isolate = fc.oneof({ weight: 4, arbitrary: fc.nat({ max: 1 }) }, fc.nat({ max: ISOLATES - 1 }));
const key = fc.oneof({ weight: 6, arbitrary: fc.constant(1) }, fc.nat({ max: 2 }));
const ending = fc.oneof({ weight: 4, arbitrary: fc.constant(1) }, fc.constant(2));

const call = (does: fc.Arbitrary<Wish['does']>): fc.Arbitrary<Call> =>
  fc
    .record({
      does,
      key,
      isolate,
      nearest: fc.oneof(
        { weight: 1, arbitrary: fc.constant('primary' as const) },
        { weight: 4, arbitrary: fc.nat({ max: 3 }) },
        { weight: 2, arbitrary: fc.nat({ max: 20 }) },
      ),
      kvBehind: fc.oneof(fc.constant(0), fc.nat({ max: 2 })),
      integration: fc.nat({ max: 1 }),
      answersIn: fc.oneof({ weight: 3, arbitrary: fc.constant(1) }, fc.constant(4)),
    })
    .map((wanted) => new Call(wanted));

const read = call(fc.constantFrom('list', 'one', 'whoami', 'keys'));
const mutate = call(fc.constantFrom('rename', 'delete', 'create', 'create key'));

const change = (...kinds: (keyof typeof changes)[]) =>
  fc.tuple(fc.constantFrom(...kinds), ending, isolate).map((of) => new Change(...of));

const mostly = fc.integer({ min: 0, max: 3 }).map((drawn) => drawn > 0);
const pass = (min: number, max: number, from: 'now' | 'loss', settles: fc.Arbitrary<boolean>) =>
  fc.tuple(fc.integer({ min, max }), settles).map(([milliseconds, settled]) => new Pass(milliseconds, from, settled));
/** Less than any deadline: calls under way go on. */
const shortPass = pass(
  100,
  DEADLINE_MILLISECONDS - 1,
  'now',
  mostly.map((settles) => !settles),
);

const any: fc.Arbitrary<Command> = fc.oneof(
  { weight: 8, arbitrary: read },
  { weight: 2, arbitrary: mutate },
  { weight: 1, arbitrary: change('revoke by the API', 'revoke', 'downgrade', 'suspend', 'resume', 'upgrade') },
  { weight: 2, arbitrary: shortPass },
  { weight: 2, arbitrary: pass(1_000, 40_000, 'now', mostly) },
  { weight: 1, arbitrary: fc.tuple(key, isolate).map((of) => new Forget(...of)) },
);

const ends = change('revoke by the API', 'revoke', 'downgrade', 'suspend');

/** When what was known just before a key ended is about to be too old. */
const aboutTheBound = fc.oneof(
  { weight: 3, arbitrary: pass(54_000, 60_000, 'loss', mostly) },
  pass(45_000, 62_000, 'loss', mostly),
);

/** Two reads of one key at one isolate: the second finds the look-up of the first under way. */
const together: fc.Arbitrary<Command[]> = fc
  .record({
    does: fc.constantFrom('list', 'keys'),
    isolate,
    // The oldest state mostly: its key is alive, and its heartbeat too old.
    nearest: fc.oneof({ weight: 2, arbitrary: fc.constant(20) }, fc.nat({ max: 4 })),
    between: fc.integer({ min: 1_000, max: DEADLINE_MILLISECONDS - 1 }),
  })
  .map(({ between, ...rest }) => {
    const wanted = { ...rest, key: 1, kvBehind: 0, integration: 0 };
    return [
      new Call({ ...wanted, answersIn: 6 }),
      new Pass(between, 'now', false),
      new Call({ ...wanted, answersIn: 1 }),
    ];
  });

const late: fc.Arbitrary<Command[]> = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(read) },
  { weight: 1, arbitrary: fc.tuple(mutate) },
  { weight: 2, arbitrary: fc.tuple(shortPass) },
  { weight: 3, arbitrary: together },
);

/** A key is used, it ends, and there are calls about when the bound is reached. */
const commands: fc.Arbitrary<Command[]> = fc
  .tuple(
    fc.array(any, { maxLength: 2 }),
    // Mostly the caches have got to know it by then.
    fc.tuple(read, pass(0, 8_000, 'now', mostly), ends),
    fc.array(any, { maxLength: 2 }),
    fc.tuple(aboutTheBound),
    fc.array(late, { minLength: 1, maxLength: 3 }).map((parts) => parts.flat()),
  )
  .map((parts) => parts.flat());

const skew = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(-MAX_SKEW_MILLISECONDS, MAX_SKEW_MILLISECONDS) },
  fc.integer({ min: -MAX_SKEW_MILLISECONDS, max: MAX_SKEW_MILLISECONDS }),
);

/** How many milliseconds each clock is off. */
interface Skews {
  primary: number;
  isolates: number[];
}

const clocks: fc.Arbitrary<Skews> = fc.record({
  primary: skew,
  isolates: fc.array(skew, { minLength: ISOLATES, maxLength: ISOLATES }),
});

interface Setting {
  isolates: Isolate[];
  mutant: Mutant;
  seen: Seen;
  pattern: Rows;
}

/** What each schedule begins with. */
interface Made {
  organization_id: string;
  keys: Client[];
  integrations: string[];
  rows: Rows;
}

let made = 0;

/** An organization like the pattern, in one batch: a thousand schedules need one each. */
async function newOrganization(pattern: Rows): Promise<Made> {
  made += 1;
  const suffix = made.toString(16).padStart(8, '0');
  const organization_id = `org_revocation_${made}`;
  const keys = pattern.api_keys.map((_, index) => ({
    organization_id,
    key_id: `apikey_${index.toString(16).padStart(4, '0')}${suffix}`,
    raw_key: newRawKey(),
  }));
  const integrations = pattern.integrations.map((_, index) => `intg_${index.toString(16).padStart(4, '0')}${suffix}`);
  const hashes = await Promise.all(keys.map(({ raw_key }) => hashKey(raw_key)));
  const rows: Rows = {
    organizations: pattern.organizations.map((row) => ({ ...row, organization_id })),
    api_keys: pattern.api_keys.map((row, index) => ({
      ...row,
      organization_id,
      key_id: keys[index]?.key_id,
      key_hash: hashes[index],
    })),
    integrations: pattern.integrations.map((row, index) => ({
      ...row,
      organization_id,
      integration_id: integrations[index],
    })),
    heartbeats: [],
  };
  const heartbeats = [{ source: 'primary', beat_at: BEGIN / 1000 }];
  await env.DB.batch([
    ...insertions(env.DB, rows),
    env.DB.prepare('UPDATE heartbeats SET beat_at = ?1').bind(BEGIN / 1000),
  ]);
  return { organization_id, keys, integrations, rows: { ...rows, heartbeats } };
}

/** Holds each answer to what D1 had, and when. */
function judge(world: World): void {
  const { seen, broken } = world;
  for (const sent of world.sent) {
    const { answer, answeredAt = world.now, begunAt, label, isRead, asked } = sent;
    if (!answer) {
      broken.push(`${label} was not answered`);
      continue;
    }
    const { status } = answer;
    const isRefused = status === 401 || status === 403;
    const isLate = status === 503 && answeredAt - begunAt >= DEADLINE_MILLISECONDS;
    const told = `${label} was answered ${status} ${(answeredAt - begunAt) / 1000} s later: ${answer.text}`;
    if (world.wasAlwaysAllowed(sent) && !isLate && (isRefused || status >= 429 || (isRead && status !== 200))) {
      // An integration may have been deleted.
      if (status !== 404) broken.push(told);
    }
    if (!isRead) {
      if (!sent.wasAllowed && !isRefused && !isLate) broken.push(`${told}, which its key was not allowed`);
      if (isRefused) seen.refusedMutations += 1;
      continue;
    }
    if (isRefused) seen.refusedReads += 1;
    if (!asked.replica && !asked.primary) seen.cached += 1;
    if (asked.replica && asked.primary) seen.sentOn += 1;
    if (status !== 200 && status !== 404) continue;
    if (asked.replica && !asked.primary) seen.byReplica += 1;
    const age = world.age(sent);
    if (age > 0) seen.stale += 1;
    seen.worstAge = Math.max(seen.worstAge, age / 1000);
    if (age > BOUND_MILLISECONDS) broken.push(`${told}, ${age / 1000} s after its key had ended`);
  }
}

async function assertBounded(
  setting: Setting,
  scheduler: fc.Scheduler,
  skews: Skews,
  given: Iterable<Command>,
): Promise<void> {
  const world = new World(scheduler, setting, skews, await newOrganization(setting.pattern));

  await fc.scheduledModelRun(scheduler, () => ({ model: {}, real: world }), given);
  for (let waited = -1; waited < world.underway.length;) {
    waited = world.underway.length;
    await scheduler.waitFor(Promise.all(world.underway));
  }
  judge(world);
  if (world.broken.length > 0) throw new Error(world.broken.join('\n'));
}

/** A pattern for the organizations: its first key revokes the others. */
async function newPattern(): Promise<Rows> {
  const first = await newClient();
  const others = [await newClient(first), await newClient({ ...first, role: 'agent_manager' })];
  const places = [first, ...others].map(({ key_id }) => key_id);
  for (let count = 0; count < 2; count += 1) await createIntegration(first, twilio, '?verify=false');
  const rowsOf = async (table: string) =>
    (
      await env.DB.prepare(`SELECT * FROM ${table}${ofOrganization(table)}`)
        .bind(first.organization_id)
        .all<Row>()
    ).results;
  const organizations = await rowsOf('organizations');
  // Triggers count what is inserted.
  const counted = organizations.map((row) => ({ ...row, api_key_count: 0, integration_count: 0, last_event_at: 0 }));
  const place = (row: Row) => places.indexOf(String(row['key_id']));
  return {
    organizations: counted,
    api_keys: (await rowsOf('api_keys')).toSorted((one, other) => place(one) - place(other)),
    integrations: await rowsOf('integrations'),
    heartbeats: [],
  };
}

/** A replica takes over rows. What triggers do has been done. */
async function prepareReplica(): Promise<void> {
  await applyD1Migrations(env.REPLICA, env.MIGRATIONS);
  const { results } = await env.REPLICA.prepare(`SELECT name FROM sqlite_master WHERE type = 'trigger'`).all<Row>();
  for (const { name } of results) await env.REPLICA.prepare(`DROP TRIGGER ${String(name)}`).run();
}

/** A mutant that heeds no look-up lacks a header that comes of it, and that is not what it must be found by. */
const withPolicy =
  (fetch: Isolate['worker']['fetch']): Isolate['worker']['fetch'] =>
  async (...given) => {
    const response = await fetch(...given);
    const answer = new Response(response.body, response);
    if (answer.ok) answer.headers.set('RateLimit-Policy', '"enterprise";q=5000;w=10');
    return answer;
  };

async function newIsolate({ nearest }: Mutant): Promise<Isolate> {
  vi.resetModules();
  if (nearest) {
    // Vitest's mocks end with a method that workerd's own class lacks.
    Reflect.set(AsyncLocalStorage.prototype, 'disable', () => {});
    vi.doMock(import('../../src/worker/d1/replica-session.ts'), async (importOriginal) => {
      const original = await importOriginal();
      return { ...original, nearest: nearest(original.nearest) };
    });
  }
  try {
    const { default: fresh } = await import('../../src/worker/index.ts');
    const { forgetKey } = await import('../../src/worker/callers/caller.ts');
    return { worker: nearest ? { fetch: withPolicy(fresh.fetch) } : fresh, forgetKey };
  } finally {
    vi.doUnmock('../../src/worker/d1/replica-session.ts');
  }
}

/** Clocks and timers of the calls in a world are the world's. Others are as they were. */
function inVirtualTime(): () => void {
  const { setTimeout: wait, clearTimeout: stop } = globalThis;
  const now = Date.now.bind(Date);
  vi.spyOn(Date, 'now').mockImplementation(() => {
    const { world, skew: off } = running.getStore() ?? {};
    return world ? world.now + (off ?? 0) : now();
  });
  vi.stubGlobal('setTimeout', (resume: () => void, milliseconds = 0) => {
    const world = running.getStore()?.world;
    const isOfCall = world && milliseconds >= 1_000 && milliseconds <= DEADLINE_MILLISECONDS;
    return isOfCall ? world.setTimer(resume, milliseconds) : wait(resume, milliseconds);
  });
  vi.stubGlobal('clearTimeout', (timer: Timer | ReturnType<typeof wait> | undefined) => {
    if (timer instanceof Timer) running.getStore()?.world.clearTimer(timer);
    else stop(timer);
  });
  return () => {
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
  };
}

/** Runs so many schedules: `failure` is what broke in the first that did. */
export async function schedules(parameters: { numRuns: number; seed: number }, mutant: Mutant = {}) {
  await prepareReplica();
  const isolates: Isolate[] = [];
  while (isolates.length < ISOLATES) isolates.push(await newIsolate(mutant));
  const seen: Seen = {
    byReplica: 0,
    sentOn: 0,
    cached: 0,
    refusedReads: 0,
    refusedMutations: 0,
    actingMutations: 0,
    stale: 0,
    worstAge: 0,
  };
  const setting: Setting = { isolates, mutant, seen, pattern: await newPattern() };
  const inRealTime = inVirtualTime();
  try {
    const interleavings = fc.asyncProperty(fc.scheduler(), clocks, commands, (scheduler, skews, given) =>
      assertBounded(setting, scheduler, skews, given),
    );
    const { failed, counterexample, errorInstance, numRuns } = await fc.check(interleavings, {
      ...parameters,
      endOnFailure: true,
    });
    return { seen, numRuns, failure: failed ? { counterexample, errorInstance } : undefined };
  } finally {
    inRealTime();
  }
}
