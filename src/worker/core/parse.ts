/** Validates values with Zod, and says what is wrong with them in our own words. */
import * as z from 'zod/mini';
import { $ZodObject } from 'zod/v4/core';
import type { Fault } from './errors.ts';
import { isAbsent } from './fields.ts';

/** What the sender of a value calls its members. */
export type Noun = 'field' | 'parameter' | 'option';

/** A body can have thousands of wrong values, and of unknown fields. */
const MAX_FAULTS = 100;
const MAX_NAMED = 10;
const MAX_EDITS = 3;

/** What the schema makes of the value, or else what is wrong with it. */
export function parse<Schema extends z.ZodMiniType>(
  schema: Schema,
  value: unknown,
  noun: Noun,
): { data: z.output<Schema>; faults?: never } | { faults: Fault[] } {
  // The final issues do not say which object schema did not know the keys, but they have the same array of keys.
  const knownNames = new Map<unknown, string[]>();
  const { success, data, error } = schema.safeParse(value, {
    error: (issue) => {
      if (issue.code === 'unrecognized_keys' && issue.inst instanceof $ZodObject) {
        knownNames.set(issue.keys, namesOf(issue.inst));
      }
      return messageOf(issue, noun);
    },
  });
  if (success) return { data };
  const misspelt = new Set<string>();
  const faults = error.issues.flatMap((issue) => {
    if (issue.code === 'invalid_key') return [invalidKey(issue)];
    if (issue.code !== 'unrecognized_keys') return [{ path: issue.path.join('.'), message: issue.message }];
    return unknownMembers(issue, knownNames.get(issue.keys) ?? [], noun, misspelt);
  });
  const told = faults.filter(({ path, message }) => !(message === IS_REQUIRED && misspelt.has(path)));
  return { faults: told.slice(0, MAX_FAULTS) };
}

const IS_REQUIRED = 'is required';

/** The key of a record, unless it is too long or not fit to be shown. */
function invalidKey({ path, message }: { path: PropertyKey[]; message: string }): Fault {
  if (/^[\x20-\x7e]{1,64}$/.test(String(path.at(-1)))) return { path: path.join('.'), message };
  return { path: path.slice(0, -1).join('.'), message: `has a key that is not shown: it ${message}` };
}

/** Names that an object may have. */
function namesOf(schema: $ZodObject): string[] {
  // oxlint-disable-next-line no-underscore-dangle -- what schemas of the commands and of the Worker have in common
  const { shape } = schema._zod.def;
  return Object.entries(shape).flatMap(([name, field]) => (isAbsent(field) ? [] : [name]));
}

/** Replaces Zod's own messages, which speak of JavaScript's types. */
function messageOf(issue: z.core.$ZodRawIssue, noun: Noun): string {
  const value = issue.code === 'invalid_union' ? discriminatorOf(issue) : issue.input;
  if (value === undefined) return IS_REQUIRED;
  if (value === null) return 'must not be null';
  if (noun !== 'field' && Array.isArray(value)) return 'must be given once';
  if (issue.code === 'invalid_type') return `must be ${typeNames.get(issue.expected) ?? 'of another type'}`;
  if (issue.code === 'invalid_value') return oneOf(issue.values);
  if (issue.code === 'invalid_union' && Array.isArray(issue.options)) return oneOf(issue.options);
  return 'is not valid';
}

const typeNames = new Map<string, string>([
  ['string', 'a string'],
  ['int', 'an integer'],
  ['boolean', 'true or false'],
  ['object', 'an object'],
  ['record', 'an object'],
  ['array', 'an array'],
  ['null', 'null'],
]);

const oneOf = (values: readonly unknown[]) => `must be one of ${values.join(', ')}`;

const jsonObject = z.record(z.string(), z.unknown());

function discriminatorOf({ input, discriminator }: { input?: unknown; discriminator?: string | undefined }): unknown {
  return discriminator === undefined ? input : jsonObject.safeParse(input).data?.[discriminator];
}

/** @param misspelt gets the path of each known member that seems to be meant: that it is missing is the same fault */
function unknownMembers(
  { path, keys }: { path: PropertyKey[]; keys: string[] },
  known: string[],
  noun: Noun,
  misspelt: Set<string>,
): Fault[] {
  const pathOf = (name: string) => [...path, name].join('.');
  const named = keys.slice(0, MAX_NAMED).map((key) => {
    if (!/^[A-Za-z0-9_.-]{1,64}$/.test(key)) {
      const article = noun === 'option' ? 'an' : 'a';
      return { path: path.join('.'), message: `${article} ${noun} whose name is not shown is not a known ${noun}` };
    }
    const nearest = nearestOf(key, known);
    if (nearest !== undefined) misspelt.add(pathOf(nearest));
    const question = nearest === undefined ? '' : `; did you mean \`${nearest}\`?`;
    return { path: pathOf(key), message: `\`${pathOf(key)}\` is not a known ${noun}${question}` };
  });
  const others = keys.length - named.length;
  if (others > 0) named.push({ path: path.join('.'), message: `${others} more ${noun}s are not known` });
  return named;
}

const bare = (name: string) => name.toLowerCase().replaceAll(/[^a-z0-9]/g, '');

/** The known name that differs only in case and separators, or else in a few letters. */
function nearestOf(name: string, known: string[]): string | undefined {
  const same = known.find((candidate) => bare(candidate) === bare(name));
  if (same !== undefined) return same;
  for (let edits = 0; edits <= Math.min(MAX_EDITS, name.length / 3); edits += 1) {
    const near = known.find((candidate) => isWithin(edits, name, candidate));
    if (near !== undefined) return near;
  }
  return undefined;
}

/** Whether one text becomes the other with so many letters added, removed or replaced. They are few, and names short. */
function isWithin(edits: number, one: string, other: string): boolean {
  if (Math.abs(one.length - other.length) > edits) return false;
  if (one === '' || other === '') return true;
  const [restOfOne, restOfOther] = [one.slice(1), other.slice(1)];
  if (one[0] === other[0]) return isWithin(edits, restOfOne, restOfOther);
  return (
    isWithin(edits - 1, restOfOne, restOfOther) ||
    isWithin(edits - 1, restOfOne, other) ||
    isWithin(edits - 1, one, restOfOther)
  );
}

/** Whether a message is a sentence without the path before it. */
export const isSentence = (message: string) => /^(?:`|an? \w+ whose |\d)/.test(message);

/**
 * Faults as one sentence.
 *
 * @param whole what the value as a whole is called
 */
export function sentenceOf(faults: Fault[], whole = 'the body'): string {
  const clauses = faults.map(({ path, message }) => {
    if (isSentence(message)) return message;
    return path ? `${path}: ${message}` : `${whole} ${message}`;
  });
  return `${clauses.join('; ')}.`.replaceAll('?;', '?').replace(/\?\.$/, '?');
}
