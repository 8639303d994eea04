/** Makes JSON Schema out of Zod's schemas, in forms that the common tools read. */
import * as z from 'zod';

export type JsonObject = Record<string, unknown>;

export const jsonObject = z.record(z.string(), z.unknown());

/** A reference to a component: `schemas` `Integration`. */
export const referTo = (kind: 'schemas' | 'responses' | 'headers', name: string) => ({
  $ref: `#/components/${kind}/${name}`,
});

/** Gives the schema a name, under which it becomes a component. */
export function named<Schema extends z.core.$ZodType>(id: string, schema: Schema, title?: string): Schema {
  z.globalRegistry.add(schema, { ...z.globalRegistry.get(schema), id, ...(title !== undefined && { title }) });
  return schema;
}

/** Describes fields of an object's schema, in the document alone: the Worker does not need the sentences. */
export function described(schema: z.core.$ZodLazy<z.core.$ZodObject>, sentences: Record<string, string>): void {
  // oxlint-disable-next-line no-underscore-dangle -- the Worker's schemas have no methods for this
  const { shape } = schema._zod.innerType._zod.def;
  for (const [name, description] of Object.entries(sentences)) {
    const field = shape[name];
    if (!field) throw new Error(`There is no field ${name}`);
    z.globalRegistry.add(field, { ...z.globalRegistry.get(field), description });
  }
}

interface Alternative {
  /** The name of its component. */
  id: string;
  title: string;
  /** The fields that it has, and that some others do not have. */
  required: string[];
}

/** Splits an object's schema into a union of objects, each with the fields of one alternative. */
export function separated(schema: z.core.$ZodType, alternatives: Alternative[]): void {
  z.globalRegistry.add(schema, { ...z.globalRegistry.get(schema), alternatives });
}

/** @throws Error if the schema has no name */
export function nameOf(schema: z.core.$ZodType): string {
  const id = z.globalRegistry.get(schema)?.id;
  if (id === undefined) throw new Error('The schema has no name');
  return id;
}

const converted = z.object({
  $defs: z.record(z.string(), jsonObject).default({}),
  properties: z.object({ schema: jsonObject }),
});

/** The schemas that are components: all that have a name. */
export class Schemas {
  readonly components: Record<string, JsonObject> = {};

