/** Holds answers to the OpenAPI document: every answer of every test passes through here, in the pool and over HTTP. */
import { Validator } from '@cfworker/json-schema';
import type { Schema } from '@cfworker/json-schema';
import * as z from 'zod';
import served from '../public/openapi.json';

const jsonObject = z.record(z.string(), z.unknown());

const response = z.object({
  headers: z.record(z.string(), z.object({ $ref: z.string() })),
  content: z.record(z.string(), z.object({ schema: jsonObject })),
});

const document = z
  .object({
    paths: z.record(
      z.string(),
      z.record(
        z.string(),
        z.object({ responses: z.record(z.string(), z.union([response, z.object({ $ref: z.string() })])) }),
      ),
    ),
    components: z.object({
      headers: z.record(z.string(), z.object({ required: z.boolean().default(false) })),
      responses: z.record(z.string(), response),
      schemas: z.record(z.string(), jsonObject),
    }),
  })
  .parse(served);

/** Every object closed: clients must bear members that are added, but these tests must not. */
const schemas = close(document.components.schemas);

function close(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(close);
  if (typeof value !== 'object' || value === null) return value;
  const closed = Object.fromEntries(Object.entries(value).map(([name, member]) => [name, close(member)]));
  return 'properties' in value ? { additionalProperties: false, ...closed } : closed;
}

const validators = new Map<string, Validator>();

function validate(name: string, schema: object, body: unknown): void {
  const validator =
    validators.get(name) ??
    new Validator(asSchema({ ...asSchema(close(schema)), components: { schemas } }), '2020-12', false);
  validators.set(name, validator);
  const { valid, errors } = validator.validate(body);
  if (valid) return;
  const reasons = errors.map(({ instanceLocation, error }) => `${instanceLocation}: ${error}`);
  throw new Error(`${name} is not as documented:\n${reasons.join('\n')}\n${JSON.stringify(body)}`);
}

const asSchema = (value: unknown): Schema => jsonObject.parse(value);

const paths = Object.entries(document.paths).map(([template, operations]) => ({
  template,
  operations,
  pattern: new RegExp(`^${template.replaceAll(/\{\w+\}/g, '[^/]+')}$`),
}));

/** What every problem has (RFC 9457, contract.md). */
const problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  code: z.string(),
  detail: z.string(),
  request_id: z.string(),
});

interface HttpAnswer {
  status: number;
  headers: Headers;
  body: unknown;
}

/**
 * Throws unless the document says that this call may be answered like this: its status, its media type, the headers that
 * are always there, and its body. What the document has no operation for answers a problem of a missing path or method, or
 * one that comes before that is known.
 */
export function assertDocumented(method: string, path: string, { status, headers, body }: HttpAnswer): void {
  const [pathname = ''] = path.split('?');
  const known = paths.find(({ pattern }) => pattern.test(pathname));
  const operation = known?.operations[method.toLowerCase()];
  const call = `${method} ${known?.template ?? pathname} ${status}`;
  const mediaType = headers.get('Content-Type') ?? '';

  if (!operation) {
    const { code } = problem.parse(body);
    const beforeRouting = [400, 401, 403, 429, 500, 503];
    if (![known ? 405 : 404, ...beforeRouting].includes(status)) throw new Error(`${call} is not documented`);
    if (code in document.components.schemas) validate(code, { $ref: `#/components/schemas/${code}` }, body);
    return;
  }

  const told = operation.responses[status];
  if (!told) throw new Error(`${call} is not documented`);
  const { content, headers: declared } = 'content' in told ? told : resolve(told.$ref);
  const schema = content[mediaType]?.schema;
  if (!schema) throw new Error(`${call} is documented as ${Object.keys(content).join()}, not as ${mediaType}`);
  for (const [name, { required }] of Object.entries(document.components.headers)) {
    const isDeclared = name in declared;
    if (isDeclared && required && !headers.has(name)) throw new Error(`${call} lacks ${name}`);
    if (!isDeclared && headers.has(name)) throw new Error(`${call} is documented without ${name}`);
  }
  validate(call, schema, body);
}

function resolve(reference: string): z.output<typeof response> {
  const found = document.components.responses[reference.replace('#/components/responses/', '')];
  if (!found) throw new Error(`${reference} is missing`);
  return found;
}
