/** Every list of the API, and every set of the filters that it has: from the OpenAPI document, lest one be forgotten. */
import * as z from 'zod';
import { openApiDocument } from '../src/openapi/document.ts';

const parameter = z.object({ in: z.string(), name: z.string() });
const documented = z.object({
  paths: z.record(z.string(), z.object({ get: z.object({ parameters: z.array(parameter).default([]) }).optional() })),
});

export const lists = Object.entries(documented.parse(openApiDocument()).paths).flatMap(([path, { get }]) => {
  const names = (get?.parameters ?? []).filter((asked) => asked.in === 'query').map(({ name }) => name);
  const filters = names.filter((name) => name !== 'cursor' && name !== 'page_size');
  return names.includes('cursor') ? [{ path, filters }] : [];
});

/** Of these a list takes one. */
export const alternatives = ['action', 'target_id', 'actor_key_id'];

const subsetsOf = (names: string[]): string[][] =>
  names.reduce<string[][]>((subsets, name) => subsets.concat(subsets.map((subset) => [...subset, name])), [[]]);

const combinations = lists.flatMap(({ path, filters }) =>
  subsetsOf(filters).map((names) => ({ path, names, filtered: names.join(' and ') || 'no filter' })),
);
const isRefused = ({ names }: { names: string[] }) => names.filter((name) => alternatives.includes(name)).length > 1;

export const accepted = combinations.filter((combination) => !isRefused(combination));
export const refused = combinations.filter(isRefused);
