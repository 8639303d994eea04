/** The requests of the OpenAPI document: the tables of the tests go through every field and parameter by themselves. */
import * as z from 'zod';
import document from '../public/openapi.json';

const jsonObject = z.record(z.string(), z.unknown());

const served = z
  .object({
    paths: z.record(z.string(), z.record(z.string(), jsonObject)),
    components: z.object({ schemas: z.record(z.string(), jsonObject) }),
  })
  .parse(document);

const operation = z.object({
  parameters: z
    .array(z.looseObject({ name: z.string().optional(), in: z.string().optional(), schema: jsonObject.optional() }))
    .default([]),
  requestBody: z.object({ content: z.object({ 'application/json': z.object({ schema: jsonObject }) }) }).optional(),
});

/** A field of a body or a parameter of a query string. */
export interface Member {
  path: string;
  schema: Record<string, unknown>;
  isRequired: boolean;
}

/** Every field of the schema, through its references and alternatives, by its dotted path. */
function fieldsOf(schema: Record<string, unknown>, at: string[] = []): Member[] {
  const { $ref, oneOf, properties, required } = schema;
  if (typeof $ref === 'string') return fieldsOf(served.components.schemas[$ref.replace(/.*\//, '')] ?? {}, at);
  const alternatives = z.array(jsonObject).default([]).parse(oneOf);
  const names = z.array(z.string()).default([]).parse(required);
  return [
    ...alternatives.flatMap((alternative) => fieldsOf(alternative, at)),
    ...Object.entries(z.record(z.string(), jsonObject).default({}).parse(properties)).flatMap(([name, member]) => [
      { path: [...at, name].join('.'), schema: member, isRequired: names.includes(name) },
      ...fieldsOf(member, [...at, name]),
    ]),
  ];
}

/** Every operation, with the members of its query string and its body. */
export const requests = Object.entries(served.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, described]) => {
    const { parameters, requestBody } = operation.parse(described);
    return {
      method: method.toUpperCase(),
      path,
      query: parameters.flatMap<Member>(({ name, in: place, schema }) =>
        place === 'query' && name !== undefined ? [{ path: name, schema: schema ?? {}, isRequired: false }] : [],
      ),
      fields: requestBody ? fieldsOf(requestBody.content['application/json'].schema) : [],
    };
  }),
);
