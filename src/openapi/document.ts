/**
 * The OpenAPI 3.1 documents, one of the API and one of the operators' part of it, made from the routes of the app, the
 * schemas that validate requests, and the descriptions in this folder.
 */
import * as z from 'zod';
import { app } from '../worker/app.ts';
import { DomainError } from '../worker/core/errors.ts';
import type { ProblemCode } from '../worker/core/errors.ts';
import type { Noun } from '../worker/core/parse.ts';
import { rolesHolding } from '../worker/core/permissions.ts';
import { roles } from '../worker/core/vocabulary.ts';
import { beginsRoute } from '../worker/http/route.ts';
import type { ObjectSchema, RouteDescription } from '../worker/http/route.ts';
import { validate } from '../worker/http/validation.ts';
import { VERSION } from '../worker/version.ts';
import { apiKeyOperations } from './api-keys.ts';
import { auditOperations } from './audit-events.ts';
import { always, headers, headersOfProblem, headersOfSuccess, parameters, refersToHeaders } from './headers.ts';
import { integrationOperations } from './integrations.ts';
import { changed, discriminated, jsonObject, named, referTo, Schemas } from './json-schema.ts';
import type { JsonObject } from './json-schema.ts';
import type { OperationDescription, Operations } from './operation.ts';
import { operatorOperations } from './operators.ts';
import { phoneNumberOperations } from './phone-numbers.ts';
import { describeProblem, pascalCase } from './problems.ts';
import { webhooks } from './webhook-messages.ts';
import { webhookOperations } from './webhooks.ts';

const operations: Operations = {
  ...integrationOperations,
  ...phoneNumberOperations,
  ...apiKeyOperations,
  ...auditOperations,
  ...webhookOperations,
};

const tags = [
  { name: 'Integrations', description: 'Accounts at telephony providers, with their credentials.' },
  { name: 'Phone numbers', description: 'Numbers imported through an integration, or by SIP.' },
  { name: 'API keys', description: 'The keys of an organization.' },
  { name: 'Audit', description: 'Who did what, and what was refused.' },
  { name: 'Webhook endpoints', description: 'Where events are sent as they happen.' },
  { name: 'Service', description: 'Whether the service works.' },
];

const operatorsTags = [
  { name: 'Organizations', description: 'The customers of the deployment.' },
  { name: 'API keys', description: 'The keys of an organization.' },
  { name: 'Phone numbers', description: 'Who has a number, in the whole system.' },
  { name: 'Audit', description: 'Who did what.' },
];

const description = `
An edge API for the credentials of telephony providers. An *integration* holds an account's credentials; phone numbers are
imported through it. An integration is deleted with its credentials, and never while a phone number still uses it.

- Every call carries \`X-API-Key\` and \`X-Organization-Id\`. The organization is called \`client_id\` in answers.
- Success is \`{"success": true, …}\`; an error is \`application/problem+json\` (RFC 9457) with a sentence in \`detail\` and a
  stable \`code\`.
- If several errors apply, the first of these is returned: 401, 429, 400 for the organization header, 403 for the
  organization, 403 for the permission, then errors of the path, the query string, the body and other headers, then 404,
  then 412, then 409.
- Cursors of lists are opaque. The id of another organization's object is a 404, like an id that does not exist.
- Every answer of a call below has an \`X-Request-Id\`. Errors and audit events show it as \`request_id\`.
- A \`POST\`, \`PUT\` or \`DELETE\` with an \`Idempotency-Key\` acts once: for 24 hours, the same request with the same key gets
  the first answer again, with \`Idempotency-Replayed: true\`. Refused requests changed nothing and are not remembered: send
  them again with the same key. If a request kills the key that sent it, repeating it returns 401. Rotate your own key with
  an overlap.
- A query parameter that a call does not know, or that is given twice, is a 422.
- The answers of one integration or phone number have an \`ETag\`. With it as \`If-None-Match\`, a \`GET\` of the same state is a
  304 without a body. With it as \`If-Match\`, a \`PUT\` or \`DELETE\` of what has been changed meanwhile is a 412
  \`precondition_failed\`. A check of the credentials by the service fails no \`If-Match\`.
- An organization has quotas. When one is reached, creating and changing is refused with 409 \`quota_exceeded\`; deleting and
  revoking always work.
- A \`GET\` may be answered by a replica of the database that is a little behind. To see your own writes, send the
  \`X-D1-Bookmark\` of your newest answer: the result is then at least as new.
- \`outcome\` of a 503 is \`not_done\` (nothing was done) or \`unknown\` (the request was done completely, or not at all).
- A method that is not listed for a path below is a 405 with \`Allow\`. An unknown path under \`/api\` is a 404.
`.trim();

