import { Hono } from 'hono';
import { createMiddleware } from 'hono/factory';
import { routePath } from 'hono/route';
import { authenticate } from './auth/authenticate.ts';
import { limitOrganization } from './auth/rate-limit.ts';
import type { AppEnv } from './env.ts';
import { integrationRoutes } from './integrations/routes.ts';
import { logError, logRequest } from './log.ts';
import { phoneNumberRoutes } from './phone-numbers/routes.ts';
import { DomainError, problemAnswer } from './problem.ts';

/** Gives every answer its request id, every call its log line, and the tasks of `afterAnswer` their turn. */
const frame = createMiddleware<AppEnv>(async (c, next) => {
  const request_id = crypto.randomUUID();
  const tasks: (() => Promise<unknown>)[] = [];
  c.set('request_id', request_id);
  c.set('afterAnswer', (task) => tasks.push(task));
  c.set('outcome', 'ok');
  c.header('X-Request-Id', request_id);
  c.header('Cache-Control', 'no-store');

  await next();

  const caller = c.get('operation')?.caller;
  logRequest({
    request_id,
    method: c.req.method,
    route: routePath(c, -1),
    organization_id: caller?.organization_id,
    key_id: caller?.key_id,
    status: c.res.status,
    outcome: c.var.outcome,
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
  .use('/api/*', authenticate, limitOrganization)
  .route('/api/integrations', integrationRoutes)
  .route('/api/phone-numbers', phoneNumberRoutes);

app.notFound(() => {
  throw new DomainError('not_found', {});
});

app.onError((error, c) => {
  const { request_id } = c.var;
  const known = error instanceof DomainError ? error : new DomainError('internal_error', {}, { cause: error });
  const { status, headers, body } = problemAnswer(known, request_id);
  c.set('outcome', known.code);
  if (status >= 500) logError(known.code, known.cause, { request_id });
  return c.body(body, status, headers);
});

const methodsByPath = Map.groupBy(
  app.routes.filter(({ method }) => method !== 'ALL'),
  ({ path }) => path,
);

// Hono answers 404 where a path is known and the method is not.
for (const [path, routes] of methodsByPath) {
  const allowed_methods = [...new Set(routes.map(({ method }) => method))];
  app.all(path, () => {
    throw new DomainError('method_not_allowed', { allowed_methods });
  });
}

// A route under /api that asks for no permission must not reach production: the Worker does not start with one.
for (const [path, routes] of methodsByPath) {
  for (const { method } of routes) {
    const guarded = routes.some((route) => route.method === method && 'permission' in route.handler);
    if (path.startsWith('/api') && !guarded) throw new Error(`${method} ${path} requires no permission`);
  }
}
