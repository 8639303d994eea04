/**
 * What in an OpenAPI document breaks clients that were written for an earlier one: a request that was accepted may be
 * refused, or an answer lacks something or has another form. New calls, statuses and problem codes break nothing, nor do
 * new fields of answers and new optional fields of requests.
 */
import * as z from 'zod';

type JsonObject = Record<string, unknown>;

/** What clients send may only become freer, and what they are sent may only become narrower. */
type Direction = 'request' | 'answer';

const jsonObject = z.record(z.string(), z.unknown());
const objectOf = (value: unknown): JsonObject => jsonObject.safeParse(value).data ?? {};
const listOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);
const lacks = (list: unknown[], others: unknown[]) => others.filter((value) => !list.includes(value));

/** @returns a sentence for each breaking change */
export function breakingChanges(before: unknown, after: unknown): string[] {
  const [old, now] = [callsOf(before), callsOf(after)];
  return [...old].flatMap(([call, operation]) => {
    const same = now.get(call);
    return same ? operationChanges(operation, same).map((change) => `${call}: ${change}`) : [`${call}: is gone`];
  });
}

function callsOf(document: unknown): Map<string, JsonObject> {
  const { paths, security } = resolved(document);
  return new Map(
    Object.entries(objectOf(paths)).flatMap(([path, item]) =>
      Object.entries(objectOf(item)).map(
        ([method, operation]) => [`${method.toUpperCase()} ${path}`, { security, ...objectOf(operation) }] as const,
      ),
    ),
  );
}

/** The document with every reference replaced by what it refers to. */
function resolved(document: unknown): JsonObject {
  const components = objectOf(objectOf(document)['components']);
  const resolve = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(resolve);
    if (typeof value !== 'object' || value === null) return value;
    const { $ref, ...rest } = objectOf(value);
    if (typeof $ref !== 'string') return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v)]));
    const [kind = '', name = ''] = $ref.replace('#/components/', '').split('/');
    return resolve({ ...objectOf(objectOf(components[kind])[name]), ...rest });
  };
  return objectOf(resolve(document));
}

function operationChanges(before: JsonObject, after: JsonObject): string[] {
  const [old, now] = [parametersOf(before), parametersOf(after)];
  const names = new Set([...old.keys(), ...now.keys()]);
  const isSecuredAlike = JSON.stringify(before['security']) === JSON.stringify(after['security']);
  return [
    ...(isSecuredAlike ? [] : ['security is another']),
    ...[...names].flatMap((name) => parameterChanges(name, old.get(name), now.get(name))),
    ...bodyChanges(before['requestBody'], after['requestBody'], 'request', 'the body'),
    ...Object.entries(objectOf(before['responses'])).flatMap(([status, response]) => {
      const same = objectOf(after['responses'])[status];
      if (same === undefined) return [`${status} is gone`];
      return [...headerChanges(status, response, same), ...bodyChanges(response, same, 'answer', status)];
    }),
  ];
}

const parametersOf = ({ parameters }: JsonObject) =>
  new Map(
    listOf(parameters)
      .map(objectOf)
      .map((parameter) => [`${String(parameter['in'])} parameter ${String(parameter['name'])}`, parameter]),
  );

function parameterChanges(name: string, before: JsonObject | undefined, after: JsonObject | undefined): string[] {
  if (!after) return [`${name} is gone`];
  const isNowRequired = after['required'] === true && before?.['required'] !== true;
  return [
    ...(isNowRequired ? [`${name} is required now`] : []),
    ...(before ? schemaChanges(before['schema'], after['schema'], 'request', name) : []),
  ];
}

function headerChanges(status: string, before: unknown, after: unknown): string[] {
  const now = objectOf(objectOf(after)['headers']);
  return Object.entries(objectOf(objectOf(before)['headers'])).flatMap(([name, header]) => {
    const wasCertain = objectOf(header)['required'] === true;
    return wasCertain && objectOf(now[name])['required'] !== true ? [`${status} may lack the header ${name} now`] : [];
  });
}

