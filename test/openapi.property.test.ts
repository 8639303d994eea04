/** Requests made from the OpenAPI document, valid and invalid: none is answered with a 5xx, or as the document does not say. */
import { Validator } from '@cfworker/json-schema';
import * as fc from 'fast-check';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import document from '../public/openapi.json';
import { call, createIntegration, importNumber, newClient, unusedNumber } from './fixtures.ts';
import type { Client } from './fixtures.ts';
import { createEndpoint } from './webhooks/receivers.ts';

const REQUESTS_PER_OPERATION = 200;

/** What the document's request schemas are made of. */
interface JsonSchema {
  $ref?: string | undefined;
  type?: string | string[] | undefined;
  const?: unknown;
  enum?: unknown[] | undefined;
  pattern?: string | undefined;
  format?: string | undefined;
  minimum?: number | undefined;
  maximum?: number | undefined;
  minLength?: number | undefined;
  maxLength?: number | undefined;
  properties?: Record<string, JsonSchema> | undefined;
  required?: string[] | undefined;
  oneOf?: JsonSchema[] | undefined;
  items?: JsonSchema | undefined;
  minItems?: number | undefined;
  maxItems?: number | undefined;
  uniqueItems?: boolean | undefined;
}

const jsonSchema: z.ZodType<JsonSchema> = z.lazy(() =>
  z.looseObject({
    $ref: z.string().optional(),
    type: z.union([z.string(), z.array(z.string())]).optional(),
    enum: z.array(z.unknown()).optional(),
    pattern: z.string().optional(),
    format: z.string().optional(),
    minimum: z.number().optional(),
    maximum: z.number().optional(),
    minLength: z.number().optional(),
    maxLength: z.number().optional(),
    properties: z.record(z.string(), jsonSchema).optional(),
    required: z.array(z.string()).optional(),
    oneOf: z.array(jsonSchema).optional(),
    items: jsonSchema.optional(),
    minItems: z.number().optional(),
    maxItems: z.number().optional(),
    uniqueItems: z.boolean().optional(),
  }),
);

const parameter = z.object({ name: z.string(), in: z.enum(['path', 'query', 'header']), schema: jsonSchema });

const documented = z.object({
  paths: z.record(
    z.string(),
    z.record(
      z.string(),
      z.object({
        parameters: z.array(parameter).default([]),
        requestBody: z
          .object({ content: z.object({ 'application/json': z.object({ schema: jsonSchema }) }) })
          .optional(),
      }),
    ),
  ),
  components: z.object({ schemas: z.record(z.string(), jsonSchema) }),
});

const { paths, components } = documented.parse(document);

function component<Kind>(kind: Record<string, Kind>, reference: string): Kind {
  const found = kind[reference.replace(/^.*\//, '')];
  if (!found) throw new Error(`${reference} is missing`);
  return found;
}

const operations = Object.entries(paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, { parameters, requestBody }]) => {
    // Every request has its caller's organization.
    const own = parameters.filter(({ name }) => name !== 'X-Organization-Id');
    return {
      method: method.toUpperCase(),
      path,
      inPath: own.filter((one) => one.in === 'path'),
      inQuery: own.filter((one) => one.in === 'query'),
      inHeader: own.filter((one) => one.in === 'header'),
      bodySchema: requestBody?.content['application/json'].schema,
    };
  }),
);

const validators = new WeakMap<JsonSchema, Validator>();

function accepts(schema: JsonSchema, value: unknown): boolean {
  const validator =
    validators.get(schema) ??
    new Validator({ ...z.record(z.string(), z.unknown()).parse(schema), components }, '2020-12');
  validators.set(schema, validator);
  return validator.validate(value).valid;
}

/** Values that the schema accepts. */
function valid(schema: JsonSchema): fc.Arbitrary<unknown> {
  return proposed(schema).filter((value) => accepts(schema, value));
}

