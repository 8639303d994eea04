/**
 * Deadlines of calls on bindings: one that never answers must not hold a request, or the cron, for as long as the platform
 * lets it.
 */

/** Of a call that a client waits for. */
export const CALL_MILLISECONDS = 5_000;
/** Of the cron's and the operator's calls, which may do much at once; D1 itself ends a batch after as long. */
export const BULK_CALL_MILLISECONDS = 30_000;

/** A call that did not answer in time. It goes on: whether it will be carried out is unknown. */
export class DeadlineError extends Error {
  constructor(call: string) {
    super(`${call} did not answer in time`);
    this.name = 'DeadlineError';
  }
}

const originals = new WeakMap<object, object>();

/** The binding itself, the same in every invocation; of a D1 session the database's. What stays in an isolate is kept by it. */
export const originalOf = (binding: object): object => originals.get(binding) ?? binding;

/**
 * Bindings whose calls reject with {@link DeadlineError} after the given time.
 *
 * @param keep receives the promise of each call that is late, which never rejects
 */
export function withDeadlines<Env extends object>(
  env: Env,
  keep: (late: Promise<unknown>) => void,
  milliseconds: number,
): Env {
  const wrapped = new Map<string | symbol, unknown>();

  function inTime(call: string, answering: Promise<unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        keep(answering.catch(() => {}));
        reject(new DeadlineError(call));
      }, milliseconds);
      answering.finally(() => clearTimeout(timer)).then(resolve, reject);
    });
  }

  function wrap(name: string, value: unknown, original?: object): unknown {
    if (typeof value !== 'object' || value === null) return value;
    const binding: object = value;
    const proxy = new Proxy(binding, {
      get(target, property) {
        const member: unknown = Reflect.get(target, property);
        if (typeof member !== 'function') return member;
        return (...parameters: unknown[]) => {
          const result: unknown = Reflect.apply(member, target, parameters);
          if (result instanceof Promise) return inTime(`${name}.${String(property)}`, result);
          return property === 'withSession' ? wrap(name, result, originalOf(target)) : result;
        };
      },
    });
    originals.set(proxy, original ?? originalOf(binding));
    return proxy;
  }

  return new Proxy(env, {
    get(target, name) {
      if (!wrapped.has(name)) wrapped.set(name, wrap(String(name), Reflect.get(target, name)));
      return wrapped.get(name);
    },
  });
}
