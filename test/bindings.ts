/** The pool's real bindings, wrapped: every call is seen, and can be made to fail before or after it is carried out. */
import { env } from 'cloudflare:workers';
import type { Bindings } from '../src/worker/env.ts';

/** One call on a binding: `DB.batch`, `KEY_CACHE.get`, …, `WEBHOOK_WAKEUPS.send`; or one to a provider. */
export type BindingCall = `${'DB' | 'KEY_CACHE' | 'CREDENTIALS'}.${string}` | 'WEBHOOK_WAKEUPS.send' | 'provider.fetch';

/** A statement as D1 gets it. */
export interface SentStatement {
  sql: string;
  values: unknown[];
}

/** Carries a call out, or does not, or does and then throws. Knows what is sent: statements to D1, parameters to KV. */
export type Interceptor = (
  call: BindingCall,
  carryOut: () => Promise<unknown>,
  sent: {
    statements: SentStatement[];
    parameters: unknown[];
    /** Where D1's session began: undefined without one. */
    from?: string | undefined;
  },
) => Promise<unknown>;

/** As long as the bindings are in use, which the model tests make by the thousand. */
const interceptors = new Map<string, WeakRef<Interceptor>>();

/** The origins of the providers, each as a name of the loopback address that leads through the interceptor. */
function interceptedOrigins(intercept: Interceptor): string {
  const name = `intercepted-${interceptors.size}.localhost`;
  interceptors.set(name, new WeakRef(intercept));
  return env.PROVIDER_ORIGINS.replaceAll('127.0.0.1', name);
}

const { fetch: realFetch } = globalThis;

globalThis.fetch = (input, init) => {
  const url = typeof input === 'string' ? URL.parse(input) : null;
  const intercept = url && interceptors.get(url.hostname)?.deref();
  if (!url || !intercept) return realFetch(input, init);
  url.hostname = '127.0.0.1';
  const carryOut = async (): Promise<Response> => (answered = await realFetch(url.href, init));
  let answered: Response | undefined;
  return intercept('provider.fetch', carryOut, { statements: [], parameters: [url.pathname] }).then(() => {
    if (!answered) throw new TypeError('The provider was not called.');
    return answered;
  });
};

/** Takes a condition away from a statement, and leaves its parameters where they are. */
export const without =
  (condition: RegExp): ((sql: string) => string) =>
  (sql) =>
    sql.replaceAll(condition, (matched) => {
      const parameters = matched.split('?').length - 1;
      return `(${['1', ...Array.from({ length: parameters }, () => '(? IS NULL OR 1)')].join(' AND ')})`;
    });

/**
 * The bindings with every call on D1, both KV namespaces and the queue going through the interceptor.
 *
 * @param mutate rewrites each statement: for a mutant
 */
export function interceptedBindings(intercept: Interceptor, mutate = (sql: string) => sql): Bindings {
  const database = env.DB;
  const originals = new WeakMap<D1PreparedStatement, D1PreparedStatement>();
  const sent = new WeakMap<D1PreparedStatement, SentStatement>();
  const sentOf = (wrapped: D1PreparedStatement[]) => ({
    statements: wrapped.flatMap((one) => sent.get(one) ?? []),
    parameters: [],
  });

  const statement = (original: D1PreparedStatement, sql: string, bound: unknown[] = []): D1PreparedStatement => {
    const wrapped: D1PreparedStatement = new Proxy(original, {
      get(_, name) {
        if (name === 'bind') return (...values: unknown[]) => statement(original.bind(...values), sql, values);
        const method = Reflect.get(original, name);
        return (...parameters: unknown[]) =>
          intercept(`DB.${String(name)}`, () => Reflect.apply(method, original, parameters), sentOf([wrapped]));
      },
    });
    originals.set(wrapped, original);
    sent.set(wrapped, { sql, values: bound });
    return wrapped;
  };

  const asked = <Asked extends D1Database | D1DatabaseSession>(target: Asked, from?: string): Asked => {
    const methods: object = target;
    return new Proxy(target, {
      get(_, name) {
        if (name === 'prepare') return (sql: string) => statement(target.prepare(mutate(sql)), sql);
        if (name === 'batch') {
          return (statements: D1PreparedStatement[]) =>
            intercept('DB.batch', () => target.batch(statements.map((wrapped) => originals.get(wrapped) ?? wrapped)), {
              ...sentOf(statements),
              from,
            });
        }
        if (name === 'withSession') return (constraint: string) => asked(database.withSession(constraint), constraint);
        const carryOut = async (parameters: unknown[]): Promise<unknown> =>
          Reflect.apply(Reflect.get(methods, name), target, parameters);
        if (name === 'getBookmark') return () => Reflect.apply(Reflect.get(methods, name), target, []);
        return (...parameters: unknown[]) => intercept(`DB.${String(name)}`, () => carryOut(parameters), sentOf([]));
      },
    });
  };
  const DB = asked(database);

  const namespace = (label: 'KEY_CACHE' | 'CREDENTIALS') =>
    new Proxy(env[label], {
      get(target, name) {
        return (...parameters: unknown[]) =>
          intercept(`${label}.${String(name)}`, () => Reflect.apply(Reflect.get(target, name), target, parameters), {
            statements: [],
            parameters,
          });
      },
    });

  const queue = new Proxy(env.WEBHOOK_WAKEUPS, {
    get(target, name) {
      const method = Reflect.get(target, name);
      if (name !== 'send') return method.bind(target);
      return (...parameters: unknown[]) =>
        intercept('WEBHOOK_WAKEUPS.send', () => Reflect.apply(method, target, parameters), {
          statements: [],
          parameters,
        });
    },
  });

  return {
    ...env,
    DB,
    KEY_CACHE: namespace('KEY_CACHE'),
    CREDENTIALS: namespace('CREDENTIALS'),
    WEBHOOK_WAKEUPS: queue,
    PROVIDER_ORIGINS: interceptedOrigins(intercept),
  };
}

