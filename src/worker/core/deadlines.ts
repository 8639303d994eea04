/**
 * Deadlines for calls on bindings. A call that never answers must not hold a request, or the cron, for as long as the
 * platform allows.
 */
import { admit } from './admission.ts';

/** For every call, except batches that have {@link BULK_CALL_MILLISECONDS} or {@link BULK_BATCH_MILLISECONDS}. */
export const CALL_MILLISECONDS = 5_000;
/** For the batch of a client's call that acts on many phone numbers. */
export const BULK_CALL_MILLISECONDS = 25_000;
/** For the batches of the cron and of operators, which may do much at once. D1 itself ends a batch after this time. */
export const BULK_BATCH_MILLISECONDS = 30_000;

/** A call did not answer in time. The call goes on, so whether it will be carried out is unknown. */
export class DeadlineError extends Error {
  constructor(call: string) {
    super(`${call} did not answer in time`);
    this.name = 'DeadlineError';
  }
}

/**
 * Wraps bindings, so that a call which is late rejects with {@link DeadlineError}, and a batch which would wait for too
 * long is not sent (core/admission.ts).
 *
 * @param keep receives the promise of each batch and of each late call, for `waitUntil`; it never rejects
 * @param batchMilliseconds the deadline of D1's batches, unless they are given one of their own (d1/batch.ts); other calls
 *   have {@link CALL_MILLISECONDS}
 * @param request of the client: every binding has its signal as `client`, for its retries (core/retry.ts)
 */
export function withDeadlines<Env extends object>(
  env: Env,
  keep: (late: Promise<unknown>) => void,
  batchMilliseconds: number,
  request?: Request,
): Env {
  const wrapped = new Map<string | symbol, unknown>();

  function inTime(call: string, milliseconds: number, answering: Promise<unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        keep(answering.catch(() => {}));
        reject(new DeadlineError(call));
      }, milliseconds);
      const before =
        <Value>(settle: (value: Value) => void) =>
        (value: Value) => {
          clearTimeout(timer);
          settle(value);
        };
      answering.then(before(resolve), before(reject));
    });
  }

  function wrap(name: string, value: unknown): unknown {
    if (typeof value !== 'object' || value === null) return value;
    const binding: object = value;
    return new Proxy(binding, {
      get(target, property) {
        if (property === 'client') return request?.signal;
        const member: unknown = Reflect.get(target, property);
        if (typeof member !== 'function') return member;
        return (...parameters: unknown[]) => {
          const call = (): unknown => Reflect.apply(member, target, parameters);
          const result = property === 'batch' ? admit(call) : call();
          if (result instanceof Promise) {
            // If the client goes, the runtime would end the call without a word, and the batch would count as at D1.
            if (property === 'batch') keep(result.catch(() => {}));
            const [, given = batchMilliseconds] = parameters;
            const milliseconds = property === 'batch' ? Number(given) : CALL_MILLISECONDS;
            return inTime(`${name}.${String(property)}`, milliseconds, result);
          }
          return property === 'withSession' ? wrap(name, result) : result;
        };
      },
    });
  }

  return new Proxy(env, {
    get(target, name) {
      if (!wrapped.has(name)) wrapped.set(name, wrap(String(name), Reflect.get(target, name)));
      return wrapped.get(name);
    },
  });
}
