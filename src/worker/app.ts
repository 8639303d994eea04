import type { Context } from 'hono';
import { createMiddleware } from 'hono/factory';
import { methodNotAllowed } from 'hono/method-not-allowed';
import { routePath } from 'hono/route';
import { operatorApiKeyRoutes } from './api-keys/operator-routes.ts';
import { apiKeyRoutes, whoamiRoutes } from './api-keys/routes.ts';
import { auditRoutes, operatorAuditRoutes } from './audit/routes.ts';
import { runAfterAnswer } from './core/after-answer.ts';
import { DomainError } from './core/errors.ts';
import type { ProblemCode } from './core/errors.ts';
import { logError, logRequest } from './core/log.ts';
import type { ApiCall, OperatorCall } from './decision/call.ts';
import { answer, standardHeaders } from './http/answer.ts';
import type { AppEnv } from './http/app-env.ts';
import { authenticate, authenticateOperator, errorFor, requireOrganization } from './http/authenticate.ts';
import { allowOrigins, answersPreflights } from './http/cors.ts';
import { healthRoutes } from './http/health.ts';
import { newRoutes } from './http/new-routes.ts';
import { requireOperatorApi } from './http/operator-api.ts';
import { problemAnswer } from './http/problem.ts';
import { limitOperator, limitOrganization } from './http/rate-limit.ts';
import { refuseGrowth } from './http/refuse-growth.ts';
import { integrationRoutes } from './integrations/routes.ts';
import { organizationRoutes } from './organizations/routes.ts';
import { operatorPhoneNumberRoutes, phoneNumberRoutes } from './phone-numbers/routes.ts';
import { webhookRoutes } from './webhooks/routes.ts';

/** Gives every answer a request id, writes a log line for every call, and runs the tasks of `afterAnswer`. */
const frame = createMiddleware<AppEnv>(async (c, next) => {
  const request_id = crypto.randomUUID();
  const tasks: (() => Promise<unknown>)[] = [];
  c.set('request_id', request_id);
  c.set('afterAnswer', (task) => tasks.push(task));
  c.set('outcome', 'ok');
  c.set('headers', standardHeaders(request_id));
  c.set('told', { replayed: false, bookmark: null, exhausted: null });

  await next();

  const call = readCall(c);
  logRequest({
    request_id,
    method: c.req.method,
    route: routePath(c, -1),
    organization_id: call?.key.holder?.organization_id,
    key_id: call?.key.holder?.key_id,
    operator_key_id: readOperatorCall(c)?.key.holder?.operator_key_id,
    status: c.res.status,
    outcome: c.get('outcome'),
    replayed: c.get('told').replayed || undefined,
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

/** Undefined for a call without a well-formed key, and for what is not under `/api`. */
const readCall = (c: Context<AppEnv>): ApiCall | undefined => c.get('call');

/** The same, of what is under `/operator`. */
const readOperatorCall = (c: Context<AppEnv>): OperatorCall | undefined => c.get('operatorCall');

const api = newRoutes();

export const app = api
  .use(frame)
  .use('/operator/*', requireOperatorApi)
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
  .route('/api/whoami', whoamiRoutes)
  .route('/api/integrations', integrationRoutes)
  .route('/api/phone-numbers', phoneNumberRoutes)
  .route('/api/api-keys', apiKeyRoutes)
  .route('/api/audit-events', auditRoutes)
  .route('/api/webhook-endpoints', webhookRoutes)
  .get('/operator/openapi.json', (c) => c.env.ASSETS.fetch(c.req.raw))
  .use('/operator/*', authenticateOperator, limitOperator, refuseGrowth)
  .route('/operator/organizations', organizationRoutes)
  .route('/operator/organizations/:organization_id/api-keys', operatorApiKeyRoutes)
  .route('/operator/phone-numbers', operatorPhoneNumberRoutes)
  .route('/operator/audit-events', operatorAuditRoutes);

app.notFound(async (c) => refuse(c, await errorFor(c, new DomainError('not_found', {}))));

/** Of these D1 has been asked already, or cannot be. */
const failures: ProblemCode[] = ['temporarily_unavailable', 'internal_error'];

app.onError(async (error, c) => {
  const told = error instanceof DomainError ? error : new DomainError('internal_error', {}, { cause: error });
  return refuse(c, failures.includes(told.code) ? told : await errorFor(c, told));
});

function refuse(c: Context<AppEnv>, error: DomainError): Response {
  const request_id = c.get('request_id');
  const { status, headers, body } = problemAnswer(error, request_id);
  c.set('outcome', error.code);
  // A 404 must not show whether the id belongs to another organization, and a bookmark could: it reveals writes.
  c.get('told').bookmark = null;
  // Who has no valid key is told nothing of an organization, not even if the key was valid when the call began.
  if (status === 401) delete c.get('headers')['RateLimit-Policy'];
  if (status >= 500) logError(error.code, error.cause, { request_id });
  return answer(c, status, body, headers);
}
