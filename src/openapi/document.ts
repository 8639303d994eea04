/**
 * The OpenAPI 3.1 document, made from the routes of the app, the schemas that validate requests, and the descriptions
 * in this folder.
 */
import * as z from 'zod';
import { app } from '../worker/app.ts';
import { DomainError } from '../worker/core/errors.ts';
import type { ProblemCode } from '../worker/core/errors.ts';
import type { Noun } from '../worker/core/parse.ts';
import { rolesHolding } from '../worker/core/permissions.ts';
import { roles } from '../worker/core/vocabulary.ts';
import { BOOKMARK_HEADER, bookmarkFormat } from '../worker/http/bookmark.ts';
import { beginsRoute } from '../worker/http/route.ts';
import type { RouteDescription } from '../worker/http/route.ts';
import { validate } from '../worker/http/validation.ts';
import { VERSION } from '../worker/version.ts';
import { apiKeyOperations } from './api-keys.ts';
import { auditOperations } from './audit-events.ts';
import { integrationOperations } from './integrations.ts';
import type { OperationDescription, Operations } from './operation.ts';
import { phoneNumberOperations } from './phone-numbers.ts';
import { describeProblem } from './problems.ts';

const operations: Operations = {
  ...integrationOperations,
  ...phoneNumberOperations,
  ...apiKeyOperations,
  ...auditOperations,
};

const tags = [
  { name: 'Integrations', description: 'Accounts at telephony providers, with their credentials.' },
  { name: 'Phone numbers', description: 'Numbers imported through an integration, or by SIP.' },
  { name: 'API keys', description: 'The keys of an organization.' },
  { name: 'Audit', description: 'Who did what, and what was refused.' },
  { name: 'Service', description: 'Whether the service works.' },
];

const description = `
An edge API for the credentials of telephony providers. An *integration* holds an account's credentials; phone numbers are
imported through it. An integration is deleted with its credentials, and never while a phone number still uses it.

- Every call carries \`X-API-Key\` and \`X-Organization-Id\`. The organization is called \`client_id\` in answers.
- Success is \`{"success": true, …}\`; an error is \`application/problem+json\` (RFC 9457) with a sentence in \`detail\` and a
  stable \`code\`.
- If several errors apply, the first of these is returned: 401, 429, 400 for the organization header, 403 for the
  organization, 403 for the permission, then errors of the path, the query string and the body, then 404, then 409.
- Cursors of lists are opaque. The id of another organization's object is a 404, like an id that does not exist.
- Every answer of a call below has an \`X-Request-Id\`. Errors and audit events show it as \`request_id\`.
- A \`POST\`, \`PUT\` or \`DELETE\` with an \`Idempotency-Key\` acts once: for 24 hours, the same request with the same key gets
  the first answer again, with \`Idempotency-Replayed: true\`. Refused requests changed nothing and are not remembered: send
  them again with the same key. If a request kills the key that sent it, repeating it returns 401. Rotate your own key with
  an overlap.
- A query parameter that a call does not know, or that is given twice, is a 422.
- An organization has quotas. When one is reached, creating and changing is refused with 409 \`quota_exceeded\`; deleting and
  revoking always work.
- A \`GET\` may be answered by a replica of the database that is a little behind. To see your own writes, send the
  \`X-D1-Bookmark\` of your newest answer: the result is then at least as new.
- \`outcome\` of a 503 is \`not_done\` (nothing was done) or \`unknown\` (the request was done completely, or not at all).
- A method that is not listed for a path below is a 405 with \`Allow\`. An unknown path under \`/api\` is a 404.
`.trim();

const everywhere: ProblemCode[] = [
  'missing_api_key',
  'invalid_api_key',
  'missing_organization_id',
  'invalid_organization_id',
  'organization_mismatch',
  'rate_limited',
  'temporarily_unavailable',
  'internal_error',
];
const ofBodies: ProblemCode[] = ['malformed_json', 'payload_too_large', 'unsupported_media_type'];

const headers = {
  'X-Request-Id': {
    description: 'Identifies the call, also in our log.',
    required: true,
    schema: { type: 'string', format: 'uuid' },
  },
  'Cache-Control': { description: 'Nothing is cached.', required: true, schema: { type: 'string', const: 'no-store' } },
  'RateLimit-Policy': {
    description:
      'The organization’s limits that this call counts against: `q` requests in `w` seconds. Absent if the caller is unknown.',
    schema: { type: 'string' },
    example: '"pro";q=500;w=10, "pro_mutations";q=100;w=10',
  },
  'Idempotency-Replayed': {
    description: 'The request was answered before, and this is the same answer.',
    schema: { type: 'string', const: 'true' },
  },
  [BOOKMARK_HEADER]: {
    description: 'The state of the organization’s database that this answer is from.',
    schema: { type: 'string', pattern: bookmarkFormat.source },
  },
  RateLimit: {
    description: 'On a 429 alone: the limit that was reached. `r`, the requests that remain, is 0.',
    schema: { type: 'string' },
    example: '"pro";r=0',
  },
  'Accept-Encoding': {
    description: 'On a 415 because of `Content-Encoding`: the only coding that is accepted.',
    schema: { type: 'string' },
    example: 'identity',
  },
  'Retry-After': {
    description: 'How many seconds to wait.',
    required: true,
    schema: { type: 'integer', minimum: 1 },
  },
  'WWW-Authenticate': {
    description: 'The challenge that RFC 9110 requires with a 401.',
    required: true,
    schema: { type: 'string' },
  },
};

