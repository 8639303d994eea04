/**
 * Every list of what is stored, and every set of the filters that it has: from the OpenAPI document, lest one be forgotten.
 * (The numbers of an account are listed by its provider.)
 */
import { requests } from './requests.ts';

export const lists = requests.flatMap(({ method, path, query }) => {
  const names = query.map((parameter) => parameter.path);
  const filters = names.filter((name) => name !== 'cursor' && name !== 'page_size');
  return method === 'GET' && names.includes('cursor') && !path.includes('{') ? [{ path, filters }] : [];
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
