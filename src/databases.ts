/** Which database an organization's rows are in: all of them in one, so that one batch decides. */
import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex, utf8ToBytes } from '@noble/hashes/utils.js';
import type { Bindings } from './env.ts';

/** What `DATABASES` names: bindings, separated by commas. */
const namesOf = ({ DATABASES }: Bindings) => DATABASES.split(',').map((name) => name.trim());

function named(env: Bindings, name: string): D1Database {
  const database: D1Database | undefined = Reflect.get(env, name);
  if (!database) throw new Error(`DATABASES names ${name}, which is not bound`);
  return database;
}

/**
 * The database of an organization: of several the one that this organization ranks first, by a hash of both names
 * (rendezvous hashing), so that a further database takes its share of each and moves nothing between the others.
 *
 * @throws Error where `DATABASES` names what is not bound
 */
export function databaseOf(env: Bindings, organization_id: string): D1Database {
  return named(env, rankedFor(env, organization_id)[0] ?? '');
}

/** The bindings as a call of this organization sees them: `DB` is its database. */
export function bindingsOf(env: Bindings, organization_id: string): Bindings {
  const DB = databaseOf(env, organization_id);
  return DB === env.DB ? env : { ...env, DB };
}

/** Every database, that of the organization first. */
export function databasesFrom(env: Bindings, organization_id: string): D1Database[] {
  return rankedFor(env, organization_id).map((name) => named(env, name));
}

/** Every database. */
export function databases(env: Bindings): D1Database[] {
  return namesOf(env).map((name) => named(env, name));
}

function rankedFor(env: Bindings, organization_id: string): string[] {
  const names = namesOf(env);
  if (names.length === 1) return names;
  const rank = new Map(names.map((name) => [name, bytesToHex(sha256(utf8ToBytes(`${name} ${organization_id}`)))]));
  return names.toSorted((one, other) => ((rank.get(one) ?? '') < (rank.get(other) ?? '') ? -1 : 1));
}