const operatorsDescription = `
What the operator of a Patchbay deployment may do with its organizations. A deployment answers 404 to all of it unless its
variable \`OPERATOR_API\` is \`on\`.

- Every call carries \`Authorization: Bearer bk_operator_…\`. \`npm run operators:create\` makes such a key; it has permissions
  by name, and ends after at most 90 days. API keys of organizations are refused here, and operator keys under \`/api\`.
- Success is \`{"success": true, …}\`; an error is \`application/problem+json\` (RFC 9457) with a sentence in \`detail\` and a
  stable \`code\`.
- If several errors apply, the first of these is returned: 401, 429, 403 for the permission, then errors of the path, the
  query string, the body and other headers, then 404, then 409.
- A \`POST\`, \`PUT\` or \`DELETE\` with an \`Idempotency-Key\` acts once: for 24 hours, the same request with the same key gets
  the first answer again, with \`Idempotency-Replayed: true\`, but without raw keys: mint another. Refused requests changed
  nothing and are not remembered.
- What an operator does with an organization is in that organization’s audit events, with the id and the name of the operator
  key.
- A \`GET\` may be answered by a replica of the database that is a little behind. To see your own writes, send the
  \`X-D1-Bookmark\` of your newest answer: the result is then at least as new.
- \`outcome\` of a 503 is \`not_done\` (nothing was done) or \`unknown\` (the request was done completely, or not at all).
`.trim();

type By = RouteDescription['by'];

/** The problems of every call. */
const everywhere: Record<By, ProblemCode[]> = {
  api_key: [
    'missing_api_key',
    'invalid_api_key',
    'missing_organization_id',
    'invalid_organization_id',
    'organization_mismatch',
    'rate_limited',
    'temporarily_unavailable',
    'internal_error',
  ],
  operator: [
    'missing_operator_key',
    'invalid_operator_key',
    'rate_limited',
    'operator_permission_denied',
    'temporarily_unavailable',
    'internal_error',
  ],
};
const ofBodies: ProblemCode[] = ['malformed_json', 'payload_too_large', 'unsupported_media_type'];

const healthSchema = named(
  'Health',
  z.object({
    status: z.enum(['ok', 'unavailable']),
    version: z.string(),
    database: z.enum(['ok', 'unavailable']).meta({ description: 'Whether D1 answers, remembered for 5 seconds.' }),
    credentials: z
      .enum(['ok', 'unavailable'])
      .meta({ description: 'Whether the key-encryption keys are usable, remembered for 5 seconds.' }),
  }),
);

type Route = RouteDescription & { method: string; path: string };

/** The routes for these callers, in the app's order. */
function routesBy(by: By): Route[] {
  return app.routes.flatMap(({ method, path, handler }) =>
    beginsRoute(handler) && handler.route.by === by
      ? [{ method, path: path.replaceAll(/:(\w+)/g, '{$1}'), ...handler.route }]
      : [],
  );
}

/** What other parts of the document refer to by name. */
class Components extends Schemas {
  readonly responses: JsonObject = {};

