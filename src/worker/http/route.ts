/**
 * Every route under `/api` begins with {@link reads} or {@link mutates}, and every one under `/operator` with
 * {@link operatorReads} or {@link operatorMutates}. So no route can forget its permission, the validation of its input, or
 * the header of its kind of call.
 */
import type { Context, MiddlewareHandler } from 'hono';
import * as z from 'zod/mini';
import { DomainError } from '../core/errors.ts';
import { holds } from '../core/permissions.ts';
import type { OperatorPermission, Permission } from '../core/permissions.ts';
import { assertGranted } from '../decision/operator.ts';
import type { AppEnv, DemandedPermission } from './app-env.ts';
import { readBookmark } from './bookmark.ts';
import { readIfMatch, readIfNoneMatch } from './entity-tags.ts';
import { readIdempotencyKey } from './idempotency-key.ts';
import { readOperatorKey } from './operator-api.ts';
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

interface Described {
  kind: 'reads' | 'mutates';
  validates: InputSchemas;
  conditional: boolean;
}

/** Describes a route. The OpenAPI documents are made from it, and a test checks that every route has one. */
export type RouteDescription = Described & DemandedPermission;

/** Whether a handler of the app is the middleware that begins a route. */
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
  permission: Permission | null,
  given: Given,
  { conditional = false }: Options = {},
): RouteMiddleware<Given> {
  const validates = { query: noQueryParameters, ...given };
  return route({ by: 'api_key', kind: 'reads', permission, validates, conditional }, (c) => {
    if (conditional) c.set('known', readIfNoneMatch(c));
    const bookmark = readBookmark(c);
    if (bookmark !== undefined) c.set('call', { ...c.get('call'), bookmark });
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
  const validates = { query: given.body ? changeParameters : noQueryParameters, ...given };
  return route({ by: 'api_key', kind: 'mutates', permission, validates, conditional }, async (c, validated) => {
    const idempotency = await readIdempotencyKey(c, validated, () => c.req.header('X-API-Key'));
    if (idempotency) c.set('call', { ...c.get('call'), idempotency });
    const if_match = conditional ? readIfMatch(c) : undefined;
    if (if_match) c.set('call', { ...c.get('call'), if_match });
  });
}

/** As {@link reads}, for operators. */
export function operatorReads<const Given extends Omit<InputSchemas, 'body'>>(
  permission: OperatorPermission,
  given: Given,
): RouteMiddleware<Given> {
  const validates = { query: noQueryParameters, ...given };
  return route({ by: 'operator', kind: 'reads', permission, validates, conditional: false }, (c) => {
    const bookmark = readBookmark(c);
    if (bookmark !== undefined) c.set('operatorCall', { ...c.get('operatorCall'), bookmark });
  });
}

/** As {@link mutates}, for operators. */
export function operatorMutates<const Given extends InputSchemas>(
  permission: OperatorPermission,
  given: Given,
): RouteMiddleware<Given> {
  const validates = { query: noQueryParameters, ...given };
  return route({ by: 'operator', kind: 'mutates', permission, validates, conditional: false }, async (c, validated) => {
    const idempotency = await readIdempotencyKey(c, validated, () => readOperatorKey(c));
    if (idempotency) c.set('operatorCall', { ...c.get('operatorCall'), idempotency });
  });
}

/** What a client has sent. */
type Validated = Partial<Record<'query' | 'json', object>>;

function route<Given extends InputSchemas>(
  description: RouteDescription,
  readHeaders: (c: Context<AppEnv>, validated: Validated) => void | Promise<void>,
): RouteMiddleware<Given> {
  const { validates } = description;
  const middleware: MiddlewareHandler<AppEnv> = async (c, next) => {
    c.set('demanded', description);
    assertPermitted(c);
    const validated: Validated = {};
    if (validates.path) c.req.addValidatedData('param', validate(validates.path, c.req.param()));
    if (validates.query) c.req.addValidatedData('query', (validated.query = readQuery(validates.query, c.req.url)));
    if (validates.body) c.req.addValidatedData('json', (validated.json = await readBody(validates.body, c)));
    await readHeaders(c, validated);
    await next();
  };
  return Object.assign(middleware, { route: description });
}

/**
 * Checks the permission that the route demands, as soon as both it and the caller are known.
 *
 * @throws DomainError `permission_denied`, `operator_permission_denied`
 */
export function assertPermitted(c: Context<AppEnv>): void {
  const demanded = c.get('demanded');
  if (demanded?.by === 'operator') {
    const { holder } = c.get('operatorCall').key;
    if (holder) assertGranted(holder, demanded.permission);
  } else if (demanded && demanded.permission !== null) {
    const { permission } = demanded;
    const { holder } = c.get('call').key;
    if (holder && !holds(holder.role, permission)) {
      throw new DomainError('permission_denied', { required_permission: permission });
    }
  }
}
