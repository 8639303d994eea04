import type { Context } from 'hono';
import { cors } from 'hono/cors';
import { createMiddleware } from 'hono/factory';
import { REASSIGNED_HEADER, REMOVED_HEADER } from './answer.ts';
import type { AppEnv } from './app-env.ts';
import { BOOKMARK_HEADER } from './bookmark.ts';

const PREFLIGHT_MAX_AGE_SECONDS = 600;

/**
 * Middleware that lets pages of the origins in `CORS_ORIGINS` call the API. By default there are none, and browsers
 * refuse such calls, because API keys do not belong in web pages. Internal tools are the exception.
 */
export const allowOrigins = createMiddleware<AppEnv>((c, next) => {
  if (!answersPreflights(c)) return next();
  const origins = givenIn(c.env)
    .split(',')
    .map((origin) => origin.trim());
  // Hono answers a preflight itself, with the headers that have been set so far.
  if (c.req.method === 'OPTIONS') for (const [name, value] of Object.entries(c.get('headers'))) c.header(name, value);
  return cors({
    origin: origins.includes('*') ? '*' : origins,
    allowMethods: ['GET', 'POST', 'PUT', 'DELETE'],
    allowHeaders: [
      'Content-Type',
      'Idempotency-Key',
      'If-Match',
      'If-None-Match',
      'X-API-Key',
      BOOKMARK_HEADER,
      'X-Organization-Id',
    ],
    exposeHeaders: [
      'Accept-Encoding',
      'Allow',
      'ETag',
      'Idempotency-Replayed',
      'RateLimit',
      'RateLimit-Policy',
      'Retry-After',
      BOOKMARK_HEADER,
      REASSIGNED_HEADER,
      REMOVED_HEADER,
      'X-Request-Id',
    ],
    maxAge: PREFLIGHT_MAX_AGE_SECONDS,
  })(c, next);
});

/** Where pages may call, Hono answers to `OPTIONS` at every path. */
export const answersPreflights = ({ env }: Context<AppEnv>): boolean => /[^\s,]/.test(givenIn(env));

/** A deployment may leave the variable out, although its type does not say so. */
const givenIn = ({ CORS_ORIGINS = '' }: { CORS_ORIGINS?: string }): string => CORS_ORIGINS;