  /** The response for problems of one status: a component, unless the operation has examples of its own. */
  problems(codes: ProblemCode[], names: string[], own: Examples): JsonObject {
    const problems = codes.map((code) => describeProblem(code));
    const alternatives = problems.map(({ schema }) => this.add(schema));
    const response = {
      description: problems.map(({ title, example }) => `${title}: \`${String(example['code'])}\`.`).join(' '),
      headers: refersToHeaders([...names, ...problems.flatMap((problem) => problem.headers)]),
      content: {
        'application/problem+json': {
          schema: alternatives.length === 1 ? alternatives[0] : { oneOf: alternatives },
          examples: Object.fromEntries(
            problems.flatMap(({ code, example }) => own[code] ?? [[code, { value: example }] as const]),
          ),
        },
      },
    };
    if (codes.some((code) => own[code])) return response;
    const name = codes.map(pascalCase).join('Or');
    this.responses[name] ??= response;
    return referTo('responses', name);
  }

  /** The responses for these problems, by status. */
  problemsByStatus(codes: ProblemCode[], own: Examples): JsonObject {
    const byStatus = Map.groupBy(codes, (code) => describeProblem(code).status);
    return Object.fromEntries(
      [...byStatus].map(([status, those]) => [status, this.problems(those, headersOfProblem(status), own)]),
    );
  }
}

type NamedExample = readonly [name: string, example: { value: JsonObject }];

/** Examples that fit only one operation, by code. */
type Examples = { [Code in ProblemCode]?: NamedExample[] };

/** Examples for one route: its permission is missing, or its own schemas refuse the input. */
function examplesOf(route: Route, { refused = {} }: { refused?: object } = {}): Examples {
  const wrong = { path: { ...wrongIds }, query: { page_size: '0' }, body: refused };
  const refusals = (['path', 'query', 'body'] as const).flatMap((place) => {
    const schema = route.validates[place];
    return schema
      ? [[place, { value: refusalOf(schema, wrong[place], place === 'query' ? 'parameter' : 'field') }] as const]
      : [];
  });
  return { ...deniedExample(route), validation_failed: refusals };
}

const wrongIds = {
  integration_id: 'intg_1',
  phone_number_id: 'phon_1',
  key_id: 'apikey_1',
  endpoint_id: 'whep_1',
  delivery_id: 'whdel_1',
  organization_id: 'acme',
};

function deniedExample(route: Route): Examples {
  if (route.by === 'operator') {
    const { example } = describeProblem('operator_permission_denied', { required_permission: route.permission });
    return { operator_permission_denied: [['operator_permission_denied', { value: example }]] };
  }
  if (route.permission === null) return {};
  const { example } = describeProblem('permission_denied', { required_permission: route.permission });
  return { permission_denied: [['permission_denied', { value: example }]] };
}

function refusalOf(schema: ObjectSchema, value: unknown, noun: Noun): JsonObject {
  try {
    validate(schema, value, noun);
  } catch (error) {
    if (error instanceof DomainError) return describeProblem('validation_failed', error.members).example;
  }
  throw new Error('The schema refuses nothing.');
}

const alone =
  'Only one of `action`, `target_id`, `actor_key_id` can be used. It can be combined with `since` and `until`.';

/** Of query parameters, by name. */
const sentences: Record<string, string> = {
  cursor: 'The `next_cursor` of the previous page. Send it with the same filters and the same order.',
  order: 'With `desc`, the list begins at its end.',
  page_size: 'The largest number of entries on a page.',
  action: alone,
  target_id: alone,
  actor_key_id: alone,
  after:
    'For a reader that follows the list as it grows: the `next_cursor` of its last page, or nothing (`after=`) to begin with ' +
    'the oldest event. Every page then has a `next_cursor`, also the last one, and `total_count` counts the events of this ' +
    'page and those after it. It cannot be combined with `cursor` or `order=desc`.',
  since: 'Events at this time or later. A fraction of a second is ignored.',
  until: 'Events before this time. A fraction of a second is ignored.',
  descendants:
    'Whether to revoke also the active keys that it created, and those that they created. If one of them has a higher ' +
    'role than the calling key, nothing is revoked.',
  verify: 'Accepted, but has no effect here: nobody is asked.',
};

