/** Which database an organization's rows are in: all of them in one, so that one batch decides. */
import type { Bindings } from '../env.ts';
import { sha256Hex } from '../core/sha-256.ts';

/** What `DATABASES` names: bindings, separated by commas. */
export const databaseNames = ({ DATABASES }: Bindings) => DATABASES.split(',').map((name) => name.trim());

/** @throws Error for a name that is not bound */
function named(env: Bindings, name: string): D1Database {
  const database: D1Database | undefined = Reflect.get(env, name);
  if (!database || !('withSession' in database)) throw new Error(`DATABASES names ${name}, which is no D1 binding`);
  return database;
}

/**
 * The database of an organization: of several the one that this organization ranks first, by a hash of both names
 * (rendezvous hashing), so that a further database takes its share of each and moves nothing between the others.
 *
 * @throws Error where `DATABASES` names what is no D1 binding
 */
export function databaseOf(env: Bindings, organization_id: string): D1Database {
  if (!env.DATABASES.includes(',')) return named(env, env.DATABASES);
  const ranked = databaseNames(env).map((name) => `${sha256Hex(`${name} ${organization_id}`)} ${name}`);
  const [, name = ''] = ranked.toSorted()[0]?.split(' ') ?? [];
  return named(env, name);
}

/** The bindings as a call of this organization sees them: `DB` is its database. */
export function bindingsOf(env: Bindings, organization_id: string): Bindings {
  const DB = databaseOf(env, organization_id);
  return DB === env.DB ? env : { ...env, DB };
}

/** Every database. */
export function databases(env: Bindings): D1Database[] {
  return databaseNames(env).map((name) => named(env, name));
}