const bookmark = {
  name: BOOKMARK_HEADER,
  in: 'header',
  required: false,
  description:
    'The `X-D1-Bookmark` of an earlier answer to the same organization. This answer is then at least as new.',
  schema: { type: 'string', pattern: bookmarkFormat.source },
};

const idempotencyKey = {
  name: 'Idempotency-Key',
  in: 'header',
  required: false,
  description: 'A new random key for each request. Send the same key when you repeat a request whose answer was lost.',
  schema: { type: 'string', pattern: '^[\\x20-\\x7e]{1,255}$' },
};

const healthSchema = z.object({
  status: z.enum(['ok', 'unavailable']),
  version: z.string(),
  database: z.enum(['ok', 'unavailable']).meta({ description: 'Whether D1 answers, remembered for 5 seconds.' }),
  credentials: z
    .enum(['ok', 'unavailable'])
    .meta({ description: 'Whether the key-encryption keys are usable, remembered for 5 seconds.' }),
});

type JsonObject = Record<string, unknown>;

type Route = RouteDescription & { method: string; path: string };

/** The routes under `/api`, in the app's order. */
function routesOfApp(): Route[] {
  return app.routes.flatMap(({ method, path, handler }) =>
    beginsRoute(handler) ? [{ method, path: path.replaceAll(/:(\w+)/g, '{$1}'), ...handler.route }] : [],
  );
}

/** The named schemas and responses, which other parts of the document refer to. */
class Components {
  readonly schemas: JsonObject = {};
  readonly responses: JsonObject = {};

  /**
   * A schema as JSON Schema, of the input before defaults and transformations. Schemas with an id become components.
   */
  schema(schema: z.ZodType): JsonObject {
    const text = JSON.stringify(z.toJSONSchema(z.object({ schema }), { io: 'input' }));
    const { $defs, properties } = wrapped.parse(JSON.parse(text.replaceAll('#/$defs/', '#/components/schemas/')));
    Object.assign(this.schemas, $defs);
    return properties.schema;
  }

  /** The response for problems of one status: a component, unless the operation has examples of its own. */
  problems(codes: ProblemCode[], always: string[], own: Examples): JsonObject {
    const problems = codes.map((code) => describeProblem(code));
    const alternatives = problems.map(({ schema }) => this.schema(schema));
    const response = {
      description: problems.map(({ title, example }) => `${title}: \`${String(example['code'])}\`.`).join(' '),
      headers: refersToHeaders([...always, ...problems.flatMap((problem) => problem.headers)]),
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
    const name = [...codes, ...always.filter((header) => header === 'Idempotency-Replayed')].join('-');
    this.responses[name] ??= response;
    return { $ref: `#/components/responses/${name}` };
  }

  /** The responses for these problems, by status. */
  problemsByStatus(codes: ProblemCode[], always: string[], own: Examples = {}): JsonObject {
    const byStatus = Map.groupBy(codes, (code) => describeProblem(code).status);
    return Object.fromEntries([...byStatus].map(([status, those]) => [status, this.problems(those, always, own)]));
  }
}

type NamedExample = readonly [name: string, example: { value: JsonObject }];

/** Examples that fit only one operation, by code. */
type Examples = { [Code in ProblemCode]?: NamedExample[] };

/** Examples for one route: its permission is missing, or its own schemas refuse the input. */
function examplesOf({ permission, validates }: Route): Examples {
  const denied = describeProblem('permission_denied', { required_permission: permission }).example;
  const wrong = { path: { ...wrongIds }, query: { page_size: '0' }, body: {} };
  const refusals = (['path', 'query', 'body'] as const).flatMap((place) => {
    const schema = validates[place];
    return schema
      ? [[place, { value: refusalOf(schema, wrong[place], place === 'query' ? 'parameter' : 'field') }] as const]
      : [];
  });
  return { permission_denied: [['permission_denied', { value: denied }]], validation_failed: refusals };
}

const wrongIds = { integration_id: 'intg_1', phone_number_id: 'phon_1', key_id: 'apikey_1' };

function refusalOf(schema: z.ZodType, value: unknown, noun: Noun): JsonObject {
  try {
    validate(schema, value, noun);
  } catch (error) {
    if (error instanceof DomainError) return describeProblem('validation_failed', error.members).example;
  }
  throw new Error('The schema refuses nothing.');
}

const jsonObject = z.record(z.string(), z.unknown());
const wrapped = z.object({ $defs: jsonObject.default({}), properties: z.object({ schema: jsonObject }) });
const parameterSchemas = z.object({
  properties: z.record(z.string(), z.looseObject({ description: z.string().optional() })),
  required: z.array(z.string()).default([]),
});

const refersToHeaders = (names: string[]) =>
  Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]));