const parameterSchemas = z.object({
  properties: z.record(z.string(), z.looseObject({ description: z.string().optional() })),
  required: z.array(z.string()).default([]),
});

function parametersIn(components: Components, place: 'path' | 'query', schema: ObjectSchema | undefined): JsonObject[] {
  if (!schema) return [];
  const { properties, required } = parameterSchemas.parse(components.add(schema));
  return Object.entries(properties).map(([name, { description: text = sentences[name], ...rest }]) => ({
    name,
    in: place,
    required: required.includes(name),
    ...(text === undefined ? {} : { description: text }),
    schema: rest,
  }));
}

/** Whether some roles lack the permission. */
const isForSome = (route: Route) =>
  route.by === 'api_key' && route.permission !== null && rolesHolding[route.permission].length < roles.length;

function permissionSentence(route: Route): string | undefined {
  if (route.by === 'operator') return `Permission \`${route.permission}\`.`;
  return route.permission === null
    ? undefined
    : `Permission \`${route.permission}\`: ${rolesHolding[route.permission].join(', ')}.`;
}

/** A key that needs no permission can ask for its organization. */
const organizationParameter = ({ permission }: Route) =>
  permission === null ? { ...parameters.OrganizationId, required: false } : parameters.OrganizationId;

const statusDescriptions = { 200: 'Done.', 201: 'Created.', 202: 'Begun.' };

function operation(components: Components, route: Route, described: OperationDescription): JsonObject {
  const { by, validates, kind, conditional } = route;
  const { operationId, tag, summary, body, answer, headers: headersOfIts = [], problems = [] } = described;
  const codes: ProblemCode[] = [
    ...everywhere[by],
    ...(isForSome(route) ? (['permission_denied'] as const) : []),
    ...(validates.body ? ofBodies : []),
    ...(Object.values(validates).some((schema) => schema !== undefined) ? (['validation_failed'] as const) : []),
    ...(kind === 'mutates' ? (['idempotency_key_reused'] as const) : []),
    ...(kind === 'mutates' && conditional ? (['precondition_failed'] as const) : []),
    ...problems,
  ];
  const asked = [
    ...(by === 'api_key' ? [organizationParameter(route)] : []),
    ...parametersIn(components, 'path', validates.path),
    ...parametersIn(components, 'query', validates.query),
    kind === 'mutates' ? parameters.IdempotencyKey : parameters.Bookmark,
    ...(conditional ? [kind === 'mutates' ? parameters.IfMatch : parameters.IfNoneMatch] : []),
  ];
  const headersOfAnswer = refersToHeaders(headersOfSuccess(kind, headersOfIts));
  return {
    operationId,
    tags: [tag],
    summary,
    description: [described.description, permissionSentence(route)].filter((part) => part !== undefined).join('\n\n'),
    parameters: asked,
    ...(validates.body && body
      ? {
          requestBody: {
            required: true,
            description: 'At most 64 KiB.',
            content: {
              'application/json': {
                schema: components.add(named(body.name, validates.body)),
                examples: Object.fromEntries(Object.entries(body.examples).map(([name, value]) => [name, { value }])),
              },
            },
          },
        }
      : {}),
    responses: {
      [answer.status]: {
        description: statusDescriptions[answer.status],
        headers: headersOfAnswer,
        content: { 'application/json': contentOf(components, answer) },
      },
      ...(kind === 'reads' && conditional
        ? {
            304: {
              description: 'The state is the one that `If-None-Match` names. There is no body.',
              headers: headersOfAnswer,
            },
          }
        : {}),
      ...components.problemsByStatus(codes, examplesOf(route, body)),
    },
  };
}

function contentOf(components: Components, { schema, example, dryRun }: OperationDescription['answer']): JsonObject {
  if (!dryRun) return { schema: components.add(schema), example };
  return {
    schema: { oneOf: [components.add(schema), components.add(dryRun.schema)] },
    examples: { default: { value: example }, dry_run: { value: dryRun.example } },
  };
}

