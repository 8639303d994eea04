/** Holds answers to the OpenAPI documents: every answer of every test passes through here, in the pool and over HTTP. */
import { Validator } from '@cfworker/json-schema';
import type { Schema } from '@cfworker/json-schema';
import * as z from 'zod';
import served from '../public/openapi.json';
import servedToOperators from '../public/operator/openapi.json';
import { standardHeaders } from '../src/worker/http/answer.ts';

const jsonObject = z.record(z.string(), z.unknown());

const response = z.object({
  headers: z.record(z.string(), z.object({ $ref: z.string() })),
  content: z.record(z.string(), z.object({ schema: jsonObject })).optional(),
});

const openApi = z.object({
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
});

type Document = z.output<typeof openApi>;

/** Headers that no answer of one call has more than another: security, CORS, and HTTP's own. */
const everywhere = ({ components }: Document) =>
  new Set(
    [
      ...Object.keys(standardHeaders('')).filter((name) => !(name in components.headers)),
      'Access-Control-Allow-Origin',
      'Access-Control-Expose-Headers',
      'Connection',
      'Content-Encoding',
      'Content-Length',
      'Content-Type',
      'Date',
      'Keep-Alive',
      'Transfer-Encoding',
      'Vary',
    ].map((name) => name.toLowerCase()),
  );

/** Every object closed: clients must bear members that are added, but these tests must not. */
function close(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(close);
  if (typeof value !== 'object' || value === null) return value;
  const closed = Object.fromEntries(Object.entries(value).map(([name, member]) => [name, close(member)]));
  return 'properties' in value ? { additionalProperties: false, ...closed } : closed;
}

const asSchema = (value: unknown): Schema => jsonObject.parse(value);

/** What every problem has (RFC 9457, contract.md). */
const problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  code: z.string(),
  detail: z.string(),
  request_id: z.string(),
});

const schemaOfProblem = z.object({ properties: z.object({ code: z.object({ const: z.string() }) }) });

/** What Zod itself says of input. Our messages are for those who do not know it. */
const wordsOfZod =
  /Invalid (?:input|option|string|number|key|value|discriminator|element|union)|expected \w+, received|Too (?:small|big):|Unrecognized keys?:/;

interface HttpAnswer {
  status: number;
  headers: Headers;
  body: unknown;
}

/** Makes the function that throws unless a document says that a call may be answered like this. */
function holder(json: unknown) {
  const document = openApi.parse(json);
  const schemas = close(document.components.schemas);
  const always = everywhere(document);
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

  const paths = Object.entries(document.paths).map(([template, operations]) => ({
    template,
    operations,
    pattern: new RegExp(`^${template.replaceAll(/\{\w+\}/g, '[^/]+')}$`),
  }));

  /** The names of the problems' schemas, by code. */
  const problemNames = new Map(
    Object.entries(document.components.schemas).flatMap(([name, schema]) => {
      const { data } = schemaOfProblem.safeParse(schema);
      return data ? [[data.properties.code.const, name] as const] : [];
    }),
  );

  /**
   * Throws unless the document says that this call may be answered like this: its status, its media type, the headers that
   * are always there, and its body. What the document has no operation for answers a problem of a missing path or method, or
   * one that comes before that is known. No error is in the words of a library.
   */
  function assertHeld(method: string, path: string, { status, headers, body }: HttpAnswer): void {
    const [pathname = ''] = path.split('?');
    const known = paths.find(({ pattern }) => pattern.test(pathname));
    const operation = known?.operations[method.toLowerCase()];
    const call = `${method} ${known?.template ?? pathname} ${status}`;
    const mediaType = headers.get('Content-Type') ?? '';
    const [words] = wordsOfZod.exec(status < 400 ? '' : JSON.stringify(body)) ?? [];
    if (words !== undefined) throw new Error(`${call} has the words of Zod: ${words}`);

    if (!operation) {
      const { code } = problem.parse(body);
      const beforeRouting = [400, 401, 403, 429, 500, 503];
      if (![known ? 405 : 404, ...beforeRouting].includes(status)) throw new Error(`${call} is not documented`);
      const name = problemNames.get(code);
      if (name !== undefined) validate(code, { $ref: `#/components/schemas/${name}` }, body);
      return;
    }

    const told = operation.responses[status];
    if (!told) throw new Error(`${call} is not documented`);
    const { content, headers: declared } = 'headers' in told ? told : resolve(told.$ref);
    assertHeadersDocumented(call, declared, headers);
    if (!content) {
      if (body !== undefined || mediaType !== '') throw new Error(`${call} is documented without a body`);
      return;
    }
    const schema = content[mediaType]?.schema;
    if (!schema) throw new Error(`${call} is documented as ${Object.keys(content).join()}, not as ${mediaType}`);
    validate(call, schema, body);
  }

  function assertHeadersDocumented(
    call: string,
    declared: z.output<typeof response>['headers'],
    headers: Headers,
  ): void {
    const documented = new Set(Object.keys(declared).map((name) => name.toLowerCase()));
    for (const [name, { $ref }] of Object.entries(declared)) {
      const header = document.components.headers[$ref.replace('#/components/headers/', '')];
      if (!header) throw new Error(`${$ref} is missing`);
      if (header.required && !headers.has(name)) throw new Error(`${call} lacks ${name}`);
    }
    for (const name of headers.keys()) {
      if (!documented.has(name) && !always.has(name)) throw new Error(`${call} is documented without ${name}`);
    }
  }

  function resolve(reference: string): z.output<typeof response> {
    const found = document.components.responses[reference.replace('#/components/responses/', '')];
    if (!found) throw new Error(`${reference} is missing`);
    return found;
  }

  return assertHeld;
}

const holdToApi = holder(served);
const holdToOperators = holder(servedToOperators);

/** As `holder` says, by the document that the path belongs to. */
export function assertDocumented(method: string, path: string, answer: HttpAnswer): void {
  (path.startsWith('/operator/') ? holdToOperators : holdToApi)(method, path, answer);
}
