/**
 * Which key acts. If no cache knew the key when the call began, the statements find it by its hash. So no call waits until it
 * has been looked up.
 */
import { sql } from 'drizzle-orm';
import type { SQL, SQLWrapper } from 'drizzle-orm';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
import { api_keys, operator_keys } from '../d1/schema.ts';

type KeyOfActor = Readonly<Record<'actor_key_hash', SQLWrapper>>;

const ofKey = (
  { key_hash }: typeof api_keys | typeof operator_keys,
  column: SQLiteColumn,
  { actor_key_hash }: KeyOfActor,
) => sql`(SELECT ${column} FROM ${column.table} WHERE ${key_hash} = ${actor_key_hash})`;

/** The id of the API key that acts; null if none does. */
export const actingKeyId = (
  parameters: KeyOfActor & Readonly<Record<'actor_key_id', SQLWrapper>>,
): SQL<string | null> => sql`coalesce(${parameters.actor_key_id}, ${ofKey(api_keys, api_keys.key_id, parameters)})`;

/** The id of the operator key that acts; null if none does. */
export const actingOperatorId = (
  parameters: KeyOfActor & Readonly<Record<'actor_id', SQLWrapper>>,
): SQL<string | null> =>
  sql`coalesce(${parameters.actor_id}, ${ofKey(operator_keys, operator_keys.operator_key_id, parameters)})`;

/** The columns of an event that say who acts. */
export const actorColumns = (
  parameters: KeyOfActor & Readonly<Record<'actor_id' | 'actor_name' | 'actor_key_id', SQLWrapper>>,
) => ({
  actor_key_id: actingKeyId(parameters),
  actor_id: sql<
    string | null
  >`coalesce(${actingOperatorId(parameters)}, ${ofKey(api_keys, api_keys.key_id, parameters)})`,
  actor_name: sql<
    string | null
  >`coalesce(${parameters.actor_name}, ${ofKey(api_keys, api_keys.name, parameters)}, ${ofKey(operator_keys, operator_keys.name, parameters)})`,
});