/** Values of the schema's form. */
function proposed(schema: JsonSchema): fc.Arbitrary<unknown> {
  if (schema.$ref !== undefined) return proposed(component(components.schemas, schema.$ref));
  const { properties, required = [] } = schema;
  if ('const' in schema) return fc.constant(schema.const);
  if (schema.enum) return fc.constantFrom(...schema.enum);
  if (properties) {
    const members = Object.fromEntries(Object.entries(properties).map(([name, member]) => [name, proposed(member)]));
    return fc.record(members, { requiredKeys: required });
  }
  if (schema.oneOf) return fc.oneof(...schema.oneOf.map(proposed));
  if (Array.isArray(schema.type)) return fc.oneof(...schema.type.map((type) => proposed({ ...schema, type })));
  if (schema.items) {
    const lengths = { minLength: schema.minItems ?? 0, maxLength: schema.maxItems ?? 100 };
    return schema.uniqueItems === true
      ? fc.uniqueArray(proposed(schema.items), { ...lengths, selector: (item) => JSON.stringify(item) })
      : fc.array(proposed(schema.items), lengths);
  }
  if (schema.type === 'integer') return fc.integer({ min: schema.minimum ?? 0, max: schema.maximum ?? 1000 });
  if (schema.type === 'boolean') return fc.boolean();
  if (schema.type === 'null') return fc.constant(null);
  if (schema.format === 'uri') return fc.webUrl();
  if (schema.format === 'date-time') {
    return fc
      .date({ min: new Date('0001-01-01'), max: new Date('9999-01-01'), noInvalidDate: true })
      .map((date) => date.toISOString());
  }
  if (schema.pattern !== undefined) return fc.stringMatching(new RegExp(schema.pattern));
  const { minLength = 0, maxLength = 1000 } = schema;
  return fc.string({ unit: 'grapheme', minLength, maxLength });
}