/** The wake-up that follows every mutation is not among the calls that are noted. */
const isNoted = (call: BindingCall) => call !== 'WEBHOOK_WAKEUPS.send';

/** Bindings that note their calls, in the order in which they are made. */
export function countedBindings(): { bindings: Bindings; calls: BindingCall[] } {
  const calls: BindingCall[] = [];
  const bindings = interceptedBindings((call, carryOut) => {
    if (isNoted(call)) calls.push(call);
    return carryOut();
  });
  return { bindings, calls };
}

/**
 * Bindings with a replica that is behind: it answers each question as it did at first.
 *
 * @returns `asked`: where each session began
 */
export function laggingBindings(
  answers = new Map<string, unknown>(),
  onWrite = (_carryOut: () => Promise<unknown>) => {},
) {
  const asked: string[] = [];
  let isReplica = false;
  const intercepted = interceptedBindings(async (name, carryOut, { statements }) => {
    if (name !== 'DB.batch') return carryOut();
    if (statements.some(({ sql }) => !sql.startsWith('select'))) onWrite(carryOut);
    else if (isReplica) {
      const question = JSON.stringify(statements);
      if (!answers.has(question)) answers.set(question, await carryOut());
      return answers.get(question);
    }
    return carryOut();
  });
  const DB = new Proxy(intercepted.DB, {
    get(database, name) {
      if (name !== 'withSession') return Reflect.get(database, name);
      return (constraint: string) => {
        asked.push(constraint);
        isReplica = constraint === 'first-unconstrained';
        return database.withSession(constraint);
      };
    },
  });
  return { bindings: { ...intercepted, DB }, asked };
}

/** What one invocation asks of its bindings. */
export interface Invocation {
  calls: { call: BindingCall; statements: SentStatement[]; parameters: unknown[] }[];
  /** How many calls are open at once, at most. */
  mostOpen: number;
}

/** Bindings that note what is asked of them. */
export function notedBindings(): { bindings: Bindings; invocation: Invocation } {
  const invocation: Invocation = { calls: [], mostOpen: 0 };
  let open = 0;
  const bindings = interceptedBindings(async (call, carryOut, sent) => {
    invocation.calls.push({ call, ...sent });
    open += 1;
    invocation.mostOpen = Math.max(invocation.mostOpen, open);
    try {
      return await carryOut();
    } finally {
      open -= 1;
    }
  });
  return { bindings, invocation };
}

/** Bindings whose calls of one kind stall until they are let go. */
export function stallingBindings(stalling: BindingCall) {
  const stalls = Promise.withResolvers<void>();
  const goesOn = Promise.withResolvers<void>();
  const bindings = interceptedBindings(async (call, carryOut) => {
    if (call === stalling) {
      stalls.resolve();
      await goesOn.promise;
    }
    return carryOut();
  });
  return { bindings, stalls: stalls.promise, letGo: goesOn.resolve };
}

/** What a fault does to one kind of call, for as many calls as `times` says. */
export function failingBindings(
  failing: BindingCall,
  { when, message, times = Infinity }: { when: 'before' | 'after'; message: string; times?: number },
): { bindings: Bindings; calls: BindingCall[] } {
  const calls: BindingCall[] = [];
  let left = times;
  const bindings = interceptedBindings(async (call, carryOut) => {
    if (isNoted(call)) calls.push(call);
    if (call !== failing || left <= 0) return carryOut();
    left -= 1;
    if (when === 'after') await carryOut();
    throw new Error(message);
  });
  return { bindings, calls };
}
