import type { Context } from 'hono';
import { createMiddleware } from 'hono/factory';
import { methodNotAllowed } from 'hono/method-not-allowed';
import { routePath } from 'hono/route';
import { apiKeyRoutes } from './api-keys/routes.ts';
import { auditRoutes } from './audit/routes.ts';
import { runAfterAnswer } from './core/after-answer.ts';
import { DomainError } from './core/errors.ts';
import { logError, logRequest } from './core/log.ts';
import type { ApiCall } from './decision/call.ts';
import { answer, standardHeaders } from './http/answer.ts';
import type { AppEnv } from './http/app-env.ts';
import { authenticate, requireOrganization } from './http/authenticate.ts';
import { allowOrigins, answersPreflights } from './http/cors.ts';
import { healthRoutes } from './http/health.ts';
import { newRoutes } from './http/new-routes.ts';
import { problemAnswer } from './http/problem.ts';
import { limitOrganization } from './http/rate-limit.ts';
import { refuseGrowth } from './http/refuse-growth.ts';
import { integrationRoutes } from './integrations/routes.ts';
import { phoneNumberRoutes } from './phone-numbers/routes.ts';

/** Gives every answer a request id, writes a log line for every call, and runs the tasks of `afterAnswer`. */
const frame = createMiddleware<AppEnv>(async (c, next) => {
  const request_id = crypto.randomUUID();
  const tasks: (() => Promise<unknown>)[] = [];
  c.set('request_id', request_id);
  c.set('afterAnswer', (task) => tasks.push(task));
  c.set('outcome', 'ok');
  c.set('headers', standardHeaders(request_id));

  await next();

  const call = readCall(c);
  logRequest({
    request_id,
    method: c.req.method,
    route: routePath(c, -1),
    organization_id: call?.organization_id,
    key_id: call?.caller.key_id,
    status: c.res.status,
    outcome: c.get('outcome'),
    replayed: call?.told.replayed || undefined,
  });
  if (tasks.length > 0) c.executionCtx.waitUntil(runAfterAnswer(tasks, request_id));
});

/**
 * The edge compresses what it may transform, and makes a strong ETag a weak one by that. If-Match never matches a weak
 * one.
 */
const keepStrongTags = createMiddleware<AppEnv>((c, next) => {
  c.get('headers')['Cache-Control'] = 'no-store, no-transform';
  return next();
});

/** Undefined as long as the caller is not known, and for `/health`. */
const readCall = (c: Context<AppEnv>): ApiCall | undefined => c.get('call');

const api = newRoutes();

export const app = api
  .use(frame)
  .use('/api/*', keepStrongTags)
  .use(
    methodNotAllowed({
      app: api,
      onMethodNotAllowed: (c, methods) => {
        const isOptions = c.req.path.startsWith('/api/') && answersPreflights(c);
        const allowed_methods = isOptions ? [...methods, 'OPTIONS'] : methods;
        return refuse(c, new DomainError('method_not_allowed', { allowed_methods }));
      },
    }),
  )
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
  // A 404 must not show whether the id belongs to another organization, and a bookmark could: it reveals writes.
  const call = readCall(c);
  if (call) call.told.bookmark = null;
  // Who has no valid key is told nothing of an organization, not even if the key was valid when the call began.
  if (status === 401) delete c.get('headers')['RateLimit-Policy'];
  if (status >= 500) logError(error.code, error.cause, { request_id });
  return answer(c, status, body, headers);
}
