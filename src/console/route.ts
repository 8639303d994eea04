/**
 * The address of a view: `#/integrations/intg_…?verification=refused`. It is the part of the URL that a browser does not send,
 * so no log has it; and it never has a secret.
 */
import { store, useStore } from './store.ts';

export interface Route {
  /** `['integrations', 'intg_…']`; empty for the first view. */
  path: string[];
  query: URLSearchParams;
}

function parseRoute(): Route {
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  return { path: path.split('/').filter(Boolean).map(decode), query: new URLSearchParams(query) };
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

const route = store(parseRoute());
window.addEventListener('hashchange', () => route.set(parseRoute()));

export const useRoute = (): Route => useStore(route);

type Query = Record<string, string | undefined>;

/** The address of a view, for a link. Empty and absent parameters are left out. */
export function hrefOf(path: readonly string[], query: Query = {}): string {
  const given = Object.entries(query).flatMap(([name, value]) => (value ? [[name, value]] : []));
  const search = given.length > 0 ? `?${new URLSearchParams(given)}` : '';
  return `#/${path.map(encodeURIComponent).join('/')}${search}`;
}

export function goTo(path: readonly string[], query: Query = {}): void {
  location.hash = hrefOf(path, query);
}

/** Changes the parameters of this view. Filters are no steps that the back button should go through one by one. */
export function setQuery(query: Query): void {
  const { path, query: present } = route.get();
  history.replaceState(null, '', hrefOf(path, { ...Object.fromEntries(present), ...query }));
  route.set(parseRoute());
}
