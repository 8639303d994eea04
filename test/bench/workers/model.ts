/** Which bindings a worker under measurement sees: `MODEL` says it. */
import type { Bindings } from '../../../src/worker/env.ts';
import { answerWithCounts } from './counted.ts';
import type { Fetch } from './counted.ts';
import { edgeBindings } from './edge.ts';
import type { EdgeTimes } from './edge.ts';
import { recordedBindings } from './recorded.ts';

/** The local ones as they are, recorded.ts, edge.ts, counted.ts. */
export type Model = 'real' | 'recorded' | 'edge' | 'counted';

type ModelledBindings = Bindings & { MODEL: Model } & Record<keyof EdgeTimes, string>;

function bindingsOf(env: ModelledBindings): Bindings {
  if (env.MODEL === 'recorded') return recordedBindings(env);
  return env.MODEL === 'edge' ? edgeBindings(env) : env;
}

/**
 * The worker whose requests are answered by `fetch`, on the bindings of its model. The log's lines are made, and go nowhere:
 * locally each is a write to a pipe that another process reads, which is no part of what is measured.
 */
export function modelled(fetch: Fetch) {
  Object.assign(console, { info: () => {} });
  let bindings: Bindings | undefined;
  return {
    fetch(request: Request, env: ModelledBindings, context: ExecutionContext) {
      if (env.MODEL === 'counted') return answerWithCounts(fetch, request, env, context);
      return fetch(request, (bindings ??= bindingsOf(env)), context);
    },
  };
}