/** The paths of the text whose form the document does not tell: the API may refuse more than the document does. */
function freeText(schema: JsonSchema, path: string[] = []): string[] {
  if (schema.$ref !== undefined) return freeText(component(components.schemas, schema.$ref), path);
  const inner = Object.entries(schema.properties ?? {}).flatMap(([name, member]) => freeText(member, [...path, name]));
  const isFree = schema.minLength !== undefined && schema.pattern === undefined;
  return [...inner, ...(schema.oneOf ?? []).flatMap((one) => freeText(one, path)), ...(isFree ? [path.join('.')] : [])];
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The value with one member, at any depth, taken away, replaced or added. */
function spoilt(value: unknown): fc.Arbitrary<unknown> {
  if (!isObject(value)) return fc.jsonValue();
  const names = Object.keys(value);
  const added = fc.tuple(fc.string(), fc.jsonValue()).map(([name, member]) => ({ ...value, [name]: member }));
  if (names.length === 0) return fc.oneof(added, fc.jsonValue());
  const one = fc.constantFrom(...names);
  return fc.oneof(
    added,
    one.map((name) => Object.fromEntries(Object.entries(value).filter(([other]) => other !== name))),
    one.chain((name) => spoilt(value[name]).map((member) => ({ ...value, [name]: member }))),
    fc.jsonValue(),
  );
}

/** What a value of the query string is: all are text there, digits too. */
const queried = ({ type }: JsonSchema, value: unknown) =>
  type === 'integer' && /^\d+$/.test(String(value)) ? Number(value) : value;

interface Request {
  path: string;
  headers: Record<string, string>;
  body?: unknown;
  /** Whether the document accepts the request. */
  isValid: boolean;
}

let client: Client;
let ids: Record<string, string>;

beforeAll(async () => {
  vi.spyOn(console, 'info').mockImplementation(() => {});
  client = await newClient();
  const integration_id = await createIntegration(client);
  const phone_number_id = await importNumber(client, integration_id, unusedNumber());
  const { key_id } = await newClient({ organization_id: client.organization_id, role: 'user' });
  const { endpoint_id } = await createEndpoint(client);
  ids = { integration_id, phone_number_id, key_id, endpoint_id };
});

/** What a body says; null, which no operation takes, for bytes that are no JSON. */
function jsonOf(body: unknown): unknown {
  if (!(body instanceof Uint8Array)) return body;
  try {
    return JSON.parse(new TextDecoder().decode(body));
  } catch {
    return null;
  }
}

const segment = fc.string({ minLength: 1 }).filter((text) => !['.', '..'].includes(text));

/** What can be the value of a header as it arrives: HTTP takes the spaces around it away (RFC 9110). */
const fieldValue = fc.string({ unit: 'grapheme-ascii', maxLength: 300 }).map((text) => text.trim());

function request({ path, inPath, inQuery, inHeader, bodySchema }: (typeof operations)[number]): fc.Arbitrary<Request> {
  const places = fc.tuple(
    ...inPath.map(({ name, schema }) =>
      fc.oneof(
        { weight: 4, arbitrary: fc.constant(ids[name] ?? '') },
        { weight: 2, arbitrary: valid(schema) },
        { weight: 1, arbitrary: segment },
      ),
    ),
  );
  const asQueried = fc.oneof(
    fc.constantFrom('x', '__proto__', ...inQuery.map(({ name }) => name)),
    fc.string({ minLength: 1 }),
  );
  const query = fc.oneof(
    fc.record(Object.fromEntries(inQuery.map(({ name, schema }) => [name, valid(schema)])), { requiredKeys: [] }),
    fc.dictionary(asQueried, fc.string()),
  );
  const fields = fc
    .tuple(
      ...inHeader.map(({ name, schema }) =>
        fc
          .oneof(
            fc.constant(undefined),
            valid(schema).map((value) => String(value).trim()),
            fieldValue,
          )
          .map((value) => (value === undefined ? [] : [[name, value] as const])),
      ),
    )
    .map((entries) => Object.fromEntries(entries.flat()));
  const bodies = bodySchema
    ? fc.oneof(
        valid(bodySchema),
        valid(bodySchema).chain(spoilt),
        fc.string().map((text) => new TextEncoder().encode(text)),
      )
    : fc.constant(undefined);

  return fc.tuple(places, query, fields, bodies).map(([values, given, headers, body]) => {
    const concrete = inPath.reduce(
      (filled, { name }, index) => filled.replace(`{${name}}`, () => encodeURIComponent(String(values[index]))),
      path,
    );
    const search = new URLSearchParams(Object.entries(given).map(([name, value]) => [name, String(value)]));
    return {
      path: inQuery.length > 0 ? `${concrete}?${search.toString()}` : concrete,
      headers,
      body,
      isValid:
        inHeader.every(({ name, schema }) => headers[name] === undefined || accepts(schema, headers[name])) &&
        inPath.every(({ schema }, index) => accepts(schema, values[index])) &&
        (inQuery.length === 0 ||
          Object.entries(given).every(([asked, value]) =>
            inQuery.some(({ name, schema }) => name === asked && accepts(schema, queried(schema, value))),
          )) &&
        (bodySchema === undefined || accepts(bodySchema, jsonOf(body))),
    };
  });
}

const told = z.object({ errors: z.array(z.object({ path: z.string(), message: z.string() })).default([]) });

/** What the document cannot say: a cursor is one of ours, a number is a SIP number, two things belong together… */
const judgedOtherwise = [
  'cursor',
  'after',
  'since',
  'verify',
  'expires_at',
  'credentials.provider',
  'integration_id',
  'supports_outbound',
  'sip_transport',
  'inbound_pin',
  'media_encryption',
  ...operations.flatMap(({ bodySchema }) => (bodySchema ? freeText(bodySchema) : [])),
];
/** …or not. */
const excludesOthers = /^only one of .* may be given/;

/** What is wrong with an answer; that its status and body are documented is seen to by `call`. */
function fault(isValid: boolean, status: number, body: unknown): string | undefined {
  if (status >= 500) return `a request is answered with ${status}`;
  if (!isValid) return status < 400 ? 'what the document refuses is accepted' : undefined;
  if ([400, 413, 415].includes(status)) return `what the document accepts is answered with ${status}`;
  if (status !== 422) return undefined;
  const refused = told
    .parse(body)
    .errors.filter(({ path, message }) => !judgedOtherwise.includes(path) && !excludesOthers.test(message));
  return refused.length > 0 ? `what the document accepts is refused for its ${refused[0]?.path}` : undefined;
}

describe('requests from the OpenAPI document', () => {
  it('are at least 2,000', () => {
    expect(operations.length * REQUESTS_PER_OPERATION).toBeGreaterThanOrEqual(2000);
  });

  it.each(operations)('to $method $path are answered as documented, and the invalid refused', async (operation) => {
    await fc.assert(
      fc.asyncProperty(request(operation), async ({ path, headers, body, isValid }) => {
        const answer = await call(client, operation.method, path, { headers, body });

        expect(fault(isValid, answer.status, answer.body)).toBeUndefined();
      }),
      { numRuns: REQUESTS_PER_OPERATION },
    );
  });
});
