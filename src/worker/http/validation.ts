/**
 * Middleware that turns what a client sent into validated arguments, or into a clear problem. Each tells what it
 * `validates`: the OpenAPI document is made from that.
 *
 * A schema of many members is a `z.lazy`: it is made by the first call that needs it, not by a fresh isolate's start.
 */
import type { MiddlewareHandler } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import * as z from 'zod';
import type { AppEnv } from '../env.ts';
import { DomainError } from '../core/errors.ts';

const MAX_BODY_BYTES = 64 * 1024;

const limitBody = bodyLimit({
  maxSize: MAX_BODY_BYTES,
  onError: () => {
    throw new DomainError('payload_too_large', {});
  },
});

/** What the typed client must name, unless all of it is optional. */
type Named<Target extends string, Input> = object extends Input ? { [T in Target]?: Input } : { [T in Target]: Input };

type Validated<Target extends 'json' | 'param' | 'query', Schema extends z.ZodType> = MiddlewareHandler<
  AppEnv,
  string,
  { in: Named<Target, z.input<Schema>>; out: { [T in Target]: z.output<Schema> } }
>;

/**
 * A JSON body of at most 64 KiB, as `c.req.valid('json')`.
 *
 * @throws DomainError `unsupported_media_type`, `payload_too_large`, `malformed_json`, `validation_failed`
 */
export function jsonBody<Schema extends z.ZodType<object>>(schema: Schema) {
  const middleware: Validated<'json', Schema> = (c, next) => {
    const [mediaType = ''] = (c.req.header('Content-Type') ?? '').split(';');
    if (mediaType.trim().toLowerCase() !== 'application/json') throw new DomainError('unsupported_media_type', {});
    return limitBody(c, async () => {
      c.req.addValidatedData('json', parse(schema, parseJson(await c.req.arrayBuffer())));
      await next();
    });
  };
  return Object.assign(middleware, { validates: { body: schema } });
}

/**
 * The path's parameters, as `c.req.valid('param')`.
 *
 * @throws DomainError `validation_failed`
 */
export function pathParameters<Schema extends z.ZodType<object>>(schema: Schema) {
  const middleware: Validated<'param', Schema> = async (c, next) => {
    c.req.addValidatedData('param', parse(schema, c.req.param()));
    await next();
  };
  return Object.assign(middleware, { validates: { path: schema } });
}

/**
 * The query string, as `c.req.valid('query')`. A parameter may be given once.
 *
 * @throws DomainError `validation_failed`
 */
export function queryParameters<Schema extends z.ZodType<object>>(schema: Schema) {
  const middleware: Validated<'query', Schema> = async (c, next) => {
    const [, query = ''] = c.req.url.split(/\?(.*)/s);
    const given = Map.groupBy(new URLSearchParams(query), ([name]) => name);
    const values = [...given].map(([name, pairs]) => {
      const [value, ...others] = pairs.map(([, text]) => text);
      return [name, others.length > 0 ? [value, ...others] : value];
    });
    c.req.addValidatedData('query', parse(schema, Object.fromEntries(values), 'query parameter'));
    await next();
  };
  return Object.assign(middleware, { validates: { query: schema } });
}

/** What the typed client need not name. */
type Unnamed = MiddlewareHandler<AppEnv> & { validates: { query: z.ZodType } };

/** Of a call that has no query parameters. */
export const noQueryParameters: Unnamed = queryParameters(z.strictObject({}));

/** Of a call that makes or changes something. */
export const changeParameters: Unnamed = queryParameters(
  z.strictObject({
    verify: z.enum(['true', 'false']).exactOptional().meta({ description: 'Accepted, and without effect yet.' }),
  }),
);

/** JSON is UTF-8 (RFC 8259 §8.1); bytes that are not would reach the vault as other characters than were meant. */
function parseJson(bytes: ArrayBuffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes));
  } catch {
    // The parser's own message quotes the body.
    throw new DomainError('malformed_json', {});
  }
}

/**
 * @param member what a member of the value is to its sender
 * @throws DomainError `validation_failed`
 */
export function parse<Schema extends z.ZodType>(schema: Schema, value: unknown, member = 'member'): z.output<Schema> {
  const { success, data, error } = schema.safeParse(value, { error: clearMessage(member) });
  if (success) return data;
  const errors = error.issues.map(({ path, message }) => ({ path: path.join('.'), message }));
  throw new DomainError('validation_failed', { errors });
}

/** Where Zod's own message is unclear, or quotes the client. */
const clearMessage =
  (member: string): z.core.$ZodErrorMap =>
  ({ code, input }) => {
    if (code === 'unrecognized_keys') return `has a ${member} that does not belong here`;
    return input === undefined ? 'is required' : undefined;
  };
