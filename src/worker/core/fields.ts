/** Schemas of fields. Clients may send a field as null, as a GET shows it (docs/contract.md, Null). */
import * as z from 'zod/mini';

/** A field that may be absent or null, which is the same. */
export const optional = <Schema extends z.ZodMiniType>(schema: Schema) =>
  z.pipe(
    z.nullish(schema),
    z.transform((value) => value ?? undefined),
  );

/** A field that has this value if it is absent or null. */
export const withDefault = <Schema extends z.ZodMiniType>(schema: Schema, value: z.output<Schema>) =>
  z.pipe(
    z.optional(z.nullable(schema).check(z.meta({ default: value }))),
    z.transform((given) => given ?? value),
  );

const absentFields = new WeakSet<z.core.$ZodType>();

/** A field that others have, and which must be absent or null here. */
export function absent(message: string) {
  const field = z.pipe(
    z.optional(z.null({ error: message })),
    z.transform(() => undefined),
  );
  absentFields.add(field);
  return field;
}

export const isAbsent = (field: z.core.$ZodType) => absentFields.has(field);

/** For rules about several fields: they are judged once nothing else is wrong, which may be the same mistake. */
export const onceTheRestIsRight = {
  when: ({ issues }: { issues: unknown[] }) => issues.length === 0,
};

/** An integer in a range. Every wrong value gets the same message. */
export function integer(
  minimum: number,
  maximum: number,
  message = `must be an integer from ${minimum} to ${maximum}`,
) {
  const error = ({ input }: { input?: unknown }) => (input === undefined || input === null ? undefined : message);
  return z
    .int({ error, abort: true })
    .check(z.minimum(minimum, { error, abort: true }), z.maximum(maximum, { error, abort: true }));
}
