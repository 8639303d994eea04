/**
 * Deadlines of calls on bindings: one that never answers must not hold a request, or the cron, for as long as the platform
 * lets it.
 */

/** Of every call, but for batches of {@link BULK_BATCH_MILLISECONDS}. */
export const CALL_MILLISECONDS = 5_000;
/** Of the cron's and the operator's batches, which may do much at once; D1 itself ends a batch after as long. */
export const BULK_BATCH_MILLISECONDS = 30_000;

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
 * Bindings whose calls reject with {@link DeadlineError} once they are late.
 *
 * @param keep receives the promise of each call that is late, which never rejects
 * @param batchMilliseconds the deadline of D1's batches; other calls have {@link CALL_MILLISECONDS}
 */
export function withDeadlines<Env extends object>(
  env: Env,
  keep: (late: Promise<unknown>) => void,
  batchMilliseconds: number,
): Env {
  const wrapped = new Map<string | symbol, unknown>();

  function inTime(call: string, milliseconds: number, answering: Promise<unknown>): Promise<unknown> {
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
          if (result instanceof Promise) {
            const milliseconds = property === 'batch' ? batchMilliseconds : CALL_MILLISECONDS;
            return inTime(`${name}.${String(property)}`, milliseconds, result);
          }
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