function bodyChanges(before: unknown, after: unknown, direction: Direction, place: string): string[] {
  const now = objectOf(objectOf(after)['content']);
  const isNowRequired = objectOf(after)['required'] === true && objectOf(before)['required'] !== true;
  return [
    ...(isNowRequired ? [`${place} is required now`] : []),
    ...Object.entries(objectOf(objectOf(before)['content'])).flatMap(([mediaType, content]) => {
      const same = now[mediaType];
      if (same === undefined) return [`${place} as ${mediaType} is gone`];
      return schemaChanges(objectOf(content)['schema'], objectOf(same)['schema'], direction, place);
    }),
  ];
}

function schemaChanges(before: unknown, after: unknown, direction: Direction, place: string): string[] {
  const [old, now] = [alternativesOf(before), alternativesOf(after)];
  if (old.length === 1 && now.length === 1) return objectChanges(objectOf(old[0]), objectOf(now[0]), direction, place);
  // In an answer, too, only the old alternatives are looked for: a new problem code breaks nothing.
  return old.flatMap((alternative) => {
    const attempts = now.map((other) => objectChanges(objectOf(alternative), objectOf(other), direction, place));
    const { title } = titled.parse(alternative);
    const isKept = attempts.some((changes) => changes.length === 0);
    return isKept ? [] : [`${place} “${title}” is gone or changed`];
  });
}

const titled = z.object({ title: z.string().default('an alternative') });

function alternativesOf(schema: unknown): unknown[] {
  const { oneOf, anyOf } = objectOf(schema);
  return [...listOf(oneOf), ...listOf(anyOf)].length > 0 ? [...listOf(oneOf), ...listOf(anyOf)] : [schema];
}

/** Limits by what makes them stricter: a higher or a lower number. */
const limits = {
  higher: ['minLength', 'minimum', 'minItems', 'minProperties'],
  lower: ['maxLength', 'maximum', 'maxItems', 'maxProperties'],
};

function objectChanges(before: JsonObject, after: JsonObject, direction: Direction, place: string): string[] {
  const inside = (name: string) => `${place}, ${name}`;
  const [old, now] = [objectOf(before['properties']), objectOf(after['properties'])];
  const common = Object.keys(old).filter((name) => name in now);
  return [
    ...valueChanges(before, after, direction, place),
    ...(direction === 'request'
      ? [
          ...stricterLimits(before, after).map((limit) => `${place} has a stricter ${limit}`),
          ...lacks(listOf(before['required']), listOf(after['required'])).map(
            (name) => `${inside(String(name))} is required now`,
          ),
          ...(after['additionalProperties'] === false
            ? lacks(Object.keys(now), Object.keys(old)).map((name) => `${inside(String(name))} is refused now`)
            : []),
        ]
      : lacks(listOf(after['required']), listOf(before['required'])).map(
          (name) => `${inside(String(name))} may be absent now`,
        )),
    ...common.flatMap((name) => schemaChanges(old[name], now[name], direction, inside(name))),
    ...('items' in before ? schemaChanges(before['items'], after['items'], direction, inside('each')) : []),
  ];
}

/** Types and fixed values. Without an enumeration, any value is possible. */
function valueChanges(before: JsonObject, after: JsonObject, direction: Direction, place: string): string[] {
  const [wider, narrower] = direction === 'request' ? [after, before] : [before, after];
  const types = lacks(typesOf(wider), typesOf(narrower));
  const [allowed, possible] = [valuesOf(wider), valuesOf(narrower)];
  const values = allowed ? (possible ? lacks(allowed, possible) : ['any value']) : [];
  const what = direction === 'request' ? 'is refused now' : 'is possible now';
  return [...types, ...values].map((value) => `${place} ${String(value)} ${what}`);
}

const typesOf = ({ type }: JsonObject): unknown[] => [type].flat();

function valuesOf(schema: JsonObject): unknown[] | undefined {
  if ('const' in schema) return [schema['const']];
  return 'enum' in schema ? listOf(schema['enum']) : undefined;
}

function stricterLimits(before: JsonObject, after: JsonObject): string[] {
  const number = (schema: JsonObject, name: string, otherwise: number) => Number(schema[name] ?? otherwise);
  return [
    ...limits.higher.filter((name) => number(after, name, 0) > number(before, name, 0)),
    ...limits.lower.filter((name) => number(after, name, Infinity) < number(before, name, Infinity)),
    ...['pattern', 'format'].filter((name) => after[name] !== undefined && after[name] !== before[name]),
  ];
}
