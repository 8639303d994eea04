/** The pool's real bindings, wrapped: every call is seen, and can be made to fail before or after it is carried out. */
import { env } from 'cloudflare:workers';
import type { Bindings } from '../src/env.ts';

/** One call on a binding: `DB.batch`, `KEY_CACHE.get`, … */
export type BindingCall = `${'DB' | 'KEY_CACHE' | 'CREDENTIALS'}.${string}`;

/** Carries a call out, or does not, or does and then throws. */
export type Interceptor = (call: BindingCall, carryOut: () => Promise<unknown>) => Promise<unknown>;

/** The bindings with every call on D1 and both KV namespaces going through the interceptor. */
export function interceptedBindings(intercept: Interceptor): Bindings {
  const database = env.DB;
  const originals = new WeakMap<D1PreparedStatement, D1PreparedStatement>();

  const statement = (original: D1PreparedStatement): D1PreparedStatement => {
    const wrapped: D1PreparedStatement = new Proxy(original, {
      get(_, name) {
        if (name === 'bind') return (...values: unknown[]) => statement(original.bind(...values));
        return (...parameters: unknown[]) =>
          intercept(`DB.${String(name)}`, () => Reflect.apply(Reflect.get(original, name), original, parameters));
      },
    });
    originals.set(wrapped, original);
    return wrapped;
  };

  const asked = <Asked extends D1Database | D1DatabaseSession>(target: Asked): Asked => {
    const methods: object = target;
    return new Proxy(target, {
      get(_, name) {
        if (name === 'prepare') return (sql: string) => statement(target.prepare(sql));
        if (name === 'batch') {
          return (statements: D1PreparedStatement[]) =>
            intercept('DB.batch', () => target.batch(statements.map((wrapped) => originals.get(wrapped) ?? wrapped)));
        }
        if (name === 'withSession') return (constraint: string) => asked(database.withSession(constraint));
        const carryOut = async (parameters: unknown[]): Promise<unknown> =>
          Reflect.apply(Reflect.get(methods, name), target, parameters);
        if (name === 'getBookmark') return () => Reflect.apply(Reflect.get(methods, name), target, []);
        return (...parameters: unknown[]) => intercept(`DB.${String(name)}`, () => carryOut(parameters));
      },
    });
  };
  const DB = asked(database);

  const namespace = (label: 'KEY_CACHE' | 'CREDENTIALS') =>
    new Proxy(env[label], {
      get(target, name) {
        return (...parameters: unknown[]) =>
          intercept(`${label}.${String(name)}`, () => Reflect.apply(Reflect.get(target, name), target, parameters));
      },
    });

  return { ...env, DB, KEY_CACHE: namespace('KEY_CACHE'), CREDENTIALS: namespace('CREDENTIALS') };
}

/** Bindings that note their calls, in the order in which they are made. */
export function countedBindings(): { bindings: Bindings; calls: BindingCall[] } {
  const calls: BindingCall[] = [];
  const bindings = interceptedBindings((call, carryOut) => {
    calls.push(call);
    return carryOut();
  });
  return { bindings, calls };
}

/** What a fault does to one kind of call, for as many calls as `times` says. */
export function failingBindings(
  failing: BindingCall,
  { when, message, times = Infinity }: { when: 'before' | 'after'; message: string; times?: number },
): { bindings: Bindings; calls: BindingCall[] } {
  const calls: BindingCall[] = [];
  let left = times;
  const bindings = interceptedBindings(async (call, carryOut) => {
    calls.push(call);
    if (call !== failing || left <= 0) return carryOut();
    left -= 1;
    if (when === 'after') await carryOut();
    throw new Error(message);
  });
  return { bindings, calls };
}
