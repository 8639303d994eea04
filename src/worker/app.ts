import { Hono } from 'hono';
import type { Context } from 'hono';
import { createMiddleware } from 'hono/factory';
import { routePath } from 'hono/route';
import { answer, standardHeaders } from './http/answer.ts';
import { apiKeyRoutes } from './api-keys/routes.ts';
import { auditRoutes } from './audit/routes.ts';
import { authenticate, requireOrganization } from './http/authenticate.ts';
import { limitOrganization } from './http/rate-limit.ts';
import { allowOrigins } from './http/cors.ts';
import { refuseGrowth } from './d1/database-size.ts';
import type { AppEnv } from './env.ts';
import { healthRoutes } from './http/health.ts';
import { integrationRoutes } from './integrations/routes.ts';
import { logError, logRequest } from './core/log.ts';
import { phoneNumberRoutes } from './phone-numbers/routes.ts';
import { problemAnswer } from './http/problem.ts';
import { DomainError } from './core/errors.ts';
import { BOOKMARK_HEADER } from './d1/replica-session.ts';

/** Gives every answer its request id, every call its log line, and the tasks of `afterAnswer` their turn. */
const frame = createMiddleware<AppEnv>(async (c, next) => {
  const request_id = crypto.randomUUID();
  const tasks: (() => Promise<unknown>)[] = [];
  c.set('request_id', request_id);
  c.set('afterAnswer', (task) => tasks.push(task));
  c.set('outcome', 'ok');
  c.set('headers', standardHeaders(request_id));

  await next();

  const caller = c.get('operation')?.caller;
  logRequest({
    request_id,
    method: c.req.method,
    route: routePath(c, -1),
    organization_id: caller?.organization_id,
    key_id: caller?.key_id,
    status: c.res.status,
    outcome: c.get('outcome'),
    replayed: 'Idempotency-Replayed' in c.get('headers') || undefined,
  });
  if (tasks.length > 0) c.executionCtx.waitUntil(runAfterAnswer(tasks, request_id));
});

async function runAfterAnswer(tasks: (() => Promise<unknown>)[], request_id: string): Promise<void> {
  // A turn of the event loop, in which the answer leaves first.
  await new Promise((resolve) => setTimeout(resolve, 0));
  await Promise.all(
    tasks.map((task) => task().catch((error: unknown) => logError('after_answer_failed', error, { request_id }))),
  );
}

export const app = new Hono<AppEnv>()
  .use(frame)
  .route('/health', healthRoutes)
  .use('/api/*', allowOrigins)
  .use('/api/*', authenticate, limitOrganization, requireOrganization, refuseGrowth)
  .route('/api/integrations', integrationRoutes)
  .route('/api/phone-numbers', phoneNumberRoutes)
  .route('/api/api-keys', apiKeyRoutes)
  .route('/api/audit-events', auditRoutes);

app.notFound((c) => refuse(c, new DomainError('not_found', {})));

app.onError((error, c) =>
  refuse(c, error instanceof DomainError ? error : new DomainError('internal_error', {}, { cause: error })),
);

function refuse(c: Context<AppEnv>, error: DomainError): Response {
  const request_id = c.get('request_id');
  const { status, headers, body } = problemAnswer(error, request_id);
  c.set('outcome', error.code);
  // What is absent and what is another's are not to be told apart, and a bookmark tells what was written meanwhile.
  delete c.get('headers')[BOOKMARK_HEADER];
  if (status >= 500) logError(error.code, error.cause, { request_id });
  return answer(c, status, body, headers);
}

closeRoutes(app);

/**
 * Closes an app's route table: a known path answers 405 to other methods, where Hono would answer 404.
 *
 * @throws Error for a route under `/api` that does not ask for a permission first, that mutates and accepts
 *   no Idempotency-Key, or that reads and accepts no bookmark: a Worker with one does not start
 */
export function closeRoutes({ routes, all }: Pick<Hono<AppEnv>, 'routes' | 'all'>): void {
  const paths = Map.groupBy(
    routes.filter(({ path }) => !path.includes('*')),
    ({ path }) => path,
  );
  for (const [path, handlers] of paths) {
    const methods = Map.groupBy(handlers, ({ method }) => method);
    for (const [method, chain] of methods) {
      const [first] = chain;
      if (!path.startsWith('/api')) continue;
      const guarded = first && 'permission' in first.handler;
      if (!guarded) throw new Error(`${method} ${path} asks for no permission first`);
      const [accepted, name] =
        method === 'GET' ? ['acceptsBookmark', 'bookmark'] : ['acceptsIdempotencyKey', 'Idempotency-Key'];
      if (!chain.some(({ handler }) => accepted in handler)) throw new Error(`${method} ${path} accepts no ${name}`);
    }
    all(path, () => {
      throw new DomainError('method_not_allowed', { allowed_methods: [...methods.keys()] });
    });
  }
}
