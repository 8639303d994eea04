/**
 * Every list of what is stored, and every set of the filters that it has: from the OpenAPI document, lest one be forgotten.
 * (The numbers of an account are listed by its provider.)
 */
import { requests } from './requests.ts';

/** A list that is followed has the same filters. */
const notFilters = ['cursor', 'page_size', 'order', 'after'];

export const lists = requests.flatMap(({ method, path, query }) => {
  const names = query.map((parameter) => parameter.path);
  const filters = names.filter((name) => !notFilters.includes(name));
  return method === 'GET' && names.includes('cursor') && !path.includes('{') ? [{ path, filters }] : [];
});

interface Rule {
  /** Of these groups a list takes filters of one. */
  groups: string[][];
  /** With this filter, it takes all. */
  unless?: string;
  message: string;
}

const rules: Record<string, Rule[]> = {
  '/api/integrations': [
    {
      groups: [['name_prefix'], ['provider', 'status', 'verification']],
      message: 'only one of name_prefix, (any of provider, status, verification) may be given',
    },
  ],
  '/api/phone-numbers': [
    {
      groups: [['phone_number'], ['phone_number_prefix']],
      message: 'only one of phone_number, phone_number_prefix may be given',
    },
    {
      groups: [['status', 'integration_id', 'ownership'], ['provider'], ['assigned_agent_id']],
      unless: 'phone_number',
      message:
        'only one of (any of status, integration_id, ownership), provider, assigned_agent_id may be given, ' +
        'unless phone_number is given',
    },
  ],
  '/api/audit-events': [
    {
      groups: [['action'], ['target_id'], ['actor_key_id']],
      message: 'only one of action, target_id, actor_key_id may be given',
    },
  ],
};

function faultsOf(path: string, names: string[]) {
  return (rules[path] ?? []).flatMap(({ groups, unless, message }) => {
    const given = groups
      .map((group) => group.filter((name) => names.includes(name)))
      .filter(({ length }) => length > 0);
    const isFree = given.length < 2 || (unless !== undefined && names.includes(unless));
    return isFree ? [] : given.flat().map((name) => ({ path: name, message }));
  });
}

const subsetsOf = (names: string[]): string[][] =>
  names.reduce<string[][]>((subsets, name) => subsets.concat(subsets.map((subset) => [...subset, name])), [[]]);

const combinations = lists.flatMap(({ path, filters }) =>
  subsetsOf(filters).map((names) => ({
    path,
    names,
    filtered: names.join(' and ') || 'no filter',
    faults: faultsOf(path, names),
  })),
);

export const accepted = combinations.filter(({ faults }) => faults.length === 0);
/** With what is wrong. */
export const refused = combinations.filter(({ faults }) => faults.length > 0);
