import { operatorsRevocationOfAll } from '../../worker/api-keys/revoke-all.ts';
import { assertNothingInDoubt, carryOut } from '../../worker/decision/event.ts';
import { commandCall, commandParameters } from '../call.ts';

/**
 * Revokes every key of an organization that has not ended, in one batch, so that no key can create another meanwhile.
 * From the commit on the keys can change nothing. They can read until the caches have forgotten them, at most 60 s.
 *
 * @returns how many keys it revoked
 * @throws DomainError `temporarily_unavailable`, also if there was no key to revoke and an earlier try may still find
 *   some
 */
export async function revokeAllKeys(database: D1Database, organization_id: string): Promise<number> {
  const parameters = commandParameters(commandCall(organization_id));
  const { count, inDoubt } = await carryOut(database, operatorsRevocationOfAll, parameters);
  // Without an event, a late try could still revoke keys that are created from now on.
  if (count === 0) assertNothingInDoubt(inDoubt);
  return count;
}