  /** A schema as JSON Schema, of the input before defaults and transformations. */
  add(schema: z.core.$ZodType): JsonObject {
    const text = JSON.stringify(z.toJSONSchema(z.object({ schema }), { io: 'input' })).replaceAll(
      '#/$defs/',
      '#/components/schemas/',
    );
    const { $defs, properties } = converted.parse(
      changed(JSON.parse(text), (object) => flatUnion(this.#separate(withoutAbsent(nullableType(object))))),
    );
    for (const [name, component] of Object.entries($defs)) this.components[name] = withoutDefaults(component);
    return properties.schema;
  }

  /**
   * An object with `alternatives` becomes a union of objects, each with the fields of one alternative. Few tools
   * understand conditions on an object's fields.
   */
  #separate(schema: JsonObject): JsonObject {
    const { success, data } = withAlternatives.safeParse(schema);
    if (!success) return schema;
    const { alternatives, properties, required, ...rest } = data;
    const special = new Set(alternatives.flatMap((alternative) => alternative.required));
    const oneOf = alternatives.map(({ id, title, required: own }) => {
      const fields = Object.entries(properties).flatMap(([name, member]) => {
        if (own.includes(name)) return [[name, withoutNull(member)] as const];
        return special.has(name) ? [] : [[name, member] as const];
      });
      this.components[id] = withoutDefaults({
        title,
        ...rest,
        properties: Object.fromEntries(fields),
        required: [...required, ...own],
      });
      return referTo('schemas', id);
    });
    return { oneOf };
  }
}

const withAlternatives = z.looseObject({
  alternatives: z.array(z.object({ id: z.string(), title: z.string(), required: z.array(z.string()) })),
  properties: jsonObject,
  required: z.array(z.string()).default([]),
});

const valueOrNull = z.tuple([
  z.looseObject({ type: z.string(), enum: z.array(z.unknown()).optional() }),
  z.strictObject({ type: z.literal('null') }),
]);

/** Null as one of the types, and not as the other half of a union. */
function nullableType({ anyOf, ...rest }: JsonObject): JsonObject {
  const { success, data } = valueOrNull.safeParse(anyOf);
  if (!success) return anyOf === undefined ? rest : { ...rest, anyOf };
  const [{ type, enum: values, ...value }] = data;
  return { ...rest, ...value, type: [type, 'null'], ...(values && { enum: [...values, null] }) };
}

const nullable = z.looseObject({ type: z.tuple([z.string(), z.literal('null')]) });

function withoutNull(schema: unknown): unknown {
  const { success, data } = nullable.safeParse(schema);
  return success ? { ...data, type: data.type[0] } : schema;
}

const absent = z.strictObject({ type: z.literal('null') });

/** Fields that can only be null belong to others. The document leaves them out: they may always be absent. */
function withoutAbsent({ properties, ...rest }: JsonObject): JsonObject {
  const { success, data } = jsonObject.safeParse(properties);
  if (!success) return rest;
  const fields = Object.entries(data).filter(([, member]) => !absent.safeParse(member).success);
  return { ...rest, properties: Object.fromEntries(fields) };
}

const withDefault = z.looseObject({ default: z.unknown(), description: z.string().optional() });

/**
 * Defaults of fields become part of their descriptions: openapi-typescript takes a field that has one as required, in
 * requests too.
 */
function withoutDefaults({ properties, ...rest }: JsonObject): JsonObject {
  const { success, data } = jsonObject.safeParse(properties);
  if (!success) return rest;
  const fields = Object.entries(data).map(([name, field]) => {
    const found = withDefault.safeParse(field).data;
    if (!found || !('default' in found)) return [name, field];
    const { default: value, description, ...others } = found;
    const sentence = `\`${typeof value === 'string' ? value : JSON.stringify(value)}\` if it is absent or null.`;
    return [name, { description: description === undefined ? sentence : `${description} ${sentence}`, ...others }];
  });
  return { ...rest, properties: Object.fromEntries(fields) };
}

/** A union in a union becomes a part of it. */
function flatUnion({ oneOf, ...rest }: JsonObject): JsonObject {
  const { success, data } = z.array(z.unknown()).safeParse(oneOf);
  if (!success) return rest;
  return { ...rest, oneOf: data.flatMap((alternative) => union.safeParse(alternative).data?.oneOf ?? [alternative]) };
}

const union = z.strictObject({ oneOf: z.array(z.unknown()) });

/** The fields whose value may tell which alternative of a union it is. */
const discriminators = ['provider', 'code'];

const unionOfComponents = z.looseObject({ oneOf: z.array(z.object({ $ref: z.string() })) });

const field = z.union([
  z.looseObject({ const: z.string() }).transform((schema) => [schema.const]),
  z.looseObject({ enum: z.array(z.string()) }).transform((schema) => schema.enum),
]);

/** A union with the field that tells its alternatives apart, if one does: each of its values is of one alternative. */
export function discriminated(schema: JsonObject, components: Record<string, JsonObject>): JsonObject {
  const references = unionOfComponents.safeParse(schema).data?.oneOf ?? [];
  for (const propertyName of discriminators) {
    const mapping = references.map(({ $ref }) => {
      const { properties } = z.object({ properties: jsonObject }).parse(components[$ref.replace(/^.*\//, '')]);
      return (field.safeParse(properties[propertyName]).data ?? []).map((value) => [value, $ref] as const);
    });
    const values = mapping.flat().map(([value]) => value);
    if (references.length > 0 && mapping.every((own) => own.length > 0) && new Set(values).size === values.length) {
      return { ...schema, discriminator: { propertyName, mapping: Object.fromEntries(mapping.flat()) } };
    }
  }
  return schema;
}

/** The same value, with every object in it changed from the inside out. */
export const changed = (value: unknown, change: (object: JsonObject) => JsonObject): unknown =>
  JSON.parse(JSON.stringify(value), (_, part: unknown) => {
    const { success, data } = jsonObject.safeParse(part);
    return success ? change(data) : part;
  });
