/** A read of credentials, as another Worker has it made, without the RPC around it. */
import { CALL_MILLISECONDS, withDeadlines } from '../../../src/worker/core/deadlines.ts';
import { readByIntegration } from '../../../src/worker/credentials-reader/read.ts';
import { modelled } from './model.ts';

export default modelled(async (request, env, context) => {
  const [, organization_id, integration_id] = new URL(request.url).pathname.split('/');
  const result = await readByIntegration(
    {
      env: withDeadlines(env, (late) => context.waitUntil(late), CALL_MILLISECONDS),
      consumer: 'bench',
      request_id: crypto.randomUUID(),
      afterAnswer: () => {},
    },
    { organization_id, integration_id, purpose: 'bench' },
  );
  return Response.json(result);
});