function parameters(components: Components, place: 'path' | 'query', schema: z.ZodType | undefined): JsonObject[] {
  if (!schema) return [];
  const { properties, required } = parameterSchemas.parse(components.schema(schema));
  return Object.entries(properties).map(([name, { description: text, ...rest }]) => ({
    name,
    in: place,
    required: required.includes(name),
    ...(text === undefined ? {} : { description: text }),
    schema: rest,
  }));
}

function operation(components: Components, route: Route, described: OperationDescription): JsonObject {
  const { permission, validates, kind } = route;
  const { operationId, tag, summary, bodies = {}, answer, problems = [] } = described;
  const codes: ProblemCode[] = [
    ...everywhere,
    ...(rolesHolding[permission].length < roles.length ? (['permission_denied'] as const) : []),
    ...(validates.body ? ofBodies : []),
    ...(Object.values(validates).some((schema) => schema !== undefined) ? (['validation_failed'] as const) : []),
    ...(kind === 'mutates' ? (['idempotency_key_reused'] as const) : []),
    ...problems,
  ];
  const always = ['X-Request-Id', 'Cache-Control', 'RateLimit-Policy'];
  const withReplay = kind === 'mutates' ? [...always, 'Idempotency-Replayed'] : always;
  const asked = [
    ...parameters(components, 'path', validates.path),
    ...parameters(components, 'query', validates.query),
    kind === 'mutates' ? idempotencyKey : bookmark,
  ];
  return {
    operationId,
    tags: [tag],
    summary,
    description: [described.description, `Permission \`${permission}\`: ${rolesHolding[permission].join(', ')}.`]
      .filter((part) => part !== undefined)
      .join('\n\n'),
    parameters: asked,
    ...(validates.body
      ? {
          requestBody: {
            required: true,
            description: 'At most 64 KiB.',
            content: {
              'application/json': {
                schema: components.schema(validates.body),
                examples: Object.fromEntries(Object.entries(bodies).map(([name, value]) => [name, { value }])),
              },
            },
          },
        }
      : {}),
    responses: {
      [answer.status]: {
        description: answer.status === 201 ? 'Created.' : 'Done.',
        headers: refersToHeaders([...withReplay, BOOKMARK_HEADER]),
        content: { 'application/json': { schema: components.schema(answer.schema), example: answer.example } },
      },
      ...components.problemsByStatus(codes, withReplay, examplesOf(route)),
    },
  };
}

function health(components: Components): JsonObject {
  const answer = (status: string, text: string) => ({
    description: text,
    headers: refersToHeaders(['X-Request-Id', 'Cache-Control']),
    content: {
      'application/json': {
        schema: components.schema(healthSchema),
        example: { status, version: VERSION, database: status, credentials: 'ok' },
      },
    },
  });
  return {
    operationId: 'getHealth',
    tags: ['Service'],
    summary: 'Get the health of the service',
    security: [],
    responses: {
      200: answer('ok', 'Healthy.'),
      503: answer('unavailable', 'D1 does not answer, or the key-encryption keys are not usable.'),
      ...components.problemsByStatus(['rate_limited', 'internal_error'], ['X-Request-Id', 'Cache-Control']),
    },
  };
}

/** @throws Error if a route has no description, or a description has no route */
export function openApiDocument(): JsonObject {
  const components = new Components();
  const paths: Record<string, JsonObject> = {};
  const left = new Map(Object.entries(operations));
  for (const route of routesOfApp()) {
    const name = `${route.method} ${route.path}`;
    const described = left.get(name);
    if (!described) throw new Error(`${name} has no description`);
    left.delete(name);
    (paths[route.path] ??= {})[route.method.toLowerCase()] = operation(components, route, described);
  }
  if (left.size > 0) throw new Error(`There is no route ${[...left.keys()].join(', ')}`);
  paths['/health'] = { get: health(components) };
  return {
    openapi: '3.1.0',
    info: {
      title: 'Patchbay',
      version: VERSION,
      description,
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/', description: 'This deployment.' }],
    tags,
    security: [{ ApiKey: [], OrganizationId: [] }],
    paths,
    components: {
      securitySchemes: {
        ApiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key', description: 'The raw key, `bk_live_…`.' },
        OrganizationId: {
          type: 'apiKey',
          in: 'header',
          name: 'X-Organization-Id',
          description:
            'The organization of the key, `org_` and 1–40 of `[A-Za-z0-9_-]`. It is no secret, but required.',
        },
      },
      headers,
      responses: components.responses,
      schemas: components.schemas,
    },
  };
}
