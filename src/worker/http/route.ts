/**
 * Every route under `/api` begins with {@link reads} or {@link mutates}. So no route can forget its permission, the
 * validation of its input, or the header of its kind of call.
 */
import type { Context, MiddlewareHandler } from 'hono';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { holds } from '../core/permissions.ts';
import type { Permission } from '../core/permissions.ts';
import type { ApiCall } from '../decision/call.ts';
import type { AppEnv } from './app-env.ts';
import { readBookmark } from './bookmark.ts';
import { readIfMatch, readIfNoneMatch } from './entity-tags.ts';
import { readIdempotencyKey } from './idempotency-key.ts';
import { readBody, readQuery, validate } from './validation.ts';

export type ObjectSchema = z.ZodMiniType<object>;

/** The schemas of a call's input. Without a schema, no such input is accepted. */
interface InputSchemas {
  /** Parameters in the path. */
  path?: ObjectSchema;
  query?: ObjectSchema;
  /** A JSON body. */
  body?: ObjectSchema;
}

interface Options {
  /** Whether the call knows preconditions: `If-None-Match` if it reads, `If-Match` if it mutates. */
  conditional?: boolean;
}

/** Describes a route. The OpenAPI document is made from it, and a test checks that every route has one. */
export interface RouteDescription {
  kind: 'reads' | 'mutates';
  permission: Permission;
  validates: InputSchemas;
  conditional: boolean;
}

/** Whether a handler of the app is the middleware of {@link reads} or {@link mutates}. */
export const beginsRoute = (handler: object): handler is { route: RouteDescription } => 'route' in handler;

/** For the typed client: a kind of input must be given, unless all its fields are optional. */
type Named<Target extends string, Input> = object extends Input ? { [T in Target]?: Input } : { [T in Target]: Input };

type InputOf<Target extends string, Schema> = Schema extends z.ZodMiniType ? Named<Target, z.input<Schema>> : object;
type OutputOf<Target extends string, Schema> = Schema extends z.ZodMiniType
  ? { [T in Target]: z.output<Schema> }
  : object;

type RouteMiddleware<Given extends InputSchemas> = MiddlewareHandler<
  AppEnv,
  string,
  {
    in: InputOf<'param', Given['path']> & InputOf<'query', Given['query']> & InputOf<'json', Given['body']>;
    out: OutputOf<'param', Given['path']> & OutputOf<'query', Given['query']> & OutputOf<'json', Given['body']>;
  }
> & { route: RouteDescription };

const noQueryParameters = z.strictObject({});

/** Makes the query string of calls that may ask a provider before they act. */
export const verifyQuery = () =>
  z.lazy(() =>
    z.strictObject({
      verify: z.exactOptional(z.enum(['true', 'false'])),
    }),
  );

/** Whether the call wants the provider asked. */
export const verifies = ({ verify }: z.output<ReturnType<typeof verifyQuery>>) => verify !== 'false';

/** Of calls that ask nobody. */
const changeParameters = verifyQuery();

/**
 * Middleware of a route that reads. It requires the permission, validates the input, and reads `X-D1-Bookmark`
 * and perhaps `If-None-Match`.
 *
 * @throws DomainError `permission_denied`, `validation_failed`
 */
export function reads<const Given extends Omit<InputSchemas, 'body'>>(
  permission: Permission,
  given: Given,
  { conditional = false }: Options = {},
): RouteMiddleware<Given> {
  return route({ kind: 'reads', permission, validates: { query: noQueryParameters, ...given }, conditional }, (c) => {
    if (conditional) c.set('known', readIfNoneMatch(c));
    const bookmark = readBookmark(c);
    return bookmark === undefined ? {} : { bookmark };
  });
}

/**
 * Middleware of a route that mutates. It requires the permission, validates the input, and reads `Idempotency-Key`
 * and perhaps `If-Match`.
 *
 * @throws DomainError `permission_denied`, `unsupported_media_type`, `payload_too_large`, `malformed_json`,
 *   `validation_failed`
 */
export function mutates<const Given extends InputSchemas>(
  permission: Permission,
  given: Given,
  { conditional = false }: Options = {},
): RouteMiddleware<Given> {
  const query = given.body ? changeParameters : noQueryParameters;
  return route({ kind: 'mutates', permission, validates: { query, ...given }, conditional }, async (c, validated) => {
    const idempotency = await readIdempotencyKey(c, { query: validated.query, body: validated.json });
    const if_match = conditional ? readIfMatch(c) : undefined;
    return { ...(idempotency && { idempotency }), ...(if_match && { if_match }) };
  });
}

interface Validated {
  query?: object;
  json?: object;
}

function route<Given extends InputSchemas>(
  description: RouteDescription,
  readHeader: (c: Context<AppEnv>, validated: Validated) => Partial<ApiCall> | Promise<Partial<ApiCall>>,
): RouteMiddleware<Given> {
  const { permission, validates } = description;
  const middleware: MiddlewareHandler<AppEnv> = async (c, next) => {
    const call = c.get('call');
    if (!holds(call.caller.role, permission)) {
      throw new DomainError('permission_denied', { required_permission: permission });
    }
    const validated: Validated = {};
    if (validates.path) c.req.addValidatedData('param', validate(validates.path, c.req.param()));
    if (validates.query) c.req.addValidatedData('query', (validated.query = readQuery(validates.query, c.req.url)));
    if (validates.body) c.req.addValidatedData('json', (validated.json = await readBody(validates.body, c)));
    const read = await readHeader(c, validated);
    c.set('call', { ...call, ...read });
    await next();
  };
  return Object.assign(middleware, { route: description });
}