function health(components: Components): JsonObject {
  const answer = (status: string, text: string) => ({
    description: text,
    headers: refersToHeaders(always),
    content: {
      'application/json': {
        schema: components.add(healthSchema),
        example: { status, version: VERSION, database: status, credentials: 'ok' },
      },
    },
  });
  return {
    operationId: 'getHealth',
    tags: ['Service'],
    summary: 'Get the health of the service',
    description: 'For monitors: it needs no API key.',
    security: [],
    responses: {
      200: answer('ok', 'Healthy.'),
      503: answer('unavailable', 'D1 does not answer, or the key-encryption keys are not usable.'),
      ...components.problemsByStatus(['rate_limited', 'internal_error'], {}),
    },
  };
}

/** @throws Error if a route has no description, or a description has no route */
function pathsOf(components: Components, by: By, described: Operations): Record<string, JsonObject> {
  const paths: Record<string, JsonObject> = {};
  const left = new Map(Object.entries(described));
  for (const route of routesBy(by)) {
    const name = `${route.method} ${route.path}`;
    const found = left.get(name);
    if (!found) throw new Error(`${name} has no description`);
    left.delete(name);
    (paths[route.path] ??= {})[route.method.toLowerCase()] = operation(components, route, found);
  }
  if (left.size > 0) throw new Error(`There is no route ${[...left.keys()].join(', ')}`);
  return paths;
}

interface About {
  title: string;
  description: string;
  tags: object[];
  securitySchemes: Record<string, object>;
  /** What the service sends by itself. */
  webhooks?: JsonObject;
}

function documentOf(components: Components, paths: Record<string, JsonObject>, about: About): JsonObject {
  const { title, description: text, tags: tagsOfPaths, securitySchemes, webhooks: sent } = about;
  const references = JSON.stringify([paths, components.responses]);
  const usedHeaders = Object.fromEntries(
    Object.entries(headers).filter(([name]) => references.includes(`"#/components/headers/${name}"`)),
  );
  const document = {
    openapi: '3.1.0',
    info: {
      title,
      version: VERSION,
      description: text,
      contact: { name: 'Patchbay', url: 'https://github.com/patchbay/patchbay' },
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [
      { url: '/', description: 'This deployment.' },
      {
        url: 'http://127.0.0.1:{port}',
        description: 'The server that `npm run dev` starts. It prints its port.',
        // The schema of OpenAPI 3.1 that validators use does not know the description of a variable.
        variables: { port: { default: '8787' } },
      },
    ],
    tags: tagsOfPaths,
    security: Object.keys(securitySchemes).map((name) => ({ [name]: [] })),
    paths,
    ...(sent && { webhooks: sent }),
    components: {
      securitySchemes,
      headers: usedHeaders,
      responses: components.responses,
      schemas: components.components,
    },
  };
  return jsonObject.parse(changed(document, (object) => discriminated(object, components.components)));
}

/** The document of the API, for the clients of organizations. */
export function openApiDocument(): JsonObject {
  const components = new Components();
  const paths = pathsOf(components, 'api_key', operations);
  paths['/health'] = { get: health(components) };
  return documentOf(components, paths, {
    title: 'Patchbay',
    description,
    tags,
    securitySchemes: {
      ApiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key', description: 'The raw key, `bk_live_…`.' },
    },
    webhooks: webhooks(components),
  });
}

/** The document of what operators may do. */
export function operatorsDocument(): JsonObject {
  const components = new Components();
  return documentOf(components, pathsOf(components, 'operator', operatorOperations), {
    title: 'Patchbay for operators',
    description: operatorsDescription,
    tags: operatorsTags,
    securitySchemes: {
      OperatorKey: { type: 'http', scheme: 'bearer', description: 'The raw key, `bk_operator_…`.' },
    },
  });
}
