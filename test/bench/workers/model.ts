/** Which bindings a worker under measurement sees: `MODEL` says it. */
import type { Bindings } from '../../../src/env.ts';
import { recordedBindings } from './recorded.ts';

export type Model = 'real' | 'recorded';

type ModelledBindings = Bindings & { MODEL: Model };

const models = { real: (env: Bindings) => env, recorded: recordedBindings };

/** The worker whose requests are answered by `fetch`, on the bindings of its model. */
export function modelled(
  fetch: (request: Request, env: Bindings, context: ExecutionContext) => Response | Promise<Response>,
) {
  let bindings: Bindings | undefined;
  return {
    fetch: (request: Request, env: ModelledBindings, context: ExecutionContext) =>
      fetch(request, (bindings ??= models[env.MODEL](env)), context),
  };
}
