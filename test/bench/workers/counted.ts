/** Answers that tell what they cost: the D1 calls before the answer, and the rows that these read and wrote. */
import * as z from 'zod';
import type { Bindings } from '../../../src/worker/env.ts';
import { intercept } from './intercept.ts';

const result = z.object({ meta: z.object({ rows_read: z.number(), rows_written: z.number() }) });
/** Of a batch, or of one statement; what else a statement can be asked for has no counts. */
const results = z.union([z.array(result), result.transform((one) => [one])]);

export type Fetch = (request: Request, env: Bindings, context: ExecutionContext) => Response | Promise<Response>;

export async function answerWithCounts(
  fetch: Fetch,
  request: Request,
  env: Bindings,
  context: ExecutionContext,
): Promise<Response> {
  const counts = { 'X-D1-Calls': 0, 'X-Rows-Read': 0, 'X-Rows-Written': 0 };
  const DB = intercept(env.DB, async (_, call) => {
    const answer = await call();
    counts['X-D1-Calls'] += 1;
    for (const { meta } of results.parse(answer)) {
      counts['X-Rows-Read'] += meta.rows_read;
      counts['X-Rows-Written'] += meta.rows_written;
    }
    return answer;
  });
  const given = await fetch(request, { ...env, DB }, context);
  const answer = new Response(given.body, given);
  for (const [name, count] of Object.entries(counts)) answer.headers.set(name, String(count));
  return answer;
}
